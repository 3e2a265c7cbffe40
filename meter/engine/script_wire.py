"""The connection that script calls travel on: one request, one reply, and nothing of redis-py in between.

redis-py makes it and signs in (meter/engine/redis.py); from then on its transport is ours. What redis-py does for a
command costs as much as all else that this process does for a batch: 25 us, of which a timer 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class ReplyReader(Protocol):
    """Reads replies, as `hiredis.Reader` does: a reply that is not whole is False, an error an exception."""

    def feed(self, data: bytes) -> None:
        """More of what the server sent."""

    def gets(self) -> object:
        """The next reply. Raises for what is no Redis protocol."""

    def has_data(self) -> bool:
        """Whether more than that reply has come."""


class ScriptWire(asyncio.Protocol):
    """Takes a transport over. One call at a time; whatever goes wrong with one closes it, and it is not used again."""

    def __init__(
        self, transport: asyncio.Transport, reader: ReplyReader, patience_seconds: float, let_go: Callable[[], None]
    ) -> None:
        """A call is given up after `patience_seconds`. `let_go` is called once nothing more is sent."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._reader = reader
        self._patience_seconds = patience_seconds
        self._let_go = let_go
        self._caller: asyncio.Future[object] | None = None
        self._due = 0.0
        self._watch: asyncio.TimerHandle | None = None
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether a call may be tried."""
        return not self._transport.is_closing()

    def call(self, request: bytes) -> asyncio.Future[object]:
        """Sends a request; its reply, or `TimeoutError`, `ConnectionError` or what the reader made of an error."""
        self._caller = caller = self._loop.create_future()
        self._due = self._loop.time() + self._patience_seconds
        if self._watch is None:
            self._watch = self._loop.call_at(self._due, self._look)
        self._transport.write(request)
        return caller

    def data_received(self, data: bytes) -> None:
        """A part of a reply. More than that nobody asked for: it would be taken for the reply to the next call."""
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except Exception as error:
            self._fail(error)
            return
        if reply is False:
            return
        caller, self._caller = self._caller, None
        if caller is None or self._reader.has_data():
            self.close()
        if caller is None or caller.done():
            return
        if isinstance(reply, Exception):
            caller.set_exception(reply)
        else:
            caller.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has gone, or we closed."""
        self._fail(exc or ConnectionResetError("Redis closed the connection"))

    def close(self) -> None:
        """Ends it at once; a call that waits fails."""
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._let_go()

    def _look(self) -> None:
        """Whether the reply is late. One timer for many calls: to set one for each costs more than to send it."""
        self._watch = None
        if self._caller is None:
            return
        if self._loop.time() >= self._due:
            self._fail(TimeoutError(f"no reply within {self._patience_seconds:g} s"))
        else:
            self._watch = self._loop.call_at(self._due, self._look)

    def _fail(self, error: Exception) -> None:
        caller, self._caller = self._caller, None
        if caller is not None and not caller.done():
            caller.set_exception(error)
        self.close()
