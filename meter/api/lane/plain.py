"""The plain request, which nearly all are: one piece, HTTP/1.1, a body of known length or none, nothing special asked.

Read here in one pass. What is the least bit out of the ordinary is left to the parser: `plain_request` answers None,
and nothing was decided. So this may be strict, and never has to be clever.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_HEAD: Final = re.compile(
    rb"(GET|POST) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++: [!-~](?:[ -~]*[!-~])?+\r\n)++)\r\n"
)
"""Each header as nearly everybody writes it: one blank before the value, none after it, nothing but ASCII."""
_SPECIAL: Final = (b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te")
_KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")


class PlainRequest(NamedTuple):
    """A whole request. `size`: how many of the bytes it is."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    size: int


def plain_request(data: bytes, headers_max: int, head_max_bytes: int) -> PlainRequest | None:
    """The request that the data begins with, if it is a plain one and whole."""
    found = _HEAD.match(data)
    if found is None or found.end() > head_max_bytes:
        return None
    method, target, block = found.groups()
    lines = block.split(b"\r\n")
    headers = {}
    for line in lines[:-1]:
        name, _, value = line.partition(b": ")
        headers[name.lower()] = value
    if len(headers) != len(lines) - 1 or len(headers) > headers_max or not headers.keys().isdisjoint(_SPECIAL):
        return None
    if headers.get(b"connection", b"keep-alive") not in _KEEP_ALIVE:
        return None
    end = found.end()
    if method == b"POST":
        length = headers.get(b"content-length")
        if length is None or not length.isdigit() or len(length) > 8:
            return None
        size = end + int(length)
        return PlainRequest(method, target, headers, data[end:size], size) if len(data) >= size else None
    return None if b"content-length" in headers else PlainRequest(method, target, headers, b"", end)
