"""The allocation: each subscription whose period has ended moves on, and gets the credits of the next ones, once.

From an index by time, in bounded pages, so that what was missed while nobody ran it is caught up. One that cannot be
worked out is set aside with an alarm, and the others go on (docs/plans.md, rule 19).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from meter.engine.engine import Engine
from meter.ledger.entry_rows import error_alert
from meter.log import logger
from meter.plans.planner import ACTIVE, SET_ASIDE, Step, is_due
from meter.plans.steps import Steps, advanced
from meter.store.base import Store, StoreRefused
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import EventRow

RETRY_MS = 3_600_000
"""When one that was set aside is tried again."""

_log = logger("meter")


@dataclass(frozen=True, slots=True)
class Page:
    """What became of a page: how many subscriptions moved on, and whether another page makes sense at once: not where
    nothing moved because other processes are at it.
    """

    moved: int
    more: bool
    aside: int = 0
    """Subscriptions that were set aside."""


class Allocation:
    """Moves on what is due, as every process may at any time. Raises `Unavailable`."""

    def __init__(self, engine: Engine, store: Store, partitions: int) -> None:
        self._engine = engine
        self._store = store
        self._steps = Steps(engine, store, partitions)

    async def page(self, limit: int) -> Page:
        """Does what earlier steps left over, and moves on up to `limit` subscriptions that are due."""
        now_ms = await self._engine.now_ms()
        await self._steps.effects.left_over(now_ms)
        rows = await self._due(now_ms, limit)
        terms = await self._steps.terms(rows)
        tried = [(row, advanced(row, terms, now_ms)) for row in rows]
        faulty = [(row, step) for row, step in tried if isinstance(step, str)]
        done, refused = await self._commit([step for _, step in tried if isinstance(step, Step)], now_ms)
        aside = sum([await self._set_aside(row, why, now_ms) for row, why in (*faulty, *refused)])
        goes_on = any(is_due(step.row, now_ms) for step in done)
        return Page(len(done), goes_on or (len(rows) == limit and len(done) + aside > 0), aside)

    async def any_due(self, ahead_ms: int) -> bool:
        """Whether a page in so many milliseconds would find anything."""
        now_ms = await self._engine.now_ms() + ahead_ms
        return bool(await self._due(now_ms, 1)) or await self._steps.effects.any_left_over(now_ms)

    async def _due(self, now_ms: int, limit: int) -> list[SubscriptionRow]:
        """Subscriptions whose period has ended, those due longest first; then those set aside a while ago."""
        rows = await self._store.due(SubscriptionRow, ACTIVE, "next_period_at_ms", now_ms, limit)
        if len(rows) < limit:
            again_ms = now_ms - RETRY_MS
            rows += await self._store.due(SubscriptionRow, SET_ASIDE, "updated_at_ms", again_ms, limit - len(rows))
        return rows

    async def _commit(self, steps: Sequence[Step], now_ms: int) -> tuple[list[Step], list[tuple[SubscriptionRow, str]]]:
        """All in one transaction; where another process changed one of them, or the store refuses one, each in its own.

        Answers the steps that were done, and those that the store refuses for good.
        """
        try:
            if not steps or await self._steps.commit(steps, now_ms):
                return list(steps), []
        except StoreRefused as error:
            if len(steps) == 1:
                return [], [(steps[0].row, str(error))]
        due = await self._due(now_ms, len(steps))
        still = {(row.user_id, row.plan_group, row.version + 1) for row in due}
        left = [step for step in steps if (step.row.user_id, step.row.plan_group, step.row.version) in still]
        if len(left) == len(steps) > 1:
            half = len(left) // 2
            parts = [await self._commit(part, now_ms) for part in (left[:half], left[half:])]
        else:
            parts = [await self._commit(left, now_ms)] if left and len(left) < len(steps) else []
        return [step for done, _ in parts for step in done], [one for _, refused in parts for one in refused]

    async def _set_aside(self, row: SubscriptionRow, why: str, now_ms: int) -> bool:
        """Takes a subscription off the list of what is due, and tells of it; whether that was done here."""
        stored = await self._store.get(SubscriptionRow, row.user_id, row.plan_group)
        if stored is None or not is_due(stored, now_ms):
            return False
        fault = why[:500]
        aside = {"state": SET_ASIDE, "fault": fault, "version": stored.version + 1, "updated_at_ms": now_ms}
        if not await self._store.swap(stored.model_copy(update=aside)):
            return False
        name = f"{row.user_id} {row.plan_group} {stored.next_period_at_ms}"
        event = EventRow(
            event_id=f"set-aside-{blake2b(name.encode(), digest_size=12).hexdigest()}",
            kind="error",
            user_id=row.user_id,
            message=f"the subscription {stored.subscription_id} of {row.plan_group} is set aside: {fault}"[:500],
            created_at_ms=now_ms,
        )
        about = {"subscription_id": stored.subscription_id}
        if await self._store.insert(error_alert(event, row.user_id, now_ms, about)):
            _log.error(event.message, user_id=row.user_id)
        await self._store.put_events([event])
        return True
