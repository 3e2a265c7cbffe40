"""The cursors of lists: opaque to a caller, good for one list of one user only, and never handed on as they came.

A cursor is the position behind which the next page begins, with a checksum over the list, its user and the position, as
URL-safe base64 without padding. One that was cut, is another list's or was made up is a field error (422) on every list
and whatever the store, because no store and no script sees a text that is not one of ours. The checksum is no secret:
who computes one gets a position that is parsed as strictly, in a list that could be read anyway.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from zlib import crc32

from meter.http.rendered import Answered, validation_problem

CHARS_MAX = 2048

NUMBER = r"(0|[1-9][0-9]{0,15})"
ID = r"([A-Za-z0-9_.:-]{1,128})"

_BASE64 = re.compile(rf"[A-Za-z0-9_-]{{1,{CHARS_MAX}}}")


class Cursors:
    """The cursors of one list. `parts` are the patterns of what a position consists of, each with one group."""

    def __init__(self, name: str, *parts: str) -> None:
        self._name = name
        self._position = re.compile(" ".join(parts))

    def read(self, cursor: str, scope: str = "") -> tuple[str, ...]:
        """The parts of the position; none for the beginning of the list. `scope` is whose list it is.

        Raises `Answered`.
        """
        if not cursor:
            return ()
        found = self._position.fullmatch(self._text(cursor, scope))
        if found is None:
            raise _foreign()
        return found.groups()

    def write(self, *parts: object, scope: str = "") -> str:
        """The cursor of a position."""
        text = " ".join(map(str, parts)).encode()
        return urlsafe_b64encode(self._checksum(text, scope) + text).rstrip(b"=").decode()

    def _text(self, cursor: str, scope: str) -> str:
        if not _BASE64.fullmatch(cursor):
            raise _foreign()
        try:
            packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            text = packed[4:].decode("ascii")
        except (Error, UnicodeDecodeError):
            raise _foreign() from None
        if packed[:4] != self._checksum(packed[4:], scope):
            raise _foreign()
        return text

    def _checksum(self, text: bytes, scope: str) -> bytes:
        return crc32(b"\n".join((self._name.encode(), scope.encode(), text))).to_bytes(4, "big")


def _foreign() -> Answered:
    return Answered(validation_problem([("/cursor", "is none that this list gave; leave it out to begin anew")]))
