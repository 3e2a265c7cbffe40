"""An API of a model, for `meter bench` and `meter bench proxy`: one JSON answer, or server-sent events of which each
tells when it was sent.

A process of its own (`python -m meter.bench.stream_upstream --port …`) on raw sockets, so that its own time is small.
The clock is monotonic and that of the machine, so whoever reads an event knows how long it took.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import cast

import uvloop

INTERVAL_SECONDS = 0.01
EVENTS_HEADER = b"x-events"
"""How many events the request wants before the last one, which tells the usage; without it, it wants JSON."""

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"small",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null,"at":%d}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"small","choices":[],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":10,"total_tokens":12},"at":%d}\n\ndata: [DONE]\n\n'
)
_JSON = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"small","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":9,"total_tokens":17}}'
)
_JSON_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_JSON),
    _JSON,
)


class _Stream(asyncio.Protocol):
    """One connection: answers each request, whose body has a Content-Length."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._text = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._text += data
        head, end, body = self._text.partition(b"\r\n\r\n")
        if not end:
            return
        named = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        length = int(named[b"content-length"])
        if len(body) >= length:
            self._text = body[length:]
            if EVENTS_HEADER not in named and self._transport is not None:
                self._transport.write(_JSON_ANSWER)
                return
            self._events = int(named[EVENTS_HEADER])
            self._send(_HEAD, self._loop.time(), 0)

    def _send(self, head: bytes, began: float, number: int) -> None:
        if self._transport is None:
            return
        is_last = number == self._events
        event = (_LAST if is_last else _EVENT) % time.monotonic_ns()
        end = b"0\r\n\r\n" if is_last else b""
        self._transport.write(head + b"%x\r\n%b\r\n%b" % (len(event), event, end))
        if not is_last:
            due = began + (number + 1) * INTERVAL_SECONDS
            self._timer = self._loop.call_at(due, self._send, b"", began, number + 1)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Stream, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
