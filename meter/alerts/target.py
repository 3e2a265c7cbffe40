"""The attempts at one target, bounded for it alone: what hangs there is in nobody else's way.

One attempt at a time until the target has taken a delivery; with each that it takes one more may run beside, and after
a failure one again. The first is always allowed; those beside come out of a stock that all targets share. A target that
gave no answer at all is left alone for the rest of the pass: the deliveries that wait for it would fare no better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meter.alerts.attempt import Attempted
from meter.errors import Unavailable
from meter.log import logger
from meter.store.rows import DeliveryRow

AHEAD_MAX = 100
"""Deliveries that wait in memory for one target; the others stay in the store."""
BESIDE_MAX = 15

_log = logger("meter.alerts")


class Stock:
    """How many attempts may run beside the first ones, over all targets."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self) -> bool:
        """Whether there was one left."""
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One that was taken has ended."""
        self._left += 1


class Target:
    """One target's deliveries. `attempt` carries one out; `on_idle` is called when none waits or runs any more."""

    def __init__(
        self, attempt: Callable[[DeliveryRow], Awaitable[Attempted]], stock: Stock, on_idle: Callable[[], None]
    ) -> None:
        self._attempt = attempt
        self._stock = stock
        self._on_idle = on_idle
        self._waiting: dict[str, DeliveryRow] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._beside = 0
        self.silences = 0
        """How often it gave no answer."""
        self.is_silent = False
        """Whether it gave none the last time."""

    @property
    def running(self) -> int:
        """Attempts under way."""
        return len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def is_new(self) -> bool:
        """Whether nothing would be lost with it."""
        return not self.is_busy and self._beside == 0

    def offer(self, row: DeliveryRow) -> bool:
        """Takes a delivery that is due; False when it has it already, or has enough."""
        known = row.delivery_id in self._waiting or row.delivery_id in self._running
        if known or len(self._waiting) >= AHEAD_MAX:
            return False
        self._waiting[row.delivery_id] = row
        self._start()
        return True

    async def close(self) -> None:
        """Cuts off what runs; its claims run out."""
        self._waiting.clear()
        for task in (tasks := list(self._running.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        while self._waiting and len(self._running) <= self._beside:
            from_stock = bool(self._running)
            if from_stock and not self._stock.take():
                return
            delivery_id = next(iter(self._waiting))
            row = self._waiting.pop(delivery_id)
            self._running[delivery_id] = asyncio.create_task(self._run(row, from_stock=from_stock))

    async def _run(self, row: DeliveryRow, *, from_stock: bool) -> None:
        try:
            done = await self._tried(row)
        finally:
            del self._running[row.delivery_id]
            if from_stock:
                self._stock.give_back()
        if done.outcome == "delivered":
            self._beside = min(self._beside + 1, BESIDE_MAX)
        elif done.outcome in ("put_off", "failed"):
            self._beside = 0
        self.is_silent = done.silent
        if done.silent:
            self.silences += 1
            self._waiting.clear()
        self._start()
        if not self.is_busy:
            self._on_idle()

    async def _tried(self, row: DeliveryRow) -> Attempted:
        try:
            return await self._attempt(row)
        except Unavailable as error:
            _log.warning(
                "the attempt could not be made", delivery_id=row.delivery_id, target=row.target, why=str(error)
            )
        except Exception:  # a fault of ours: the claim runs out, and it is tried again
            _log.exception("the attempt could not be made", delivery_id=row.delivery_id, target=row.target)
        return Attempted(None, silent=True)
