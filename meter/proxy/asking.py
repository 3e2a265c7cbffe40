"""Requests that generate are read before they go on: what they may cost is held, and they ask for their usage."""

from __future__ import annotations

from starlette.types import Message, Receive

from meter.charging.asking import Unreadable, unpacked
from meter.http.rendered import Rendered, problem
from meter.proxy.headers import Header, value_of
from meter.proxy.injection import with_usage

READ_FIRST_BYTES = 1024 * 1024
"""How much of a request is read before anything is held for it; more is read when something is."""


class AskedFirst:
    """A request whose body is read ahead; it is an ASGI `receive` that gives the whole again, or what replaced it."""

    def __init__(self, receive: Receive, headers: list[Header]) -> None:
        self._is_whole = False
        self.asks_usage = False
        """Whether it was made to ask for its usage, which its client did not."""
        self._receive = receive
        self._coding = value_of(headers, b"content-encoding") or b""
        self._messages: list[Message] = []
        self._size = 0

    async def __call__(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()

    async def read(self, bytes_max: int) -> None:
        """Reads on until the body is whole, larger than that, or its client is gone."""
        while not self._is_whole and self._size <= bytes_max:
            message = await self._receive()
            self._messages.append(message)
            self._size += len(message.get("body", b""))
            if message["type"] != "http.request":
                return
            self._is_whole = not message.get("more_body", False)

    def is_whole(self) -> bool:
        """Whether all of the body was read."""
        return self._is_whole

    def is_gone(self) -> bool:
        """Whether the client left in the middle of it."""
        return bool(self._messages) and self._messages[-1]["type"] != "http.request"

    def body(self, bytes_max: int) -> bytes | None:
        """The body without its coding; None where it is not whole, or cannot be told."""
        if not self._is_whole:
            return None
        try:
            return unpacked(self._raw(), self._coding, bytes_max)
        except Unreadable:
            return None

    def ask_for_usage(self, bytes_max: int) -> Rendered | None:
        """Has the request ask for its usage; a refusal where nobody can be sure that it does."""
        try:
            body = unpacked(self._raw(), self._coding, bytes_max)
        except Unreadable as error:
            return problem("unsupported-media-type", f"Its usage could not be read: {error}.")
        try:
            changed = with_usage(body)
        except Unreadable as error:
            return problem("malformed-json", f"Its usage could not be read: {error}.")
        if changed is not None:
            self._messages = [{"type": "http.request", "body": changed, "more_body": False}]
            self.asks_usage = True
        return None

    def _raw(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._messages)
