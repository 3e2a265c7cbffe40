"""Split a stream of server-sent events into the data of each event.

Follows the event stream format of the HTML standard, but for two things: the last event counts
even if the stream ends without the blank line behind it, and an event that is too big is skipped.
Knows nothing of what the data means.
"""

from __future__ import annotations

EVENT_BYTES_MAX = 64 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_ENDS = b"\r\n"


class SseSplitter:
    """Push parser; holds at most one line and the data of one event.

    An event is too big when its data, or any one of its lines, has more than `event_bytes_max`
    bytes.
    """

    __slots__ = (
        "_after_carriage_return",
        "_at_start",
        "_data",
        "_event_bytes_max",
        "_line",
        "_line_too_long",
        "_skipping",
    )

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._at_start = True
        self._after_carriage_return = False
        self._line = bytearray()
        self._line_too_long = False
        self._data = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that end in this chunk, in order. Never raises."""
        if not chunk:
            return []
        if self._after_carriage_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_carriage_return = False
            if not chunk:
                return []
        self._after_carriage_return = chunk.endswith(b"\r")
        events: list[bytes] = []
        for line in chunk.splitlines(keepends=True):  # on bytes, only CR, LF and CRLF end a line
            content = line.rstrip(_LINE_ENDS)
            self._extend_line(content)
            if len(content) < len(line):
                self._end_line(events)
        return events

    def finish(self) -> list[bytes]:
        """The data of an event that the end of the stream cut off from its blank line."""
        events: list[bytes] = []
        if self._line or self._line_too_long:
            self._end_line(events)
        self._end_event(events)
        return events

    def _extend_line(self, content: bytes) -> None:
        if self._line_too_long:
            return
        if len(self._line) + len(content) > self._event_bytes_max:
            self._line.clear()
            self._line_too_long = True
        else:
            self._line += content

    def _end_line(self, events: list[bytes]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if self._line_too_long:
            self._line_too_long = False
            self._skip_event()
        elif not line:
            self._end_event(events)
        elif not self._skipping:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._add_data(value.removeprefix(b" "))

    def _add_data(self, value: bytes) -> None:
        if len(self._data) + len(value) > self._event_bytes_max:
            self._skip_event()
        else:
            self._data += value
            self._data += b"\n"

    def _skip_event(self) -> None:
        self._data.clear()
        self._skipping = True

    def _end_event(self, events: list[bytes]) -> None:
        if self._data:
            events.append(bytes(self._data[:-1]))
            self._data.clear()
        self._skipping = False
