"""The plain request, which nearly all are: one piece, HTTP/1.1, a body of known length or none, nothing special asked.

Read here in one pass. What is the least bit out of the ordinary is left to the parser: `PlainReader.read` answers None,
and nothing was decided. So this may be strict, and never has to be clever.

A client sends the same headers with each request, but for those that are of that request alone, so a block of headers
is kept once it was read, with what it means, for the next request that has the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from meter.api.lane.cycle import Found, HotCycle
from meter.http.bounded import Bounds
from meter.http.exchange import TELLING

_LINE: Final = re.compile(rb"(GET|POST) (/[!-~]*+) HTTP/1\.1")
_BLOCK: Final = re.compile(rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++: [!-~](?:[ -~]*[!-~])?+)++")
"""Each header as nearly everybody writes it: one blank before the value, none after it, nothing but ASCII."""
_SPECIAL: Final = (b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te")
_KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")
_OF_ONE_REQUEST: Final = (b"idempotency-key", b"x-request-id", b"traceparent")
"""Headers that no other request has."""
KEPT_MAX: Final = 512
KEPT_BYTES_MAX: Final = 2048
"""How many blocks are kept, and up to which size: a megabyte in all. Only a client that plays fills it."""


class _Headers(NamedTuple):
    """A block that was read. `body_bytes` is None where it announces no body."""

    values: Mapping[bytes, bytes]
    body_bytes: int | None
    bare: bool


class PlainReader:
    """Reads the plain requests of all connections."""

    def __init__(
        self,
        find: Callable[[bytes, bytes], Found | None],
        is_harmless: Callable[[Mapping[bytes, bytes]], bool],
        body_max_bytes: int,
    ) -> None:
        """`find` tells what serves a method and target, if it is hot; `is_harmless`, that headers say nothing of which
        a request may have to be refused (meter/http/browsers.py).
        """
        self._find = find
        self._is_harmless = is_harmless
        self._body_max_bytes = body_max_bytes
        self._lines: dict[bytes, tuple[bytes, Found]] = {}
        self._blocks: dict[bytes, _Headers] = {}

    def read(self, data: bytes, bounds: Bounds) -> tuple[HotCycle, int] | None:
        """The hot request that the data begins with, if it is plain and whole, and how many of the bytes it is."""
        line_end = data.find(b"\r\n")
        head_end = data.find(b"\r\n\r\n", line_end)
        if head_end < 0 or head_end + 4 > bounds.head_max_bytes:
            return None
        line = data[:line_end]
        known = self._lines.get(line) or self._read_line(line)
        if known is None:
            return None
        method, found = known
        block = data[line_end:head_end]
        headers = self._blocks.get(block) or self._read_block(block, bounds.headers_max)
        if headers is None or (method == b"POST") is (headers.body_bytes is None):
            return None
        end = head_end + 4 + (headers.body_bytes or 0)
        if end > len(data):
            return None
        body = data[head_end + 4 : end] if found.reads_body else b""
        return HotCycle(found, method, headers.values, body=body, bare=headers.bare), end

    def _read_line(self, line: bytes) -> tuple[bytes, Found] | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        method, target = match.groups()
        found = self._find(method, target)
        if found is None:
            return None
        if not found.path and not found.query:  # one of a few
            self._lines[line] = method, found
        return method, found

    def _read_block(self, block: bytes, headers_max: int) -> _Headers | None:
        if _BLOCK.fullmatch(block) is None:
            return None
        lines = block.split(b"\r\n")
        values = {}
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            values[name.lower()] = value
        if len(values) != len(lines) - 1 or len(values) > headers_max or not values.keys().isdisjoint(_SPECIAL):
            return None
        length = values.get(b"content-length")
        if length is not None and not (length.isdigit() and len(length) <= 8 and int(length) <= self._body_max_bytes):
            return None
        if values.get(b"connection", b"keep-alive") not in _KEEP_ALIVE or not self._is_harmless(values):
            return None
        headers = _Headers(values, None if length is None else int(length), values.keys().isdisjoint(TELLING))
        if len(block) <= KEPT_BYTES_MAX and values.keys().isdisjoint(_OF_ONE_REQUEST):
            if len(self._blocks) >= KEPT_MAX:
                self._blocks.clear()
            self._blocks[block] = headers
        return headers
