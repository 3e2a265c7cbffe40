"""What the hot lane puts in the place of uvicorn's own parts: the exchange, and the flow control of its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sized
from typing import ClassVar, Final, NamedTuple

from uvicorn.protocols.http.flow_control import FlowControl

from meter.http.exchange import Handler, Request


class Found(NamedTuple):
    """What serves a hot request. One that does not read the body is answered by the headers, without waiting for it."""

    handler: Handler
    path: Mapping[str, str]
    query: str = ""
    reads_body: bool = True


class _Silent:
    """Stands where uvicorn wakes an ASGI task: a hot exchange has none."""

    def set(self) -> None:
        """Nobody waits."""


_SILENT: Final = _Silent()


class HotCycle(Request):
    """One hot request and its exchange, in the place of uvicorn's RequestResponseCycle, whose members the protocol
    expects.

    It waits until the answers before it are out, is `started`, then `answered` (written, or the client was gone), and
    complete once the client has taken enough of its answers to be given another one. `headers` are those before the
    body: what a chunked body brings after it is no part of the request. `pieces`: what the parser has of the body,
    which is `body` when it is whole.
    """

    __slots__ = (
        "answered",
        "disconnected",
        "found",
        "keep_alive",
        "method",
        "more_body",
        "pieces",
        "response_complete",
        "started",
        "waiting_for_100_continue",
    )

    message_event: ClassVar = _SILENT

    def __init__(
        self,
        found: Found,
        method: bytes,
        headers: Mapping[bytes, bytes],
        *,
        body: bytes | None = None,
        bare: bool = False,
        keep_alive: bool = True,
        expects: bool = False,
    ) -> None:
        """A request that is whole where it has its `body`; else the parser brings that piece by piece."""
        self.found = found
        self.path = found.path
        self.query = found.query
        self.headers = headers
        self.method = method
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = body or b""
        self.bare = bare
        self.caller = None
        self.source = ""
        self.pieces = bytearray() if body is None else None
        self.more_body = body is None
        self.started = body is not None
        self.answered = False
        self.disconnected = False
        self.response_complete = False


class HotFlow(FlowControl):
    """uvicorn's flow control, except that nothing is read while pipelined requests wait.

    The exchange in progress is whole then, so nobody needs more; and a client that sends without end is held by TCP
    instead of by our memory.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Reads on, unless requests wait."""
        if not self._waiting:
            super().resume_reading()
