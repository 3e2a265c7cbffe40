"""Read the usage out of one response while its bytes pass by.

Owns the order decode, then scan; does no I/O, keeps no bytes, and never raises on what an upstream sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from meter.usage.decoder import PIECE_BYTES_MAX, PLAIN, Decoder, open_decoder
from meter.usage.framing import Body
from meter.usage.number import Number, read_number
from meter.usage.shape import Shape
from meter.usage.usage import Usage
from meter.usage.work import Work

INSPECT_BYTES_MAX = 0
"""No limit: nothing is kept, so the size of a response decides nothing."""


RESULTS = "results"
"""The profile of the results of a batch, all lines together."""


class Unread(StrEnum):
    """Why a response told no usage."""

    NONE_TOLD = "no usage"
    TOO_LARGE = "too large"
    CODING = "coding"
    FRAMING = "framing"


class Reader:
    """Bytes of one response in, usage out."""

    __slots__ = ("_body", "_counts", "_decoder", "_left", "_shape", "_unread")

    def __init__(
        self, shape: Shape, decoder: Decoder | None, counts: dict[str, Number], *, inspect_bytes_max: int
    ) -> None:
        self._shape = shape
        self._body = Body(shape)
        self._decoder = decoder
        self._counts = counts
        self._left = inspect_bytes_max or -1
        self._unread = Unread.CODING if decoder is None else Unread.NONE_TOLD

    @property
    def usage(self) -> Usage | None:
        """The usage the response has told so far, None if it told none; final after `finish`."""
        return self._shape.read(self._body.scanner, self._counts)

    @property
    def usages(self) -> list[Usage]:
        """The same by model; none where none was told."""
        usage = self.usage
        return [] if usage is None else [usage]

    @property
    def failed(self) -> bool:
        """Whether the response says that it failed, whatever its status. What it told as used counts all the same."""
        return self._body.failed

    @property
    def work(self) -> Work:
        """What the response told of work in the background; of a shape that looks for it."""
        return self._shape.work(self._body.scanner)

    @property
    def unread(self) -> Unread:
        """Why there is no usage, where there is none."""
        return Unread.FRAMING if self._body.broken else self._unread

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the response, as sent."""
        decoder = self._decoder
        if decoder is None:
            return
        if decoder is PLAIN and self._left < 0 and len(chunk) <= PIECE_BYTES_MAX:
            self._see(chunk)
            return
        for piece in decoder.decode(chunk):
            if self._left >= 0:
                if len(piece) > self._left:
                    self._see(piece[: self._left])
                    self._decoder, self._unread = None, Unread.TOO_LARGE
                    return
                self._left -= len(piece)
            self._see(piece)
        if decoder.ended:
            self._decoder = None

    def _see(self, piece: bytes) -> None:
        self._body.feed(piece)

    def finish(self) -> None:
        """The response ended, as it should or cut off. Bytes fed later are ignored."""
        self._decoder = None
        self._body.finish()


class LinesReader(Reader):
    """Documents one a line, whose usages are added: the results of a batch."""

    __slots__ = ("_by_model",)

    def __init__(
        self, shape: Shape, decoder: Decoder | None, counts: dict[str, Number], *, inspect_bytes_max: int
    ) -> None:
        super().__init__(shape, decoder, counts, inspect_bytes_max=inspect_bytes_max)
        self._by_model: dict[str | None, Usage] = {}

    @property
    def usage(self) -> Usage | None:
        """All lines together, None if none told any; final after `finish`."""
        total = sum(usage.total for usage in self._by_model.values())
        return Usage(profile=RESULTS, total=total) if total else None

    @property
    def usages(self) -> list[Usage]:
        """The lines of each model together."""
        return list(self._by_model.values())

    def finish(self) -> None:
        """A last line needs no end."""
        super().finish()
        self._end_line()

    def _see(self, piece: bytes) -> None:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._body.feed(line)
            self._end_line()
        self._body.feed(rest)

    def _end_line(self) -> None:
        self._body.finish()
        usage = self._shape.read(self._body.scanner)
        if usage is not None and usage.total:
            before = self._by_model.get(usage.model)
            self._by_model[usage.model] = usage if before is None else _sum(before, usage)
        self._body = Body(self._shape)


def _sum(one: Usage, other: Usage) -> Usage:
    names = one.quantities.keys() | other.quantities.keys()
    quantities = {name: one.quantities.get(name, 0) + other.quantities.get(name, 0) for name in names}
    return Usage(profile=RESULTS, total=one.total + other.total, quantities=quantities, model=one.model)


def open_reader(
    shape: Shape,
    *,
    content_encoding: str | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    inspect_bytes_max: int = INSPECT_BYTES_MAX,
    lines: bool = False,
) -> Reader:
    """A reader for a response with these headers, of which some providers' tell usage.

    `inspect_bytes_max` counts decoded bytes; 0 sets no limit. With an encoding that cannot be decoded the reader
    reports what headers told, if anything. `lines`: documents are one a line, and their usages are added.
    """
    counts: dict[str, Number] = {}
    for raw, value in headers if shape.headers else ():
        name = shape.header_names.get(raw.lower())
        if name is not None and (number := read_number(value.strip())) is not None:
            counts[name] = number
    kind = LinesReader if lines else Reader
    return kind(shape, open_decoder(_coding(content_encoding or "")), counts, inspect_bytes_max=inspect_bytes_max)


def coding_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The content codings that the headers of a response name, all of them."""
    return b", ".join(value for name, value in headers if name.lower() == b"content-encoding").decode("latin-1")


def _coding(content_encoding: str) -> str:
    """The codings of the header but for `identity`."""
    if not content_encoding:
        return ""
    codings = (coding.strip().lower() for coding in content_encoding.split(","))
    return ", ".join(coding for coding in codings if coding not in ("", "identity"))
