"""Redis' own clock, as its replies tell it."""

from __future__ import annotations


class ServerClock:
    """Never ahead of Redis: it goes by the last reply, which took its time to come."""

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def learn(self, server_ms: int, now: float) -> None:
        """Redis' clock stood there before `now`, a time of the event loop's clock."""
        self._ahead_ms = server_ms - now * 1000

    def at(self, when: float) -> int:
        """What Redis' clock shows at a time of the event loop's clock, in milliseconds; 0 while nobody knows."""
        return 0 if self._ahead_ms is None else int(when * 1000 + self._ahead_ms)
