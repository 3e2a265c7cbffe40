"""`GET /openapi.json`, and `GET /docs`: a page that lists the calls and sends them. All of it is static text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meter.config import Settings
from meter.openapi.bounds import Bounds
from meter.openapi.document import JsonObject, document

_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'self'; "
    "img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def docs_routes(settings: Settings) -> list[BaseRoute]:
    """The document of a deployment, the page and its script; made now, so that no request waits for it."""
    return [
        _static("/", _file("start.html"), "text/html"),
        _static("/openapi.json", _document_text(Bounds.of(settings)), "application/json"),
        *page_routes(),
    ]


def page_routes() -> list[BaseRoute]:
    """The page and its script, which find the document beside them."""
    return [
        _static("/docs", _file("page.html"), "text/html"),
        _static("/docs/docs.js", _file("page.js"), "text/javascript"),
    ]


def under_mount(found: JsonObject) -> Route:
    """A document whose paths begin where the application is mounted that serves it."""

    async def serve(request: Request) -> Response:
        whole = {**found, "servers": [{"url": request.scope.get("root_path", "") or "/"}]}
        return Response(orjson.dumps(whole), media_type="application/json", headers=_HEADERS)

    return Route("/openapi.json", serve)


@cache
def _document_text(bounds: Bounds) -> bytes:
    return orjson.dumps(document(bounds))


def _file(name: str) -> bytes:
    return (files("meter.openapi") / name).read_bytes()


def _static(path: str, body: bytes, media_type: str) -> Route:
    async def serve(_: Request) -> Response:
        return Response(body, media_type=media_type, headers=_HEADERS)

    return Route(path, serve)
