"""The client of one exchange: its request body in, the response out, and whether it is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Send


class ClientGone(Exception):
    """The client left before its request was whole."""


class Client:
    """Wraps what ASGI gives us. Once the request is read to its end, `watch` is told when the client leaves."""

    def __init__(self, receive: Receive, send: Send, *, stall_seconds: float) -> None:
        self.gone = False
        self.requested = False
        """Whether the whole request was read."""
        self.started = False
        """Whether a response was started."""
        self._receive = receive
        self._send = send
        self._stall_seconds = stall_seconds
        self._left: Callable[[], None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def watch(self, left: Callable[[], None]) -> None:
        """Calls `left` once when the client goes away, or stops taking what it is sent; until `unwatch`."""
        self._left = left

    def unwatch(self) -> None:
        """The exchange is over."""
        self._left = None
        if self._watching is not None:
            self._watching.cancel()

    async def read(self) -> bytes:
        """The next piece of the request's body; the last one when `requested` is set. Raises `ClientGone`.

        The first call is what answers `Expect: 100-continue`.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            self._leave()
            raise ClientGone
        if not message.get("more_body", False):
            self.requested = True
            self._watching = asyncio.get_running_loop().create_task(self._await_leaving())
        body: bytes = message.get("body", b"")
        return body

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Starts the response."""
        self.started = True
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """The next piece of the response; nothing happens when the client is gone."""
        await self._deliver({"type": "http.response.body", "body": body, "more_body": more})

    async def _deliver(self, message: Message) -> None:
        if self.gone:
            return
        try:
            async with asyncio.timeout(self._stall_seconds) as patience:
                await self._send(message)
        except TimeoutError:
            if not patience.expired():
                raise
            self._leave()
        except OSError:  # servers may say so when the client left
            self._leave()

    async def _await_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            if self._left is not None:
                self._left()
