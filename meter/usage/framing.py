"""A decoded response body as the JSON documents in it. How they are framed is seen from the first bytes.

The content type is no help: streams come as application/json, text/plain, or without any; nor are what it says of
characters and what no header says of a coding: gzip, UTF-16 and UTF-32 are seen, too. Documents go straight to the
scanner as they pass, so that no document and no event is ever too large; only an AWS event is held, until its checksum
is known, which the protocol bounds at 16 MiB.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

from meter.usage.decoder import InflateDecoder
from meter.usage.json_scanner import JsonScanner
from meter.usage.shape import Shape

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHOLE_BYTES_MAX = 64 * 1024
_BLANKS = b" \t\r\n"
_DOCUMENTS = b"{[\x1e"
_DATA = b"data:"
_BARE = re.compile(rb"(?:[0-9a-z]:)?[{\[]")
"""A line that is a document, or begins one: of lengths and documents in turns, of a multipart answer, behind what keeps
browsers from running an answer (`)]}'`), or with the kind of part in front, as the AI SDK streams."""
_EVENT_END = (b"}\n\n", b"]\n\n")
_GZIP = b"\x1f\x8b\x08"
_HEAD_BYTES = 4

AWS_EVENT_BYTES_MAX = 24 * 2**20
_AWS_PRELUDE = 12
_AWS_LEAST = 16
_AWS_BYTES = re.compile(rb'"bytes"\s*:\s*"([A-Za-z0-9+/=]*)"')
_AWS_EXCEPTION = re.compile(rb"\x0d:message-type\x07..(?:exception|error)", re.DOTALL)


class Framing(Protocol):
    """Finds the documents in the bytes that follow each other. Never raises."""

    def feed(self, piece: bytes) -> None:
        """The next decoded bytes."""

    def finish(self) -> None:
        """The body ended, as it should or cut off."""


class Documents:
    """JSON documents after each other, or in one array: a body, NDJSON, a JSON text sequence (RFC 7464)."""

    __slots__ = ("_scanner",)

    def __init__(self, scanner: JsonScanner) -> None:
        self._scanner = scanner

    def feed(self, piece: bytes) -> None:
        """Scans."""
        if len(piece) <= _WHOLE_BYTES_MAX and piece.endswith((b"}", b"}\n")):
            self._scanner.feed_whole(piece)
        else:
            self._scanner.feed(piece)

    def finish(self) -> None:
        """A number at the very end may be cut, so nothing is added here."""


class Events:
    """Server-sent events whose data are documents. Lines are enough: events that no blank line parts are read too, and
    lines that are documents by themselves.
    """

    __slots__ = ("_after_return", "_bare", "_head", "_in_data", "_needles", "_scanner")

    def __init__(self, scanner: JsonScanner, needles: tuple[bytes, ...]) -> None:
        self._scanner = scanner
        self._needles = needles
        self._head = b""  # of a line that goes on in the next piece, while it may still be data
        self._in_data: bool | None = None  # whether the open line is data; None while that is not known
        self._bare = False  # whether the open document is none of an event, and goes on in lines of any kind
        self._after_return = False

    def feed(self, piece: bytes) -> None:
        """Reads line by line; what a piece cuts is scanned in parts. Most pieces are events that tell nothing."""
        if piece.startswith(_DATA) and piece.endswith(_EVENT_END) and self._is_quiet(piece):
            return
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_return = piece.endswith(b"\r")
        lines = piece.splitlines(keepends=True)  # on bytes, only CR, LF and CRLF end a line
        for line in lines:
            content = line.rstrip(b"\r\n")
            whole = len(content) < len(line)
            if whole and self._in_data is None and not self._head:
                self._whole_line(content)
            else:
                self._part_of_line(content, whole=whole)

    def _is_quiet(self, piece: bytes) -> bool:
        """Whether whole events tell nothing. A document ends with its event, and the next piece begins a line."""
        return self._in_data is None and not self._head and self._scanner.idle and not self._tells(piece)

    def finish(self) -> None:
        """A last line needs no end."""
        self._part_of_line(b"", whole=True)

    def _whole_line(self, line: bytes) -> None:
        if line.startswith(_DATA):
            if self._bare:
                self._end_bare()
            if self._may_tell(line):
                self._scanner.feed_whole(line[len(_DATA) :])
                self._scanner.feed(b"\n")
        elif not line:
            self._scanner.boundary()
            self._bare = False
        elif self._bare or _BARE.match(line) is not None:
            self._part_of_line(line, whole=True)

    def _may_tell(self, line: bytes) -> bool:
        """Whether a document is open, or this line holds one that is not whole or that may tell something."""
        return not self._scanner.idle or line.count(b"{") != line.count(b"}") or self._tells(line)

    def _tells(self, text: bytes) -> bool:
        """Whether something that is wanted may be in whole documents."""
        for needle in self._needles:
            if needle in text:
                return True
        return b"\\u" in text or (not self._scanner.texts and b"model" in text)

    def _part_of_line(self, content: bytes, *, whole: bool) -> None:
        if self._in_data is None:
            self._head += content
            if len(self._head) < len(_DATA) and not whole:
                return
            content, self._head = self._head, b""
            content = self._opened(content, whole=whole)
        if self._in_data:
            self._scanner.feed(content)
            if whole:
                self._scanner.feed(b"\n")
        if whole:
            self._in_data = None
            self._bare = self._bare and not self._scanner.idle

    def _opened(self, line: bytes, *, whole: bool) -> bytes:
        """What is to be scanned of a line that begins like this, if anything."""
        self._in_data = line.startswith(_DATA)
        if self._in_data:
            if self._bare:
                self._end_bare()
            return line[len(_DATA) :]
        if whole and not line:
            self._scanner.boundary()
            self._bare = False
            return b""
        if self._bare:
            self._in_data = True
            return line
        begun = _BARE.match(line)
        if begun is not None:
            self._scanner.boundary()
            self._bare = self._in_data = True
            return line[begun.end() - 1 :]
        return line

    def _end_bare(self) -> None:
        self._scanner.boundary()
        self._bare = False


class AwsEvents:
    """AWS event stream messages: a prelude with lengths and its checksum, headers, a payload, and a checksum over all.

    Bedrock's payloads are documents, or carry one as base64 in `bytes`. A checksum that is wrong ends the looking.
    """

    __slots__ = ("_buffer", "_scanner", "broken", "failed")

    def __init__(self, scanner: JsonScanner) -> None:
        self._scanner = scanner
        self._buffer = bytearray()
        self.broken = self.failed = False

    def feed(self, piece: bytes) -> None:
        """Reads the messages that are whole."""
        if self.broken:
            return
        self._buffer += piece
        while len(self._buffer) >= _AWS_PRELUDE and not self.broken:
            total = int.from_bytes(self._buffer[:4], "big")
            headers = int.from_bytes(self._buffer[4:8], "big")
            if not self._prelude_holds(total, headers):
                self._break()
            elif len(self._buffer) < total:
                return
            else:
                self._read(bytes(self._buffer[:total]), headers)
                del self._buffer[:total]

    def finish(self) -> None:
        """A message that is cut does not count."""
        self._buffer.clear()

    def _prelude_holds(self, total: int, headers: int) -> bool:
        checked = zlib.crc32(self._buffer[:8]) == int.from_bytes(self._buffer[8:12], "big")
        return checked and _AWS_LEAST + headers <= total <= AWS_EVENT_BYTES_MAX

    def _read(self, message: bytes, headers: int) -> None:
        if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
            self._break()
            return
        if _AWS_EXCEPTION.search(message, _AWS_PRELUDE, _AWS_PRELUDE + headers):
            self.failed = True
        payload = message[_AWS_PRELUDE + headers : -4]
        carried = _AWS_BYTES.search(payload)
        self._scanner.boundary()
        self._scanner.feed(payload if carried is None else _unpacked(carried[1]))
        self._scanner.boundary()

    def _break(self) -> None:
        self.broken = True
        self._buffer.clear()


_Unwrap = Callable[[bytes], Iterable[bytes]]


def _unwrap_of(head: bytes) -> _Unwrap | None:
    """What takes off what the first bytes of a body say is around it; None where that is nothing."""
    if head.startswith(_GZIP):
        return InflateDecoder(gzip=True).decode
    name = _encoding_of(head)
    if not name:
        return None
    text = codecs.getincrementaldecoder(name)("replace")
    return lambda piece: (text.decode(piece).encode("utf-8", "replace"),)


def _encoding_of(head: bytes) -> str:
    """How JSON of ASCII begins in UTF-16 and UTF-32; "" for UTF-8. AWS's events begin with a zero."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-32" if head.startswith(codecs.BOM_UTF32_LE) else "utf-16"
    if head[0] == 0 or head[1] != 0:
        return ""
    return "utf-32-le" if head[2] == 0 else "utf-16-le"


