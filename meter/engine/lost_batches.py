"""Batches whose reply never came, and whose callers must know what became of them.

Redis keeps the last answers of each sender, so it can be asked: it tells the answers of a batch that it applied, and
from then on refuses one that it did not. The sender of a lost batch goes on under another name, so nothing comes
between. The pauses are doubled here and by no retry library: one task asks for all, and begins anew with each answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from meter.engine.answers import Operation
from meter.engine.short_answers import in_full
from meter.errors import MeterError, NotBegun, RedisUnavailable, Unavailable

LOST_MAX = 1000
"""Batches that are asked about; of one more nobody can say what became of it."""
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 2.0

Outcome = asyncio.Future[list[str] | Unavailable]


@dataclass(frozen=True, slots=True)
class LostBatch:
    """`outcomes` are (first line, lines, future) of those who want to know; `epoch` is that of its history, `asked` all
    that was asked for.
    """

    partition: int
    sender: str
    number: int
    epoch: int
    asked: Sequence[Operation]
    outcomes: Sequence[tuple[int, int, Outcome]]

    def tell(self, found: Sequence[str] | Unavailable) -> None:
        """What became of it: its lines, or why there are none."""
        for first, count, outcome in self.outcomes:
            if not outcome.done():
                outcome.set_result(found if isinstance(found, Unavailable) else list(found[first : first + count]))


class LostBatches:
    """Asks in the background, one after the other, until Redis answers. `close` it.

    `ask` answers the first line of the reply and the lines behind it. Raises `MeterError`.
    """

    def __init__(self, ask: Callable[[str, int], Awaitable[tuple[str, list[str]]]]) -> None:
        self._ask = ask
        self._lost: deque[LostBatch] = deque()
        self._asking: asyncio.Task[None] | None = None

    def add(self, batch: LostBatch) -> None:
        """Finds out about a batch."""
        if len(self._lost) >= LOST_MAX:
            batch.tell(_nobody_can_say())
            return
        self._lost.append(batch)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._find_out(), name="meter-lost-batches")

    async def close(self) -> None:
        """Stops asking."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking
        while self._lost:
            self._lost.popleft().tell(_nobody_can_say())

    async def _find_out(self) -> None:
        pause = PAUSE_SECONDS
        while self._lost:
            batch = self._lost[0]
            try:
                head, lines = await self._ask(batch.sender, batch.number)
            except MeterError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
                continue
            pause = PAUSE_SECONDS
            self._lost.popleft().tell(_outcome(batch, head, lines))


def _outcome(batch: LostBatch, head: str, lines: list[str]) -> list[str] | Unavailable:
    word, _, place = head.partition(" ")
    if word == "stored":
        return in_full(lines, batch.asked, batch.partition, batch.sender, batch.number)
    # A rebuild forgets the answers of senders, though the store may have what they did.
    same_history = word == "stale" or batch.epoch in (0, int(place.split(" ")[0]))
    return NotBegun() if same_history else _nobody_can_say()


def _nobody_can_say() -> RedisUnavailable:
    return RedisUnavailable("redis", "nobody can say what became of it")
