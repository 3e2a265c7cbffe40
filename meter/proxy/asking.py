"""Requests that generate are read before they go on: what they may cost is held, and they ask for their usage."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from meter.charging.asking import Unreadable, unpacked
from meter.http.read_ahead import ReadAhead
from meter.http.rendered import Rendered, problem
from meter.proxy.headers import Header, content_length, value_of
from meter.proxy.injection import with_usage
from meter.proxy.large_requests import Claim

READ_FIRST_BYTES = 1024 * 1024
"""How much is read of a request before it is known whether its user has any credits."""
_FULL = ("too-many-large-requests", "Large requests that are being read take all the memory that they may.")


def is_small_json(headers: list[Header]) -> bool:
    """Whether a request of an API that nobody knows is read for the model that it names: not one that streams."""
    length = value_of(headers, b"content-length") or b""
    is_json = b"json" in (value_of(headers, b"content-type") or b"").lower()
    return is_json and length.isdigit() and int(length) <= READ_FIRST_BYTES


class AskedFirst(ReadAhead):
    """A request that is read ahead, and may have to ask for its usage."""

    def __init__(self, receive: Receive, headers: list[Header]) -> None:
        super().__init__(receive)
        self.asks_usage = False
        """Whether it was made to ask for its usage, which its client did not."""
        self._coding = value_of(headers, b"content-encoding") or b""
        self._length = content_length(headers)
        self._body: bytes | Unreadable | None = None

    async def read_large(self, bytes_max: int, claim: Claim, pause_seconds: float) -> Rendered | None:
        """Reads on to the end of the body, as far as the claim goes; a refusal for one that is too large, for which
        there is no memory now, or whose client sends nothing for so long.
        """
        expected = self._length or 0
        while not (self.is_whole() or self.is_gone()):
            upto = expected or self.size + READ_FIRST_BYTES
            if max(expected, self.size) > bytes_max:
                return problem("body-too-large", f"The proxy reads {bytes_max} bytes of a request that generates.")
            if not claim.reach(upto):
                return problem(*_FULL)
            try:
                async with asyncio.timeout(pause_seconds):
                    await self.read(self.size)
            except TimeoutError:
                return problem("request-timeout", f"Nothing came of the body for {pause_seconds:g} seconds.")
        return None

    async def unpack(self, bytes_max: int, claim: Claim) -> Rendered | None:
        """Takes the content coding off, in a thread, for some bytes may become many; a refusal as of `read_large`."""
        if not self._coding or not self.is_whole():
            return None
        body = await asyncio.to_thread(_unpacked, self.raw(), self._coding, bytes_max)
        size = 0 if isinstance(body, Unreadable) else len(body)
        if size > READ_FIRST_BYTES and not claim.reach(self.size + size):
            return problem(*_FULL)
        self._body = body
        return None

    def body(self, bytes_max: int) -> bytes | None:
        """The body without its coding; None where it is not whole, or cannot be told."""
        if not self.is_whole():
            return None
        body = self._plain(bytes_max)
        return None if isinstance(body, Unreadable) else body

    def ask_for_usage(self, bytes_max: int) -> Rendered | None:
        """Has the request ask for its usage; a refusal where nobody can be sure that it does."""
        body = self._plain(bytes_max)
        if isinstance(body, Unreadable):
            return problem("unsupported-media-type", f"Its usage could not be read: {body}.")
        try:
            changed = with_usage(body)
        except Unreadable as error:
            return problem("malformed-json", f"Its usage could not be read: {error}.")
        if changed is not None:
            self.replace(changed)
            self.asks_usage = True
        return None

    def _plain(self, bytes_max: int) -> bytes | Unreadable:
        if self._body is None:
            self._body = _unpacked(self.raw(), self._coding, bytes_max)
        return self._body


def _unpacked(body: bytes, coding: bytes, bytes_max: int) -> bytes | Unreadable:
    """The body without its coding, or why it cannot be read."""
    try:
        return unpacked(body, coding, bytes_max)
    except Unreadable as error:
        return error
