"""An event loop whose time passes only when nobody has anything to do, and a world in which every clock is that one.

The random numbers are seeded besides, so that a seed tells what is asked and in which weather. The order in which tasks
meet is not told to the last: two plays of a seed can differ in which call is struck.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import string
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from unittest.mock import patch

EPOCH_SECONDS = 1_900_000_000.0
"""When every run begins: 17 March 2030."""
_ALPHABET = string.ascii_letters + string.digits

_T = TypeVar("_T")


TURNS_MAX = 300_000
"""Of the loop, in one run: one of 40 operations took 2,224 to 44,089, one that never ends takes any number."""


class EverybodyWaits(Exception):
    """Nothing will ever happen again: a run that would hang."""


class _Selector(selectors.SelectSelector):
    """Never waits: the time that it was to wait has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise EverybodyWaits
        self.turns += 1
        if self.turns == TURNS_MAX:
            raise TimeoutError(f"not within {TURNS_MAX} turns of the loop")
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that does in a second what takes an hour."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def wall_seconds(self) -> float:
        """What `time.time` says here."""
        return EPOCH_SECONDS + self._virtual.now


@contextmanager
def _one_clock(loop: VirtualTimeLoop, lot: random.Random) -> Iterator[None]:
    def text(size: int | None = None) -> str:
        return "".join(lot.choices(_ALPHABET, k=size or 16))

    class Moments(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(loop.wall_seconds(), tz or UTC)

    with ExitStack() as stack:
        for name, instead in {
            "time.time": loop.wall_seconds,
            "time.time_ns": lambda: round(loop.wall_seconds() * 1e9),
            "time.monotonic": loop.time,
            "time.perf_counter": loop.time,
            "secrets.token_hex": lambda size=None: f"{lot.getrandbits(8 * (size or 16)):0{2 * (size or 16)}x}",
            "secrets.token_urlsafe": text,
            "tests.faults.workload.datetime": Moments,
        }.items():
            stack.enter_context(patch(name, instead))
        yield


def run(main: Coroutine[Any, Any, _T], lot: random.Random) -> _T:
    """Runs a coroutine to its end in virtual time; what it leaves behind is cancelled."""
    loop = VirtualTimeLoop()
    try:
        with _one_clock(loop, lot):
            asyncio.set_event_loop(loop)
            try:
                return loop.run_until_complete(main)
            finally:
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
