"""Requests that generate are read before they go on: what they may cost is held, and they ask for their usage."""

from __future__ import annotations

from starlette.types import Receive

from meter.charging.asking import Unreadable, unpacked
from meter.http.read_ahead import ReadAhead
from meter.http.rendered import Rendered, problem
from meter.proxy.headers import Header, value_of
from meter.proxy.injection import with_usage

READ_FIRST_BYTES = 1024 * 1024
"""How much is read of a request before it is known whether its user has any credits."""


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

    def body(self, bytes_max: int) -> bytes | None:
        """The body without its coding; None where it is not whole, or cannot be told."""
        if not self.is_whole():
            return None
        try:
            return unpacked(self.raw(), self._coding, bytes_max)
        except Unreadable:
            return None

    def ask_for_usage(self, bytes_max: int) -> Rendered | None:
        """Has the request ask for its usage; a refusal where nobody can be sure that it does."""
        try:
            body = unpacked(self.raw(), self._coding, bytes_max)
        except Unreadable as error:
            return problem("unsupported-media-type", f"Its usage could not be read: {error}.")
        try:
            changed = with_usage(body)
        except Unreadable as error:
            return problem("malformed-json", f"Its usage could not be read: {error}.")
        if changed is not None:
            self.replace(changed)
            self.asks_usage = True
        return None
