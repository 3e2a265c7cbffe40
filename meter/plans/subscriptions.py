"""Subscriptions: which plan a user has, and the credits of each period, granted exactly once.

Every step is made of parts that can be done again without effect (grants and voids by id, compare-and-set of the
subscription), in an order in which a process that dies in between leaves nothing that the next try does not complete.
Time is the scripts' time, so the test clock moves everything alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from meter.engine import operations, upkeep
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.ledger.pending_grants import Intake
from meter.plans.subscription_periods import advanced, alert, begun, changed, grant_ids, on_plan, period_grants
from meter.store.base import Store
from meter.store.rows import PlanRow, SubscriptionRow

SWAPS_MAX = 5
"""How often a change is tried again when other processes change the same subscription."""

Refused = Literal["plan-not-found", "plan-inactive", "subscription-exists", "subscription-not-found", "busy"]
"""Why a subscription was not changed; nothing was."""


@dataclass(frozen=True, slots=True)
class Proration:
    """How the change of a plan in mid-period is settled.

    Now and `none`: the rest of the old credits is void and a new period begins. Now and `difference`: the period goes
    on, and a larger limit is granted for the part of it that is left; a smaller one takes nothing back. At the
    period's end: the next period is the other plan's.
    """

    when: Literal["now", "period_end"]
    how: Literal["none", "difference"]


class Subscriptions:
    """Assigns, changes and ends subscriptions, and grants what is due. Raises `Unavailable`."""

    def __init__(self, engine: Engine, store: Store, partitions: int) -> None:
        self._engine = engine
        self._store = store
        self._intake = Intake(engine, store)
        self._partitions = partitions

    async def of_user(self, user_id: str, after_group: str, limit: int) -> list[SubscriptionRow]:
        """A user's subscriptions by plan group, ended ones included."""
        after = (after_group, user_id) if after_group else None
        return await self._store.find(
            SubscriptionRow, {"user_id": user_id}, order_by="plan_group", after=after, limit=limit
        )

    async def assign(
        self, user_id: str, plan_id: str, *, auto_renew: bool, zone: str, anchor_ms: int | None
    ) -> SubscriptionRow | Refused:
        """Gives a user a plan and grants the first period's credits. The same plan again changes nothing."""
        plan = await self._plan(plan_id)
        if plan is None:
            return "plan-not-found"

        async def once() -> SubscriptionRow | Refused:
            now_ms = await self._now_ms(user_id)
            present = await self._store.get(SubscriptionRow, user_id, plan.plan_group)
            if present is not None and present.state == "active":
                if present.plan_id != plan_id:
                    return "subscription-exists"
                await self._grant(present, plan, now_ms)  # a first try may have died before this
                return present
            if not plan.active:
                return "plan-inactive"
            row = begun(
                user_id, plan, now_ms, now_ms if anchor_ms is None else anchor_ms, auto_renew=auto_renew, zone=zone
            )
            if present is not None:
                row = row.model_copy(update={"version": present.version + 1})
            if not await (self._store.insert(row) if present is None else self._store.swap(row)):
                return "busy"
            await self._grant(row, plan, now_ms)
            return row

        return await _again_while_busy(once)

    async def change(self, user_id: str, plan_id: str, proration: Proration) -> SubscriptionRow | Refused:
        """Changes the plan now or at the period's end. To the plan that the user has: takes a coming change back."""
        plan = await self._plan(plan_id)
        if plan is None:
            return "plan-not-found"

        async def once() -> SubscriptionRow | Refused:
            present = await self._store.get(SubscriptionRow, user_id, plan.plan_group)
            if present is None or present.state != "active":
                return "subscription-not-found"
            now_ms = await self._now_ms(user_id)
            if present.plan_id == plan_id:
                return await self._keep(present, plan, now_ms)
            if not plan.active:
                return "plan-inactive"
            if proration.when == "period_end":
                row = changed(present, now_ms, next_plan_id=plan_id)
                return row if await self._store.swap(row) else "busy"
            if proration.how == "difference":
                row = await self._with_difference(present, plan, now_ms)
            else:
                row = on_plan(present, plan, now_ms, now_ms)
                await self._void(present)
            if not await self._store.swap(row):
                return "busy"
            await self._grant(row, plan, now_ms)
            return row

        return await _again_while_busy(once)

    async def end(
        self, user_id: str, plan_group: str, when: Literal["now", "period_end"], unspent: Literal["stay", "void"]
    ) -> SubscriptionRow | Refused:
        """Ends a subscription now or at the period's end; unspent credits of it stay, or are void at that time.

        One that has ended is answered as it is.
        """

        async def once() -> SubscriptionRow | Refused:
            present = await self._store.get(SubscriptionRow, user_id, plan_group)
            if present is None:
                return "subscription-not-found"
            now_ms = await self._now_ms(user_id)
            if present.state == "active":
                members = {"auto_renew": False} if when == "period_end" else {"state": "ended"}
                row = changed(present, now_ms, unspent=unspent, **members)
                if not await self._store.swap(row):
                    return "busy"
            else:
                row = present
            await self._on_grants(row, upkeep.lapse)  # both: a first try may have died before this
            if row.state == "ended":
                await self._finish(row)
            return row

        return await _again_while_busy(once)

    async def due(self, now_ms: int, limit: int) -> list[SubscriptionRow]:
        """Active subscriptions whose period has ended, those due longest first."""
        return await self._store.due(SubscriptionRow, "active", "next_period_at_ms", now_ms, limit)

    async def advance(self, rows: Sequence[SubscriptionRow], now_ms: int) -> int:
        """Moves due subscriptions to the period that `now_ms` lies in, and grants it; answers how many moved."""
        plan_ids = {row.next_plan_id or row.plan_id for row in rows}
        plans = {plan_id: await self._store.get(PlanRow, plan_id) for plan_id in plan_ids}
        moved: list[tuple[SubscriptionRow, PlanRow]] = []
        ended: list[SubscriptionRow] = []
        for row in rows:
            plan = plans[row.next_plan_id or row.plan_id]
            if not row.auto_renew or plan is None:
                ended.append(changed(row, now_ms, state="ended"))
            else:
                moved.append((advanced(row, plan, now_ms), plan))
        # What can be done again comes first: the swap takes the subscription off the list of what is due.
        grants = [grant for row, plan in moved for grant in period_grants(row, plan, self._partitions, now_ms)]
        await self._intake.add_many(grants)
        await self._store.insert_many([alert("subscription_renewed", row, now_ms) for row, _ in moved])
        for row in ended:
            await self._finish(row)
        done = await self._store.swap_many([*(row for row, _ in moved), *ended])
        if done < len(rows):
            await self._take_back([row for row, _ in moved])
        return done

    async def _take_back(self, rows: Sequence[SubscriptionRow]) -> None:
        """Voids what was granted for a period that somebody's change of the plan at the same moment did away with."""
        for row in rows:
            present = await self._store.get(SubscriptionRow, row.user_id, row.plan_group)
            if present is not None and present.subscription_id != row.subscription_id:
                await self._void(row)

    async def _keep(self, present: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow | Refused:
        """Completes a change that died half way, or takes back one that was to come."""
        await self._grant(present, plan, now_ms)
        if present.next_plan_id is None:
            return present
        row = changed(present, now_ms, next_plan_id=None)
        return row if await self._store.swap(row) else "busy"

    async def _with_difference(self, present: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow:
        """The row on the other plan, with what the rest of this period is owed."""
        old = await self._store.get(PlanRow, present.plan_id)
        if old is not None:
            await self._grant(present, old, now_ms)  # what an earlier change owes, before it is forgotten
        length = present.next_period_at_ms - present.period_started_at_ms
        left = max(0, present.next_period_at_ms - now_ms)
        difference = (plan.credit_limit - (old.credit_limit if old else 0)) * left // length
        return changed(
            present,
            now_ms,
            plan_id=plan.plan_id,
            next_plan_id=None,
            owed=max(0, difference),
            owed_version=present.version + 1,
        )

    async def _grant(self, row: SubscriptionRow, plan: PlanRow, now_ms: int) -> None:
        await self._intake.add_many(period_grants(row, plan, self._partitions, now_ms))

    async def _finish(self, row: SubscriptionRow) -> None:
        if row.unspent == "void":
            await self._void(row)
        await self._store.insert(alert("subscription_ended", row, row.updated_at_ms))

    async def _void(self, row: SubscriptionRow) -> None:
        """Voids what is left of the current period's grants, and what rolled over of them; those that are gone or over
        stay as they are.
        """
        await self._on_grants(row, operations.void)

    async def _on_grants(self, row: SubscriptionRow, make: Callable[[str, str], Operation]) -> None:
        many = [make(row.user_id, name) for name in grant_ids(row)]
        await self._engine.run_many(self._engine.partition_of(row.user_id), many)

    async def _plan(self, plan_id: str) -> PlanRow | None:
        plan = await self._store.get(PlanRow, plan_id)
        return None if plan is None or plan.deleted else plan

    async def _now_ms(self, user_id: str) -> int:
        return await self._engine.now_ms(self._engine.partition_of(user_id))


async def _again_while_busy(once: Callable[[], Awaitable[SubscriptionRow | Refused]]) -> SubscriptionRow | Refused:
    for _ in range(SWAPS_MAX):
        found = await once()
        if found != "busy":
            return found
    return "busy"
