"""Undo a response's content coding piece by piece, for looking only: errors end the looking.

Pieces are at most `PIECE_BYTES_MAX` long, however small the input they come from, so a zip bomb is
never expanded in memory. Brotli and zstd are not supported.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

PIECE_BYTES_MAX = 64 * 1024
_INPUT_BYTES = 16 * 1024
"""zlib copies the input it has not consumed; small slices keep that from growing quadratic."""

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZLIB_HEADER_BYTES = 2
_DEFLATE_METHOD = 8


class Decoder(Protocol):
    """An incremental decoder of one response body."""

    @property
    def ended(self) -> bool:
        """Whether nothing more can come out: the coding is broken, or at its end."""

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """What the chunk adds to the decoded body, in bounded pieces. Never raises."""


class IdentityDecoder:
    """No coding; only cuts into pieces."""

    __slots__ = ()
    ended = False

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        if len(chunk) <= PIECE_BYTES_MAX:
            yield chunk
            return
        for start in range(0, len(chunk), PIECE_BYTES_MAX):
            yield chunk[start : start + PIECE_BYTES_MAX]


PLAIN = IdentityDecoder()
"""It keeps nothing, so one serves all."""


class InflateDecoder:
    """gzip, of any number of members, and deflate, with the zlib header and without it.

    What a broken stream gives up before it ends the decoding depends on where chunks were cut.
    """

    __slots__ = ("_gzip", "_head", "_stream", "ended")

    def __init__(self, *, gzip: bool) -> None:
        self.ended = False
        self._gzip = gzip
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        for start in range(0, len(chunk), _INPUT_BYTES):
            yield from self._inflate(chunk[start : start + _INPUT_BYTES])

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while not self.ended:
            if self._stream is None:
                data = self._begin(data)
            if self._stream is None:
                return
            try:
                piece = self._stream.decompress(data, PIECE_BYTES_MAX)
            except zlib.error:
                self.ended = True
                return
            if piece:
                yield piece
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream = None
                self.ended = not self._gzip
            else:
                data = self._stream.unconsumed_tail
                # A full piece may leave output inside zlib although all input was consumed.
                if not data and len(piece) < PIECE_BYTES_MAX:
                    return

    def _begin(self, data: bytes) -> bytes:
        """Open `_stream` as soon as `data` tells how, and return the bytes to feed it."""
        if self._gzip:
            data = data.lstrip(b"\0")  # writers may pad members with zeros
            if data:
                self._stream = zlib.decompressobj(_GZIP_WINDOW)
            return data
        self._head += data
        if len(self._head) >= _ZLIB_HEADER_BYTES:
            window = zlib.MAX_WBITS if _has_zlib_header(self._head) else -zlib.MAX_WBITS
            self._stream = zlib.decompressobj(window)
        return self._head


class ChainedDecoder:
    """Codings that were applied one after the other; the last one comes off first."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, outer: Decoder, inner: Decoder) -> None:
        self._outer = outer
        self._inner = inner

    @property
    def ended(self) -> bool:
        return self._outer.ended or self._inner.ended

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        for piece in self._outer.decode(chunk):
            yield from self._inner.decode(piece)


def open_decoder(coding: str) -> Decoder | None:
    """The decoder for one or two content codings in lower case; None for what is not supported."""
    if coding in ("", "identity"):
        return PLAIN
    first, comma, last = coding.partition(", ")
    if comma:  # of two, since each one multiplies what a few bytes may become
        inner, outer = open_decoder(first), None if "," in last else open_decoder(last)
        return None if inner is None or outer is None else ChainedDecoder(outer, inner)
    if coding in ("gzip", "x-gzip"):
        return InflateDecoder(gzip=True)
    return InflateDecoder(gzip=False) if coding == "deflate" else None


def _has_zlib_header(head: bytes) -> bool:
    """RFC 1950, section 2.2. Without one, servers that say deflate mean RFC 1951."""
    return head[0] & 0x0F == _DEFLATE_METHOD and (head[0] << 8 | head[1]) % 31 == 0
