"""The dispatcher: alerts that are due become deliveries, one per target, and deliveries that are due are attempted.

Any number of dispatchers may run. Nothing waits for a whole page: each target has its own attempts
(meter/alerts/target.py), and while some hang the others go on, whatever order the store has them in.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from meter.alerts.attempt import Attempted, Attempts
from meter.alerts.notification import AsyncNotificationQueue
from meter.alerts.passing_on import enabled_webhooks, pass_on
from meter.alerts.target import AHEAD_MAX, Stock, Target
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.store.base import Store
from meter.store.rows import DeliveryRow

PAGE = 200
BESIDE_MAX = 256
"""Attempts beside the first of each target: with one for each endpoint fewer than the 1,024 open files of a process."""
BACKLOG_PAUSE_SECONDS = 0.1
"""Between two looks at a backlog, each of which asks for every idle target."""


@dataclass(slots=True)
class DispatchCounts:
    """What a dispatcher has done since it was made."""

    alerts: Counter[str] = field(default_factory=Counter)
    """Alerts that were passed on, by kind."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Attempts, by `Outcome` of meter/alerts/attempt.py."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a pass. `more`: attempts are still under way, or more are due that can be made at once."""

    attempted: int
    delivered: int
    more: bool


class Dispatcher:
    """Moves alerts to their targets. `channels` take everything, webhooks what they ask for. `close` it."""

    def __init__(
        self,
        store: Store,
        sender: WebhookSender,
        channels: Mapping[str, AsyncNotificationQueue],
        scale: AmountScale,
        now_ms: Callable[[], Awaitable[int]],
    ) -> None:
        """`now_ms` is the time that the scripts see."""
        self._store = store
        self._channels = channels
        self._now_ms = now_ms
        self._attempts = Attempts(store, sender, channels, scale, now_ms)
        self._targets: dict[str, Target] = {}
        self._stock = Stock(BESIDE_MAX)
        self._idle = asyncio.Event()
        self.counts = DispatchCounts()

    @property
    def under_way(self) -> int:
        """Attempts that have begun and not ended."""
        return sum(target.running for target in self._targets.values())

    async def deliver(self, patience_seconds: float) -> Delivered:
        """Passes on what is due now and attempts it, each delivery at most once.

        Waits for the attempts, but no longer than that, and not for a target that gave no answer the last time: what
        is under way then goes on by itself. Raises `Unavailable`.
        """
        self._targets = {name: target for name, target in self._targets.items() if not target.is_new}
        silences = {name: target.silences for name, target in self._targets.items()}
        before = self.counts.attempts.copy()
        until_ms, ends = await self._now_ms(), asyncio.get_running_loop().time() + patience_seconds
        while True:
            self._idle.clear()
            passed = await pass_on(self._store, self._channels, until_ms, self.counts.alerts)
            taken, is_backlog = await self._take(until_ms, silences)
            is_busy = any(target.is_busy and not target.is_silent for target in self._targets.values())
            left = ends - asyncio.get_running_loop().time()
            if left <= 0 or not (passed or taken or is_busy):
                break
            if passed:
                await asyncio.sleep(0)  # attempts begin while there are more alerts to pass on
            elif is_busy:
                await _within(left, self._idle.wait())
                await asyncio.sleep(BACKLOG_PAUSE_SECONDS if is_backlog else 0)
        done = self.counts.attempts - before
        return Delivered(done.total(), done["delivered"], more=bool(passed or taken or is_busy))

    async def close(self) -> None:
        """Cuts off what is under way; it is tried again by whoever comes next, under the same ids."""
        await asyncio.gather(*(target.close() for target in self._targets.values()))

    async def _take(self, until_ms: int, silences: Mapping[str, int]) -> tuple[int, bool]:
        """Gives targets what is due for them, and none to a target that has fallen silent since; answers how many
        deliveries that were, and whether there may be more than a page.
        """
        rows = await self._store.due(DeliveryRow, "due", "next_attempt_at_ms", until_ms, PAGE)
        is_backlog = len(rows) == PAGE
        if is_backlog:
            rows += await self._behind({row.target for row in rows}, until_ms)
        wanted = [row for row in rows if self._target(row.target).silences == silences.get(row.target, 0)]
        return sum([self._target(row.target).offer(row) for row in wanted]), is_backlog

    async def _behind(self, shown: set[str], until_ms: int) -> list[DeliveryRow]:
        """What is due for the targets that a full page has nothing for: it may be all of one that hangs."""
        webhooks = await enabled_webhooks(self._store)
        found: list[DeliveryRow] = []
        for name in (*self._channels, *(webhook.webhook_id for webhook in webhooks)):
            if name not in shown and not self._target(name).is_busy:
                found += await self._store.find(
                    DeliveryRow,
                    {"target": name, "state": "due"},
                    order_by="next_attempt_at_ms",
                    until=until_ms,
                    limit=AHEAD_MAX,
                )
        return found

    def _target(self, name: str) -> Target:
        if name not in self._targets:
            self._targets[name] = Target(self._attempt, self._stock, self._idle.set)
        return self._targets[name]

    async def _attempt(self, row: DeliveryRow) -> Attempted:
        done = await self._attempts.attempt(row)
        if done.outcome is not None:
            self.counts.attempts[done.outcome] += 1
        return done


async def _within(seconds: float, wait: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return
