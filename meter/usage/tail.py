"""Usage from the end of a response: gateways whose scripts read no JSON keep its last bytes and hand them on.

Of one document only the members at its end are there. They are found by reading backwards: behind the last brace
nothing is inside a string, so each quote on the way back ends or begins one. What is cut is left out.
"""

from __future__ import annotations

import re

from meter.usage.reader import Reader, open_reader
from meter.usage.shape import Shape

_MARK = re.compile(rb'["{}\[\],]')
_DATA = re.compile(rb"^data:", re.MULTILINE)


def read_end(shape: Shape, end: bytes, *, whole: bool) -> Reader:
    """The reader that has seen the end of a response, or all of it."""
    reader = open_reader(shape)
    if not whole:
        end = _of_lines(end) if _DATA.search(end) else last_members(end)
    reader.feed(end)
    reader.finish()
    return reader


def last_members(end: bytes) -> bytes:
    """The document that the bytes end with, as far as it is there: a document with the last of its members."""
    end = end.rstrip()
    if not end.endswith(b"}"):
        return b""
    depth, begin, reads_from = 0, -1, len(end)
    for found in _MARK.finditer(end[::-1]):
        at = len(end) - 1 - found.start()
        if at >= reads_from:
            continue
        mark = end[at : at + 1]
        if mark == b'"':
            reads_from = _begin_of_string(end, at)
            if reads_from < 0:
                break
        elif mark in b"}]":
            depth += 1
        elif mark in b"{[":
            depth -= 1
            if depth == 0:
                return end[at:]
        elif depth == 1:
            begin = at
    return b"" if begin < 0 else b"{" + end[begin + 1 :]


def _begin_of_string(end: bytes, quote: int) -> int:
    """Where the string begins that this quote ends; -1 where that is cut off, or cannot be told."""
    while True:
        quote = end.rfind(b'"', 0, quote)
        before = end[:quote].rstrip(b"\\") if quote > 0 else b""
        if quote <= 0 or not before:
            return -1
        if (quote - len(before)) % 2 == 0:
            return quote


def _of_lines(end: bytes) -> bytes:
    """Without the line that is cut."""
    return end.partition(b"\n")[2]
