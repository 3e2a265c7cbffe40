"""The calls inside somebody else's application: documented under a mount, or as routes in the host's own document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from meter.config import Settings
from meter.contract.call import CREDITS, Call
from meter.contract.calls import CALLS
from meter.errors import ConfigError
from meter.http import exchange
from meter.http.endpoint import Endpoint
from meter.http.request_id import Identified
from meter.openapi.bounds import Bounds
from meter.openapi.document import document
from meter.openapi.page import page_routes, under_mount

JsonObject = dict[str, Any]


def mounted_docs(settings: Settings) -> list[BaseRoute]:
    """`openapi.json` and `docs` below wherever the routes are mounted."""
    return [*page_routes(), under_mount(document(Bounds.of(settings), is_mounted=True))]


def fastapi_router(coroutines: Mapping[str, exchange.Coroutine], settings: Settings) -> Any:
    """A `fastapi.APIRouter` of the calls below `/credits`, without that prefix: what includes it chooses one. Each is
    in the host's OpenAPI document as it is in ours. Raises `ConfigError` without FastAPI.
    """
    try:
        fastapi: Any = import_module("fastapi")
    except ImportError:
        raise ConfigError("fastapi_router needs FastAPI: pip install fastapi") from None
    whole: JsonObject = document(Bounds.of(settings), is_mounted=True)
    router = fastapi.APIRouter()
    calls = sorted((call for call in CALLS if call.prefix == CREDITS), key=lambda call: call.path.endswith("{user_id}"))
    for call in calls:  # a user_id may contain "/", so it matches greedily, and last
        app = Identified(Endpoint({call.method: coroutines[call.name]}, settings.body_max_bytes))
        shown = whole["paths"][call.path][call.method.lower()]
        _add(router, call, app, _inlined(shown, whole, ()))
    return router


def _add(router: Any, call: Call, app: ASGIApp, shown: JsonObject) -> None:
    router.add_api_route(
        call.path.replace("{user_id}", "{user_id:path}"),
        _serving(app),
        methods=[call.method],
        operation_id=f"meter_{call.name}",
        summary=call.summary,
        tags=[call.tag],
        status_code=call.status,
        response_class=Response,
        openapi_extra={name: shown[name] for name in ("parameters", "requestBody", "responses") if name in shown},
    )


class _Passed(Response):
    """An answer that is made while it is sent."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _serving(app: ASGIApp) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def serve(request: Request) -> Response:
        del request
        return _Passed(app)

    serve.__annotations__ = {"request": Request, "return": Response}  # FastAPI evaluates them where it is
    return serve


def _inlined(value: Any, whole: JsonObject, inside: tuple[str, ...]) -> Any:
    """A part of our document that refers to nothing: the components of a host's document are its own."""
    if isinstance(value, Mapping):
        name = value.get("$ref")
        if isinstance(name, str):
            if name in inside:
                return {}
            found: Any = whole
            for part in name.removeprefix("#/").split("/"):
                found = found[part]
            return _inlined(found, whole, (*inside, name))
        return {key: _inlined(member, whole, inside) for key, member in value.items() if key != "discriminator"}
    return [_inlined(member, whole, inside) for member in value] if isinstance(value, list) else value
