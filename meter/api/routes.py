"""The routes of `/credits` as Starlette endpoints, for any ASGI server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from meter.api.failure import failure
from meter.api.rendering import Rendered, problem
from meter.contract.calls import ROWS
from meter.http.exchange import Coroutine, Refused, Request, joined_headers

RETRY_AFTER_SECONDS = b"1"


class Endpoint:
    """The ASGI endpoint of one path: a coroutine per method, HEAD with GET. The body is read here, never beyond the
    limit.
    """

    def __init__(self, methods: Mapping[str, Coroutine], body_max_bytes: int) -> None:
        self._methods = methods
        self._allow = ", ".join([*methods, "HEAD"] if "GET" in methods else methods).encode()
        self._body_max_bytes = body_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["method"] == "HEAD"
        run = self._methods.get("GET" if head else scope["method"])
        if run is None:
            rendered = problem("method-not-allowed", f"This path knows {self._allow.decode()}.")
            await send_rendered(rendered, send, ((b"allow", self._allow),), head=head)
            return
        try:
            rendered = await run(
                Request(
                    scope["path_params"],
                    scope["query_string"].decode("latin-1"),
                    joined_headers(scope["headers"]),
                    await self._body(scope, receive),
                )
            )
        except Exception as error:  # every way out of a handler is an answer
            rendered = failure(error)
        await send_rendered(rendered, send, head=head)

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


def header_list(rendered: Rendered) -> list[tuple[bytes, bytes]]:
    """The headers of an answer."""
    headers = [(b"content-length", b"%d" % len(rendered.body)), *rendered.headers]
    if rendered.content_type:
        headers.insert(0, (b"content-type", rendered.content_type))
    if rendered.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if rendered.status == 503:
        headers.append((b"retry-after", RETRY_AFTER_SECONDS))
    return headers


async def send_rendered(
    rendered: Rendered, send: Send, more: tuple[tuple[bytes, bytes], ...] = (), *, head: bool = False
) -> None:
    """Sends an answer, with `more` headers; to a HEAD request without its body."""
    headers = [*header_list(rendered), *more]
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else rendered.body})


def routes(table: Sequence[tuple[str, str, Coroutine]], body_max_bytes: int) -> list[BaseRoute]:
    """Starlette routes of a table of (method, path, coroutine), one endpoint per path, in the order of the table."""
    paths: dict[str, dict[str, Coroutine]] = {}
    for method, path, coroutine in table:
        paths.setdefault(path, {})[method] = coroutine
    return [Route(path, Endpoint(methods, body_max_bytes)) for path, methods in paths.items()]


def surface_routes(coroutines: Mapping[str, Coroutine], prefix: str, body_max_bytes: int) -> list[BaseRoute]:
    """The routes of the surface below a prefix, without that prefix."""
    table = [
        (row.method, row.path.replace("{user_id}", "{user_id:path}"), coroutines[row.name])
        for row in ROWS
        if row.prefix == prefix
    ]
    table.sort(key=lambda entry: entry[1].endswith(":path}"))  # a user_id may contain "/", so it matches greedily
    return routes(table, body_max_bytes)
