"""What the console answers with: pages that run nothing but our own files and are kept nowhere."""

from __future__ import annotations

import hmac
import mimetypes
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from importlib.resources import files
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from meter.console import templates
from meter.console.visit import ROOT, Visit

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
STATIC: frozenset[str] = frozenset(
    (
        *("tokens.css", "app.css", "console.css", "console.js", "inter.woff2", "mono.woff2"),
        *("htmx.min.js", "uplot.min.js", "uplot.min.css", "icon.svg"),
    )
)
_KEPT = {**HEADERS, "cache-control": "public, max-age=3600, must-revalidate"}
TOLD, _MARK_LENGTH = "meter-told", 32
mimetypes.add_type("font/woff2", ".woff2")


def shown(name: str, visit: Visit | None, status: int = 200, *, under: str = "", **members: object) -> Response:
    """A page; `under` is the screen of the rail that it belongs to, where it is not one itself."""
    return HTMLResponse(templates.page(name, visit, under, **members), status, HEADERS)


def elsewhere(address: str) -> Response:
    """303: what was posted is done, and is not to be posted again by a reload."""
    return RedirectResponse(address, 303, HEADERS)


def done(visit: Visit, address: str, text: str) -> Response:
    """Back to a page, which tells what the action came to: once, and to this login alone."""
    found = elsewhere(address)
    found.set_cookie(TOLD, f"{_mark(text, visit.token)}{quote(text)}", 60, path=ROOT, httponly=True, samesite="strict")
    return found


def told(value: str, token: str) -> str:
    """The text that `done` left; "" where that is not its mark."""
    text = unquote(value[_MARK_LENGTH:])
    return text if compare_digest(value[:_MARK_LENGTH].encode(), _mark(text, token).encode()) else ""


def _mark(text: str, token: str) -> str:
    return hmac.new(token.encode(), text.encode(), sha256).hexdigest()[:_MARK_LENGTH]


def notice(status: int, title: str, text: str, visit: Visit | None = None) -> Response:
    """A page that says why there is no other."""
    return shown("notice.html", visit, status, title=title, text=text)


async def static(request: Request) -> Response:
    """A file of ours; a copy that is still right is not sent again."""
    name = request.path_params["name"]
    if name not in STATIC:
        return notice(404, "There is nothing here", "The console has no file of that name.")
    body, tag = _file(name)
    headers = {**_KEPT, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=mimetypes.guess_type(name)[0])


@cache
def _file(name: str) -> tuple[bytes, str]:
    body = (files("meter.console") / "static" / name).read_bytes()
    return body, f'"{sha256(body).hexdigest()[:20]}"'
