"""The routes of `/credits` as Starlette endpoints, for any ASGI server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from meter.api.exchange import Handler, Refused, Request
from meter.api.failure import failure
from meter.api.hot import HotHandlers, Services
from meter.api.management import ManagementHandlers
from meter.wire import Rendered, problem

Coroutine = Callable[[Request], Awaitable[Rendered]]

RETRY_AFTER_SECONDS = b"1"


class Endpoint:
    """The ASGI endpoint of one path: a coroutine per method. The body is read here, never beyond the limit."""

    def __init__(self, methods: Mapping[str, Coroutine], body_max_bytes: int) -> None:
        self._methods = methods
        self._allow = ", ".join(methods).encode()
        self._body_max_bytes = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._methods.get(scope["method"])
        if run is None:
            rendered = problem("method-not-allowed", f"This path knows {self._allow.decode()}.")
            await send_rendered(rendered, send, ((b"allow", self._allow),))
            return
        try:
            rendered = await run(
                Request(
                    scope["path_params"],
                    scope["query_string"].decode("latin-1"),
                    dict(scope["headers"]),
                    await self._body(scope, receive),
                )
            )
        except Exception as error:  # every way out of a handler is an answer
            rendered = failure(error)
        await send_rendered(rendered, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(problem("malformed-json", "The client went away."))
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._body_max_bytes:
                raise Refused(problem("body-too-large", f"The limit is {self._body_max_bytes} bytes."))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def awaitable(handler: Handler) -> Coroutine:
    """A hot handler as a coroutine."""

    async def run(request: Request) -> Rendered:
        future: asyncio.Future[Rendered] = asyncio.get_running_loop().create_future()

        def respond(rendered: Rendered) -> None:
            if not future.done():  # the client may have gone away
                future.set_result(rendered)

        handler(request, respond)
        return await future

    return run


def header_list(rendered: Rendered) -> list[tuple[bytes, bytes]]:
    """The headers of an answer."""
    headers = [(b"content-type", rendered.content_type), (b"content-length", b"%d" % len(rendered.body))]
    if rendered.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if rendered.status == 503:
        headers.append((b"retry-after", RETRY_AFTER_SECONDS))
    return headers


async def send_rendered(rendered: Rendered, send: Send, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Sends an answer, with `more` headers."""
    headers = [*header_list(rendered), *more]
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    await send({"type": "http.response.body", "body": rendered.body})


def routes(table: Sequence[tuple[str, str, Coroutine]], body_max_bytes: int) -> list[BaseRoute]:
    """Starlette routes of a table of (method, path, coroutine), one endpoint per path, in the order of the table."""
    paths: dict[str, dict[str, Coroutine]] = {}
    for method, path, coroutine in table:
        paths.setdefault(path, {})[method] = coroutine
    return [Route(path, Endpoint(methods, body_max_bytes)) for path, methods in paths.items()]


def credit_routes(services: Services, hot: HotHandlers, management: ManagementHandlers) -> list[BaseRoute]:
    """Every route below `/credits`, without that prefix."""
    table = [
        ("POST", "/add", management.add),
        ("POST", "/deduct", awaitable(hot.deduct)),
        ("POST", "/reservations", awaitable(hot.reserve)),
        ("GET", "/reservations", management.reservations),
        ("GET", "/reservations/{reservation_id}", awaitable(hot.reservation)),
        ("POST", "/reservations/{reservation_id}/commit", awaitable(hot.commit)),
        ("POST", "/reservations/{reservation_id}/release", awaitable(hot.release)),
        ("POST", "/reservations/{reservation_id}/extend", awaitable(hot.extend)),
        ("POST", "/refund", management.refund),
        ("POST", "/batch", management.batch),
        ("GET", "/balance/{user_id:path}", awaitable(hot.balance)),
        ("POST", "/grants/{user_id:path}/{grant_id}/void", management.void),
        ("GET", "/grants/{user_id:path}", management.grants),
        ("GET", "/explain/{user_id:path}", awaitable(hot.explain)),
        ("GET", "/users/{user_id:path}", management.user),
        ("PATCH", "/users/{user_id:path}", management.configure),
    ]
    return routes(table, services.settings.body_max_bytes)
