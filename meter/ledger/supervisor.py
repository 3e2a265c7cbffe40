"""Keeps the flushers running: a failed step is tried again with back-off, for ever; what fails is told and counted.

arq is not the place for them (it repeats a killed job late and a killed cron run never), so they are tasks of their
own inside arq's process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from meter.config import Settings
from meter.errors import MeterError, Unavailable
from meter.ledger.flusher import Flusher
from meter.ledger.history_guard import HistoryLost
from meter.log import Changes, logger

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
LOST_PAUSE_SECONDS = 1.0
CANCEL_AGAIN_SECONDS = 0.5

Repair = Callable[[int], Awaitable[None]]
"""Rebuilds a partition by number."""

_log = logger("meter.flusher")


class Supervisor:
    """Owns one task per flusher. `repair` is called for a partition that lost its history; None leaves it closed."""

    def __init__(self, flushers: Sequence[Flusher], settings: Settings, repair: Repair | None = None) -> None:
        self.flushers = flushers
        self._settings = settings
        self._repair = repair
        self._tasks: list[asyncio.Task[None]] = []
        self._changes = Changes(_log)
        self.failures = [0] * len(flushers)
        """Steps that failed, by partition."""

    def start(self) -> None:
        """Starts flushing."""
        self._tasks = [
            asyncio.create_task(self._run(number, flusher), name=f"meter-flusher-{number}")
            for number, flusher in enumerate(self.flushers)
        ]

    async def close(self) -> None:
        """Stops flushing. A step that is cut off is taken again by whoever comes next."""
        running = set(self._tasks)
        while running:  # once is not enough: redis-py waits by asyncio.wait_for, which can lose a cancellation in 3.11
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)

    async def _run(self, number: int, flusher: Flusher) -> None:
        backoff, is_woken = BACKOFF_FIRST_SECONDS, False
        while True:
            try:
                flushed = await flusher.step()
                has_waited = flushed == 0 and not is_woken  # what woke it, and was another's, wakes it once
                is_woken = has_waited and not await flusher.wait()
            except HistoryLost:
                if not await self._try_repair(number):
                    await asyncio.sleep(LOST_PAUSE_SECONDS)
            except Exception as error:  # whatever it is, the next step starts from the store's own state
                self._failed(number, error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)
            else:
                self._changes.tell(f"flush {number}", "ok", "the flush goes on", {"partition": number}, "info")
                backoff = BACKOFF_FIRST_SECONDS
                if flushed < self._settings.flush_max and not has_waited:  # what comes meanwhile travels together
                    await asyncio.sleep(self._settings.flush_interval_ms / 1000)

    def _failed(self, number: int, error: Exception) -> None:
        """Told once until it goes on, but for each other cause."""
        self.failures[number] += 1
        why = f"{type(error).__name__}: {error}"
        trace = {} if isinstance(error, MeterError) else {"exc_info": error}
        fields = {"partition": number, "why": why, **trace}
        state = error.word if isinstance(error, Unavailable) else why  # by whatever words
        self._changes.tell(f"flush {number}", state, "the flush fails and is tried again", fields)

    async def _try_repair(self, number: int) -> bool:
        """Whether the partition was mended."""
        if self._repair is None:
            return False
        try:
            await self._repair(number)
        except Exception as error:  # it is tried again
            trace = {} if isinstance(error, MeterError) else {"exc_info": error}
            fields = {"partition": number, "why": str(error), **trace}
            self._changes.tell(f"repair {number}", str(error), "the repair failed", fields, "error")
            return False
        self._changes.tell(f"repair {number}", "ok", "the partition is mended", {"partition": number}, "info")
        return True
