"""A request whose body is read before it goes on."""

from __future__ import annotations

from starlette.types import Message, Receive


class ReadAhead:
    """An ASGI `receive` that gives again what was read ahead, or what replaced it."""

    def __init__(self, receive: Receive) -> None:
        self._is_whole = False
        self._receive = receive
        self._messages: list[Message] = []
        self.size = 0
        """Bytes that were read."""

    async def __call__(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()

    async def read(self, bytes_max: int) -> None:
        """Reads on until the body is whole, larger than that, or its client is gone."""
        while not self._is_whole and self.size <= bytes_max:
            message = await self._receive()
            self._messages.append(message)
            self.size += len(message.get("body", b""))
            if message["type"] != "http.request":
                return
            self._is_whole = not message.get("more_body", False)

    def is_whole(self) -> bool:
        """Whether all of the body was read."""
        return self._is_whole

    def is_gone(self) -> bool:
        """Whether the client left in the middle of it."""
        return bool(self._messages) and self._messages[-1]["type"] != "http.request"

    def raw(self) -> bytes:
        """What was read, as it came."""
        return b"".join(message.get("body", b"") for message in self._messages)

    def replace(self, body: bytes) -> None:
        """Another body in the place of what was read."""
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]

    def forget(self) -> None:
        """Nobody wants what was read, but for how it ended: what is yet to come of the body comes next."""
        is_over = self.is_whole() or self.is_gone()
        self._messages = self._messages[-1:] if is_over else []
