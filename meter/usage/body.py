"""A decoded response body as the documents usage is read from: one, or one per event.

Knows how documents are framed; what their numbers mean is the shape's.
"""

from __future__ import annotations

from typing import Protocol

from meter.usage.json_scanner import JsonScanner
from meter.usage.shape import Shape
from meter.usage.sse_splitter import SseSplitter
from meter.usage.usage import Usage


class Body(Protocol):
    """A body being read. Its methods never raise."""

    @property
    def usage(self) -> Usage | None:
        """The usage so far."""

    @property
    def done(self) -> bool:
        """Whether no further byte can change the usage."""

    def feed(self, piece: bytes) -> None:
        """Read the next decoded bytes."""

    def finish(self) -> None:
        """The body ended, as it should or cut off."""


class JsonBody:
    """One JSON document. Cut off, it gives the usage objects and keys that are whole."""

    __slots__ = ("_scanner", "_shape")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._scanner = JsonScanner(shape.tree)

    @property
    def usage(self) -> Usage | None:
        return self._shape.read(self._scanner, None)

    @property
    def done(self) -> bool:
        return self._scanner.done

    def feed(self, piece: bytes) -> None:
        self._scanner.feed(piece)

    def finish(self) -> None:
        """A number at the very end may be cut, so nothing is added here."""


class EventStream:
    """Server-sent events with a JSON document each. Events that are cut or malformed do not count,
    nor do those that are no JSON object, such as `[DONE]`."""

    __slots__ = ("_scanner", "_shape", "_splitter", "usage")

    done = False

    def __init__(self, shape: Shape, *, event_bytes_max: int | None = None) -> None:
        self.usage: Usage | None = None
        self._shape = shape
        self._scanner = JsonScanner(shape.tree)
        limit = shape.event_bytes_max if event_bytes_max is None else event_bytes_max
        self._splitter = SseSplitter(event_bytes_max=limit)

    def feed(self, piece: bytes) -> None:
        self._read(self._splitter.feed(piece))

    def finish(self) -> None:
        self._read(self._splitter.finish())

    def _read(self, events: list[bytes]) -> None:
        for event in events:
            if not self._shape.tree.may_occur(event):
                continue
            self._scanner.reset()
            self._scanner.feed(event)
            if self._scanner.complete:
                self.usage = self._shape.read(self._scanner, self.usage)
