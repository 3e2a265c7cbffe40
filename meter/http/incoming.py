"""A request as an application reads it, and whether its client is still there, also while nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive

_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_GONE: Message = {"type": "http.disconnect"}


class Incoming:
    """Stands between a server's `receive` and an application. Once the request is whole, the server is asked for what
    comes next, which can only be that the client left: applications that never ask, and those that somebody in between
    has stopped, would not tell.
    """

    def __init__(self, receive: Receive, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Starts to watch at once where `headers` announce no body."""
        self.gone = False
        """The client left, after it had sent its whole request."""
        self._receive = receive
        self._kept: Message | Exception | None = None
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._whole = _BODY_HEADERS.isdisjoint(name for name, _ in headers)
        if self._whole:
            self._watch()

    async def receive(self) -> Message:
        """As the server's."""
        if self._watching is None:
            message = await self._receive()
            if message["type"] == _GONE["type"]:
                self.gone = self._whole
            elif not message.get("more_body", False):
                self._whole = True
                self._watch()
            return message
        await self._news.wait()
        kept, self._kept = self._kept, None
        if isinstance(kept, Exception):
            raise kept
        if not self.gone:
            self._news.clear()
        return kept or _GONE

    def close(self) -> None:
        """Watches no longer."""
        if self._watching is not None:
            self._watching.cancel()

    def _watch(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            message = await self._receive()
            if message["type"] != _GONE["type"]:  # the empty body of a request without one
                self._kept = message
                self._news.set()
                message = await self._receive()
            self.gone = message["type"] == _GONE["type"]
        except Exception as error:  # for whoever reads; nobody may
            self._kept = error
        self._news.set()
