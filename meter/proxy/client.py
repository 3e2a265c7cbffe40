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
        self.missed = False
        """Whether there was something to be sent to it when it was gone."""
        self._receive = receive
        self._send = send
        self._stall_seconds = stall_seconds
        self._left: Callable[[], None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[object] | None = None
        self._sending_since = 0.0
        self._stalled = False
        self._is_answered = False

    def watch(self, left: Callable[[], None]) -> None:
        """Calls `left` once when the client goes away, or stops taking what it is sent; until `unwatch`."""
        self._left = left

    def unwatch(self) -> None:
        """The exchange is over. Behind a whole response, whoever watches is told of the end by the server."""
        self._left = None
        if self._patience is not None:
            self._patience.cancel()
        if self._watching is not None and not self._is_answered:
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
            self._watching = self._loop.create_task(self._await_leaving())
        body: bytes = message.get("body", b"")
        return body

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Starts the response."""
        self.started = True
        await self._deliver({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """The next piece of the response; nothing happens when the client is gone."""
        await self._deliver({"type": "http.response.body", "body": body, "more_body": more})
        self._is_answered = not more

    async def _deliver(self, message: Message) -> None:
        """One timer looks after all that is sent: one for each event of a stream would cost more than the sending."""
        if self.gone:
            self.missed |= message["type"] == "http.response.start" or bool(message["body"])
            return
        self._sending, self._sending_since = asyncio.current_task(), self._loop.time()
        if self._patience is None:
            self._patience = self._loop.call_later(self._stall_seconds, self._look)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if not self._stalled or self._sending is None or self._sending.uncancel():
                raise  # cancelled by somebody else, too
            self.missed = True
            self._leave()
        except OSError:  # servers may say so when the client left
            self.missed = True
            self._leave()
        finally:
            self._sending = None

    def _look(self) -> None:
        """Gives up on what has been sent for too long, else looks again when that can next be so."""
        left = self._stall_seconds
        if self._sending is not None:
            left -= self._loop.time() - self._sending_since
            if left <= 0:
                self._stalled = True
                self._sending.cancel()
                return
        self._patience = self._loop.call_later(left, self._look)

    async def _await_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            if self._left is not None:
                self._left()