def _unpacked(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


class Body:
    """A body whose framing is seen from its first bytes."""

    __slots__ = ("_framing", "_head", "_shape", "_unwrap", "scanner")

    def __init__(self, shape: Shape) -> None:
        self.scanner = JsonScanner(shape.tree)
        self._shape = shape
        self._head = b""
        self._framing: Framing | None = None
        self._unwrap: _Unwrap | None = None

    def feed(self, piece: bytes) -> None:
        """The next decoded bytes."""
        if self._unwrap is not None:
            for inner in self._unwrap(piece):
                self._feed(inner)
        elif self._framing is not None:
            self._framing.feed(piece)
        else:
            self._feed(piece)

    def _feed(self, piece: bytes) -> None:
        if self._framing is None:
            self._head += piece
            if self._unwrap is None and self._is_wrapped():
                return
            self._framing = self._seen()
            if self._framing is None:
                return
            piece, self._head = self._head, b""
        self._framing.feed(piece)

    def _is_wrapped(self) -> bool:
        """Whether the body is something else around what is framed, which then goes through `_unwrap`; also while that
        cannot be told yet.
        """
        head = self._head
        if len(head) < _HEAD_BYTES:
            return True
        self._unwrap = _unwrap_of(head)
        if self._unwrap is None:
            return False
        self._head = b""
        self.feed(head)
        return True

    def finish(self) -> None:
        """The body ended, as it should or cut off."""
        if self._framing is not None:
            self._framing.finish()

    @property
    def failed(self) -> bool:
        """Whether the response says that it is none."""
        return self._shape.failed(self.scanner) or (isinstance(self._framing, AwsEvents) and self._framing.failed)

    @property
    def broken(self) -> bool:
        """Whether the framing broke, so that what follows was not looked at."""
        return isinstance(self._framing, AwsEvents) and self._framing.broken

    def _seen(self) -> Framing | None:
        """How the documents are framed; None while there is nothing to see yet."""
        head = self._head
        if _BYTE_ORDER_MARK.startswith(head[:3]) and len(head) < len(_BYTE_ORDER_MARK):
            return None
        head = head.removeprefix(_BYTE_ORDER_MARK).lstrip(_BLANKS)
        if not head:
            self._head = self._head[:3] if self._head.startswith(_BYTE_ORDER_MARK) else b""
            return None
        if head[0] in _DOCUMENTS:
            return Documents(self.scanner)
        if head[0] == 0 and self._head[:1] == b"\0":
            return AwsEvents(self.scanner)
        self._head = self._head.removeprefix(_BYTE_ORDER_MARK)
        return Events(self.scanner, self._shape.needles)
