"""How often a source may fail before it is not even looked at: so many at once, and so many a minute from then on.

Counted in this process alone, for the sources that failed last: a door against guessing, not a ledger.
"""

from __future__ import annotations

from collections import OrderedDict

SOURCES_MAX = 10_000
MINUTE_MS = 60_000


class Failures:
    """`most` in a minute; times are milliseconds of any clock, which may stand, leap or go back."""

    def __init__(self, most: int) -> None:
        self._pause_ms = MINUTE_MS // most
        self._burst_ms = self._pause_ms * most
        self._spent_until_ms: OrderedDict[str, int] = OrderedDict()

    def wait_ms(self, source: str, now_ms: int) -> int:
        """How long the source has to wait until it may fail again; 0 where it may now."""
        until_ms = self._spent_until_ms.get(source)
        if until_ms is None:
            return 0
        return max(0, min(until_ms - now_ms, self._burst_ms) - self._burst_ms + self._pause_ms)

    def failed(self, source: str, now_ms: int) -> None:
        """Counts a failure of the source."""
        until_ms = min(self._spent_until_ms.pop(source, 0), now_ms + self._burst_ms)
        self._spent_until_ms[source] = max(until_ms, now_ms) + self._pause_ms
        if len(self._spent_until_ms) > SOURCES_MAX:
            self._spent_until_ms.popitem(last=False)
