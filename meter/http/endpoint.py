"""Handlers as ASGI endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.types import Receive, Scope, Send

from meter.errors import MeterError
from meter.http.exchange import Coroutine, Request, joined_headers
from meter.http.reading import failure
from meter.http.rendered import Answered, Rendered, problem
from meter.http.request_id import id_to_answer, named
from meter.log import logger

_log = logger("meter.api")

RETRY_AFTER, RETRY_AFTER_SECONDS = b"retry-after", b"1"
RETRIED = frozenset({429, 503})
"""What another try a moment later may mend; clients of providers give up on these without the header."""


CHALLENGE = (b"www-authenticate", b'Bearer realm="meter"')
"""What every 401 says of the credentials that it wants (RFC 9110, 11.6.1)."""


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
                    source=source_of(scope),
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
                raise Answered(problem("malformed-json", "The client went away."))
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._body_max_bytes:
                raise Answered(problem("body-too-large", f"The limit is {self._body_max_bytes} bytes."))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def header_list(rendered: Rendered, body: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; of one that is given with that body where it is another."""
    headers = [(b"content-length", b"%d" % len(rendered.body if body is None else body)), *rendered.headers]
    if rendered.content_type:
        headers.insert(0, (b"content-type", rendered.content_type))
    if rendered.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if rendered.status == 401:
        headers.append(CHALLENGE)
    if rendered.status in RETRIED and not any(name == RETRY_AFTER for name, _ in rendered.headers):
        headers.append((RETRY_AFTER, RETRY_AFTER_SECONDS))
    return headers


async def send_rendered(
    rendered: Rendered, send: Send, more: tuple[tuple[bytes, bytes], ...] = (), *, head: bool = False
) -> None:
    """Sends an answer, with `more` headers; to a HEAD request without its body."""
    rendered = named(rendered, id_to_answer(rendered))
    if rendered.stream is not None:
        await _send_stream(rendered, rendered.stream, send, head=head)
        return
    headers = [*header_list(rendered), *more]
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else rendered.body})


async def _send_stream(rendered: Rendered, stream: AsyncIterator[bytes], send: Send, *, head: bool) -> None:
    """Sends a body as it is made. One that breaks off has no end, which a client sees; its cause is in the log."""
    headers = [(b"content-type", rendered.content_type), *rendered.headers]
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    try:
        async for piece in stream:
            if head:
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except MeterError as error:
        _log.warning("an export breaks off", why=str(error))
        return
    await send({"type": "http.response.body", "body": b""})


class AnyMethod:
    """The ASGI endpoint of a path that takes any method and never reads the body: a gateway may announce one and not
    send it.
    """

    def __init__(self, run: Coroutine) -> None:
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers by the headers. Whoever leaves before that is not answered, and `run` is cancelled."""
        headers = joined_headers(scope["headers"])
        run = asyncio.ensure_future(self._answer(scope, headers))
        gone = asyncio.ensure_future(_gone(receive)) if b"expect" not in headers else None
        await asyncio.wait({run} if gone is None else {run, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone is not None:
            gone.cancel()
        if run.done():
            await send_rendered(run.result(), send, head=scope["method"] == "HEAD")
        else:
            run.cancel()

    async def _answer(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Rendered:
        try:
            query = scope["query_string"].decode("latin-1")
            return await self._run(Request(scope["path_params"], query, headers, source=source_of(scope)))
        except Exception as error:  # every way out of a handler is an answer
            return failure(error)


def source_of(scope: Scope) -> str:
    """The address that a request came from, "" where the server does not tell."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _gone(receive: Receive) -> None:
    """Returns when the client has left; a body is none of our business."""
    while (await receive())["type"] != "http.disconnect":
        pass
