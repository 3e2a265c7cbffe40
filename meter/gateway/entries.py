"""A delivery of access logs, cut into entries: JSON arrays, one object, or objects one per line.

Limits come before the work that they bound: unpacked bytes and how many of them one packed byte may stand for, then
lines and JSON values, which are counted and not read, then entries, of which no more than may be are parsed. An entry
that cannot be read is a `BadEntry` in its place and costs nobody else an entry.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal

ENTRIES_MAX = 1000
LINES_MAX = 4 * ENTRIES_MAX
"""Lines of a delivery, those without an entry included."""
VALUES_MAX = 128 * ENTRIES_MAX
"""JSON values of a delivery: so many for each entry that it may have. Python's parser takes 60 ms for all of them."""
RATIO_MAX = 100
"""Unpacked bytes for one packed byte. Logs whose entries differ in nothing but an id are packed at about 15 to 1, two
million empty lines at 1000 to 1."""
RATIO_FREE_BYTES = 64 * 1024
"""What is no larger than this when unpacked may be packed as it likes."""

_GZIP_OR_ZLIB = 47
_BETWEEN = re.compile(r"[ \t\r\n,]*")
DIGITS_MAX = 64
"""Of a number that is read; a longer one stays a text, which Python would refuse with all that is around it."""
DEPTH_MAX = 64
"""What is nested deeper in an entry that cannot be read as it is, is left out of it."""

_ENVELOPE = re.compile(r'\{\s*"(?:logs|entries|events|records|items)"\s*:\s*(?=\[)')
_TELLS = re.compile("reservation|request", re.IGNORECASE)
"""What an entry about a metered request has somewhere."""
_ENVELOPED = ("logs", "entries", "events", "records", "items")
_NGINX_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\x([0-9A-Fa-f]{2})")
_JSON = json.JSONDecoder(
    parse_float=Decimal,  # orjson would read a long number as a float
    parse_int=lambda digits: int(digits) if len(digits) <= DIGITS_MAX else digits,
    strict=False,
)
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{},]', re.DOTALL)


class TooLarge(ValueError):
    """A delivery of more than one may have."""


class BadEntry(ValueError):
    """An entry that cannot be what it should be."""


def unpacked(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body of a delivery. Raises `TooLarge`, and ValueError for what is no gzip."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the content-encoding {encoding} is not known here")
    limit = min(bytes_max, max(RATIO_MAX * len(body), RATIO_FREE_BYTES))
    text = b""
    while body:  # gzip may have several members, one behind the other
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            text += stream.decompress(body, limit - len(text) + 1)
        except zlib.error:
            raise ValueError("the body is not what its content-encoding says") from None
        if len(text) > limit:
            raise TooLarge(f"more than {limit} bytes when unpacked")
        if not stream.eof:
            raise ValueError("the compressed body is cut off")
        body = stream.unused_data.lstrip(b"\0")
    return text


def entries_of(delivery: bytes) -> Iterator[object]:
    """The entries, a `BadEntry` for each that cannot be read. Raises `TooLarge`, at the latest when one is too many."""
    if delivery.count(b"\n") > LINES_MAX:
        raise TooLarge(f"more than {LINES_MAX} lines")
    if delivery.count(b",") + delivery.count(b"[") + delivery.count(b"{") > VALUES_MAX:
        raise TooLarge(f"more than {VALUES_MAX} JSON values")
    text = delivery.decode("utf-8-sig", "replace").strip(" \t\r\n,")
    envelope = _ENVELOPE.match(text)
    if envelope is not None:  # each entry is read by itself, as those of an array are
        text = text[envelope.end() :].removesuffix("}")
    entries = _of_arrays(text) if text.startswith("[") else _of_lines(text)
    for number, entry in enumerate(one for whole in entries for one in _opened(whole)):
        if number == ENTRIES_MAX:
            raise TooLarge(f"more than {ENTRIES_MAX} entries")
        yield entry


def _opened(entry: object) -> Iterator[object]:
    """What is in an envelope, as log shippers put around entries; else the entry."""
    if isinstance(entry, dict) and "reservation_id" not in entry:
        for name in _ENVELOPED:
            if isinstance(entry.get(name), list):
                yield from entry[name]
                return
    yield entry


def entry_of(text: str) -> object:
    """The first entry of a text, or a `BadEntry`."""
    return next(_of_lines(text), BadEntry("is empty"))


def _of_lines(text: str) -> Iterator[object]:
    """One object, which may have lines of its own, or some on each line."""
    whole = _parsed(text)
    if not isinstance(whole, BadEntry):
        yield whole
        return
    for line in text.split("\n"):
        at = _next(line, 0)
        while at < len(line):
            try:
                entry, at = _JSON.raw_decode(line, at)
            except (ValueError, RecursionError):
                start, at = at, _end_of_value(line, at)
                entry = _parsed(line[start:at])
            yield entry
            at = _next(line, at)


def _of_arrays(text: str) -> Iterator[object]:
    """The elements of one array or several, each read by itself; from the first that is no JSON on, each is cut out by
    its brackets first.
    """
    at, cuts = 0, False
    while text.startswith("[", at):
        at = _next(text, at + 1)
        while at < len(text) and text[at] != "]":
            try:
                if cuts:
                    start, at = at, _end_of_value(text, at)
                    entry = _parsed(text[start:at])
                else:
                    entry, at = _JSON.raw_decode(text, at)
            except (ValueError, RecursionError):
                cuts = True
                continue
            yield entry
            at = _next(text, at)
        at = _next(text, at + 1)
    if at < len(text):
        yield from _of_lines(text[at:])


def _parsed(text: str) -> object:
    """The value, numbers exact; a `BadEntry` for none. nginx writes `\\x22` for a quote, which is no JSON."""
    try:
        return _JSON.decode(text)
    except RecursionError:
        if _TELLS.search(text) is None:
            return BadEntry("is nested too deep")
        text = _shallow(text)
    except ValueError as error:
        mended = _NGINX_ESCAPE.sub(r"\1\\u00\2", text)
        if mended == text:
            return BadEntry(f"is not JSON: {error}")
        text = mended
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        return BadEntry(f"is not JSON: {error}")


def _shallow(text: str) -> str:
    """Without what is nested deeper than `DEPTH_MAX`."""
    kept: list[str] = []
    depth = at = 0
    for found in _MARKS.finditer(text):
        mark = found[0]
        if mark in ("[", "{"):
            depth += 1
            if depth == DEPTH_MAX:
                kept.append(text[at : found.end()])
        elif mark in ("]", "}"):
            if depth == DEPTH_MAX:
                at = found.start()
            depth -= 1
    return "".join((*kept, text[at:]))


def _next(text: str, at: int) -> int:
    """Where the next value begins, or the end."""
    found = _BETWEEN.match(text, at)
    return at if found is None else found.end()


def _end_of_value(text: str, at: int) -> int:
    """Where a value ends, be it JSON or not; each character is looked at once."""
    depth = 0
    for found in _MARKS.finditer(text, at):
        mark = found[0]
        if mark in ("[", "{"):
            depth += 1
        elif mark in ("]", "}"):
            depth -= 1
            if depth <= 0:
                return max(found.end() if depth == 0 else found.start(), at + 1)
        elif mark == "," and depth == 0:
            return found.start()
    return len(text)
