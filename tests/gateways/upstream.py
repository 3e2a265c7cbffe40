"""A metered API: it answers with usage in a header, a JSON body or an event stream, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tests.api.sidecar import DEADLINE_SECONDS, wait_for

Headers = dict[str, str]


_SCHEMA = b'"tools":[{"parameters":{"total_tokens":1}}],"say":"\\"total_tokens\\": 7"}'
TRICKY = {
    "/schema": b'{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29},' + _SCHEMA,
    "/exponent": b'{"usage":{"total_tokens":2.9e1}}',
    "/anthropic": b'{"type":"message","usage":{"input_tokens":19,"output_tokens":10}}',
    "/batches": b'{"object":"list","data":[{"id":"b","usage":{"total_tokens":700}}]}',
    "/long": b'{"text":"' + b"x" * 100_000 + b'","usage":{"total_tokens":29},' + _SCHEMA,
}
"""Bodies that a search for text reads wrong (K12)."""


@dataclass(frozen=True)
class Seen:
    """A request that came through."""

    method: str
    path: str
    headers: Headers
    body: bytes


@dataclass
class Upstream:
    """The ASGI application. A stream's last event waits until `finish` is set.

    Paths: /json (body usage), /header (usage in X-Credits-Actual), /both, /gzip, /fail, /sse, /talk (goes on with
    small events meanwhile), /plain; `?usage=` says how
    much, 30 by default.
    """

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    finish: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        assert scope["type"] == "http"
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path: str = scope["path"]
        self.seen.append(Seen(scope["method"], path, headers, body))
        query: str = scope["query_string"].decode()
        usage = query.removeprefix("usage=") if query.startswith("usage=") else "30"
        if path in ("/sse", "/talk"):
            await self._stream(usage, receive, send, talks=path == "/talk")
            return
        answer = json.dumps({"text": "hello", "usage": {"total_tokens": int(usage)}}).encode()
        if path in TRICKY:
            answer = TRICKY[path]
        told = [(b"x-credits-actual", usage.encode())] if path in ("/header", "/both", "/gzip", "/fail") else []
        if path in ("/header", "/plain"):
            answer = b'{"text":"hello"}'
        if path == "/gzip" and "gzip" in headers.get("accept-encoding", ""):
            answer = gzip.compress(answer)
            told.append((b"content-encoding", b"gzip"))
        status = 500 if path == "/fail" else 200
        await send(_start(status, b"application/json", [*told, (b"content-length", str(len(answer)).encode())]))
        await send({"type": "http.response.body", "body": answer})

    async def _stream(self, usage: str, receive: Receive, send: Send, *, talks: bool) -> None:
        """Events with usage in the last one."""
        await send(_start(200, b"text/event-stream", []))
        await send(_event({"choices": [{"delta": {"content": "hello"}}], "usage": None}))
        left = asyncio.ensure_future(receive())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not self.finish.is_set() and not left.done():
                    await asyncio.sleep(0.01)
                    if talks:
                        await send(_event({"choices": [{"delta": {"content": "."}}], "usage": None}))
        finally:
            if left.done():
                self.gone.set()
            left.cancel()
        if not self.finish.is_set():
            return
        await send(_event({"choices": [], "usage": {"total_tokens": int(usage)}}))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _start(status: int, content_type: bytes, more: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *more]}


def _event(value: object) -> Message:
    return {"type": "http.response.body", "body": b"data: " + json.dumps(value).encode() + b"\n\n", "more_body": True}


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    """The upstream, served from a thread."""
    upstream = Upstream()
    config = uvicorn.Config(upstream, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the upstream serves")
    upstream.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        upstream.finish.set()
        server.should_exit = server.force_exit = True
        thread.join(DEADLINE_SECONDS)
