"""Keeps the flushers running: a failed step is tried again with back-off, for ever; what fails is told and counted.

arq is not the place for them (it repeats a killed job late and a killed cron run never), so they are tasks of their
own inside arq's process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from meter.config import Settings
from meter.errors import MeterError
from meter.ledger.flusher import Flusher, HistoryLost
from meter.log import logger

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
        self._flushers = flushers
        self._settings = settings
        self._repair = repair
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts flushing."""
        self._tasks = [
            asyncio.create_task(self._run(number, flusher), name=f"meter-flusher-{number}")
            for number, flusher in enumerate(self._flushers)
        ]

    async def close(self) -> None:
        """Stops flushing. A step that is cut off is taken again by whoever comes next."""
        running = set(self._tasks)
        while running:  # once is not enough: redis-py waits by asyncio.wait_for, which can lose a cancellation in 3.11
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)

    async def _run(self, number: int, flusher: Flusher) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        while True:
            try:
                flushed = await flusher.step()
            except HistoryLost:
                if not await self._try_repair(number):
                    await asyncio.sleep(LOST_PAUSE_SECONDS)
            except Exception as error:  # whatever it is, the next step starts from the store's own state
                known = isinstance(error, MeterError)
                _log.log(30 if known else 40, "the flush failed", partition=number, why=str(error), exc_info=not known)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)
            else:
                backoff = BACKOFF_FIRST_SECONDS
                if flushed < self._settings.flush_max:
                    await asyncio.sleep(self._settings.flush_interval_ms / 1000)

    async def _try_repair(self, number: int) -> bool:
        """Whether the partition was mended."""
        if self._repair is None:
            return False
        try:
            await self._repair(number)
        except Exception as error:  # it is tried again
            known = isinstance(error, MeterError)
            _log.error("the repair failed", partition=number, why=str(error), exc_info=not known)
            return False
        return True
