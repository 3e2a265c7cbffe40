"""Subscriptions: which plan a user has, and the credits of each period, granted exactly once.

The grant of a period has an id made of subscription and period, so granting it again does nothing. The subscription
moves to its next period by compare-and-set after that grant is durable: a process that dies in between is made up for
by the next one. Time is the scripts' time, so the test clock moves everything alike.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meter import operation
from meter.engine import Engine
from meter.intake import Intake, pending_row
from meter.operation import NEVER_MS, Call
from meter.periods import period_start_ms, time_zone
from meter.store.base import Store
from meter.store.rows import GrantRow, IntentRow, PlanRow, SubscriptionRow

DAY_MS = 86_400_000
SWAPS_MAX = 5


Refused = Literal[
    "plan-not-found", "plan-inactive", "subscription-exists", "subscription-not-found", "other-group", "busy"
]
"""Why a subscription was not changed; nothing was."""


@dataclass(frozen=True, slots=True)
class Proration:
    """How the change of a plan in mid-period is settled."""

    when: Literal["now", "period_end"]
    how: Literal["none", "difference"]


class Subscriptions:
    """Assigns, changes and ends subscriptions, and grants what is due."""

    def __init__(self, engine: Engine, store: Store, partitions: int) -> None:
        self._engine = engine
        self._store = store
        self._intake = Intake(engine, store)
        self._partitions = partitions

    async def of_user(self, user_id: str) -> list[SubscriptionRow]:
        """A user's subscriptions, ended ones included."""
        return await self._store.find(SubscriptionRow, {"user_id": user_id}, order_by="user_id", limit=100)

    async def assign(
        self, user_id: str, plan_id: str, *, auto_renew: bool, zone: str, anchor_ms: int | None
    ) -> SubscriptionRow | Refused:
        """Gives a user a plan and grants the first period's credits. The same assignment again changes nothing."""
        plan = await self._plan(plan_id)
        if plan is None or plan.deleted:
            return "plan-not-found"
        if not plan.active:
            return "plan-inactive"
        now_ms = await self._engine.now_ms(self._engine.partition_of(user_id))
        present = await self._store.get(SubscriptionRow, user_id, plan.plan_group)
        if present is not None and present.state == "active":
            if present.plan_id != plan_id:
                return "subscription-exists"
            await self._intake.add_many([self._grant(present, plan, now_ms)])  # a first try may have died before this
            return present
        row = _begun(user_id, plan, now_ms, anchor_ms or now_ms, auto_renew=auto_renew, zone=zone)
        if present is None:
            done = await self._store.insert(row)
        else:
            row = row.model_copy(update={"version": present.version + 1})
            done = await self._store.swap(row)
        if not done:
            return "busy"
        await self._intake.add_many([self._grant(row, plan, now_ms)])
        return row

    async def change(self, user_id: str, plan_id: str, proration: Proration) -> SubscriptionRow | Refused:
        """Changes the plan now or at the period's end."""
        plan = await self._plan(plan_id)
        if plan is None or plan.deleted:
            return "plan-not-found"
        present = await self._store.get(SubscriptionRow, user_id, plan.plan_group)
        if present is None or present.state != "active":
            return "subscription-not-found"
        if present.plan_id == plan_id:
            return present
        now_ms = await self._engine.now_ms(self._engine.partition_of(user_id))
        if proration.when == "period_end":
            row = _next(present, now_ms, next_plan_id=plan_id)
            return row if await self._store.swap(row) else "busy"
        if proration.how == "difference":
            return await self._change_by_difference(present, plan, now_ms)
        row = _begun(user_id, plan, now_ms, now_ms, auto_renew=present.auto_renew, zone=present.time_zone)
        row = row.model_copy(update={"version": present.version + 1})
        if not await self._store.swap(row):
            return "busy"
        await self._void_period(present)
        await self._intake.add_many([self._grant(row, plan, now_ms)])
        return row

    async def end(
        self, user_id: str, plan_group: str, when: Literal["now", "period_end"], unspent: Literal["stay", "void"]
    ) -> SubscriptionRow | Refused:
        """Ends a subscription now or at the period's end; unspent credits of it stay, or are void at that time."""
        present = await self._store.get(SubscriptionRow, user_id, plan_group)
        if present is None or present.state != "active":
            return "subscription-not-found"
        now_ms = await self._engine.now_ms(self._engine.partition_of(user_id))
        if when == "now":
            row = _next(present, now_ms, unspent=unspent, state="ended")
        else:
            row = _next(present, now_ms, unspent=unspent, auto_renew=False)
        if not await self._store.swap(row):
            return "busy"
        if when == "now":
            await self._finish(row)
        return row

    async def due(self, now_ms: int, limit: int) -> list[SubscriptionRow]:
        """Active subscriptions whose period has ended, those due longest first."""
        return await self._store.find(
            SubscriptionRow, {"state": "active"}, order_by="next_period_at_ms", until=now_ms, limit=limit
        )

    async def advance(self, rows: Sequence[SubscriptionRow], now_ms: int) -> int:
        """Moves due subscriptions to the period that `now_ms` lies in, and grants it; answers how many moved."""
        plans = {plan_id: await self._plan(plan_id) for plan_id in {row.next_plan_id or row.plan_id for row in rows}}
        moved: list[tuple[SubscriptionRow, PlanRow]] = []
        ended: list[SubscriptionRow] = []
        for row in rows:
            plan = plans[row.next_plan_id or row.plan_id]
            if not row.auto_renew or plan is None:
                ended.append(
                    row.model_copy(update={"state": "ended", "version": row.version + 1, "updated_at_ms": now_ms})
                )
            else:
                moved.append((_advanced(row, plan, now_ms), plan))
        # The grants first: a process that dies after the swap would leave periods without credits.
        await self._intake.add_many([self._grant(row, plan, now_ms) for row, plan in moved])
        done = await self._store.swap_many([*(row for row, _ in moved), *ended])
        for row in ended:
            await self._finish(row)
        await self._store.insert_many([_intent("subscription_renewed", row, now_ms) for row, _ in moved])
        return done

    async def _change_by_difference(
        self, present: SubscriptionRow, plan: PlanRow, now_ms: int
    ) -> SubscriptionRow | Refused:
        """The period goes on; the difference of the limits is granted (or voided) for the part of it that is left."""
        old = await self._plan(present.plan_id)
        row = _next(present, now_ms, plan_id=plan.plan_id, next_plan_id=None)
        if not await self._store.swap(row):
            return "busy"
        length = present.next_period_at_ms - present.period_started_at_ms
        left = max(0, present.next_period_at_ms - now_ms)
        difference = (plan.credit_limit - (old.credit_limit if old else 0)) * left // length
        if difference > 0:
            grant = self._grant(row, plan, now_ms).model_copy(
                update={"grant_id": f"{row.subscription_id}.{row.period}.{row.version}", "amount": difference}
            )
            await self._intake.add_many([grant])
        return row

    def _grant(self, row: SubscriptionRow, plan: PlanRow, now_ms: int) -> GrantRow:
        """The pending grant of a subscription's current period."""
        expires_ms = row.next_period_at_ms
        if plan.validity_days is not None:
            expires_ms = min(NEVER_MS, row.period_started_at_ms + plan.validity_days * DAY_MS)
        one = operation.grant(
            row.user_id,
            f"{row.subscription_id}.{row.period}",
            plan.credit_limit,
            priority=plan.priority,
            expires_at_ms=expires_ms,
            source=f"plan:{plan.plan_id}"[:32],
            call=Call("period"),
        )
        return pending_row(one, self._partitions, "", now_ms)

    async def _finish(self, row: SubscriptionRow) -> None:
        if row.unspent == "void":
            await self._void_period(row)
        await self._store.insert(_intent("subscription_ended", row, row.updated_at_ms))

    async def _void_period(self, row: SubscriptionRow) -> None:
        await self._engine.run(row.user_id, operation.void(row.user_id, f"{row.subscription_id}.{row.period}"))

    async def _plan(self, plan_id: str) -> PlanRow | None:
        return await self._store.get(PlanRow, plan_id)


def _begun(user_id: str, plan: PlanRow, now_ms: int, anchor_ms: int, *, auto_renew: bool, zone: str) -> SubscriptionRow:
    """A subscription in the period that `now_ms` lies in, counted from the anchor."""
    first = SubscriptionRow(
        user_id=user_id,
        plan_group=plan.plan_group,
        subscription_id=f"s_{secrets.token_urlsafe(9)}",
        plan_id=plan.plan_id,
        auto_renew=auto_renew,
        anchor_at_ms=anchor_ms,
        time_zone=zone,
        period_started_at_ms=anchor_ms,
        next_period_at_ms=period_start_ms(anchor_ms, plan.billing_period, 1, time_zone(zone)),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return _in_period_of(first, plan, now_ms)


def _next(row: SubscriptionRow, now_ms: int, **changed: object) -> SubscriptionRow:
    """The next version of a row."""
    return row.model_copy(update={"version": row.version + 1, "updated_at_ms": now_ms, **changed})


def _advanced(row: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow:
    """The row in its next period, or in a later one when several have passed. Another plan starts a new count."""
    if row.next_plan_id is None:
        return _in_period_of(_next(row, now_ms), plan, now_ms)
    begun = _begun(row.user_id, plan, now_ms, row.next_period_at_ms, auto_renew=row.auto_renew, zone=row.time_zone)
    return begun.model_copy(update={"version": row.version + 1, "created_at_ms": row.created_at_ms})


def _in_period_of(row: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow:
    zone, number = time_zone(row.time_zone), row.period
    start, end = row.period_started_at_ms, row.next_period_at_ms
    while end <= now_ms:
        number += 1
        start, end = end, period_start_ms(row.anchor_at_ms, plan.billing_period, number + 1, zone)
    return row.model_copy(update={"period": number, "period_started_at_ms": start, "next_period_at_ms": end})


def _intent(kind: str, row: SubscriptionRow, now_ms: int) -> IntentRow:
    return IntentRow(
        intent_id=f"{kind}.{row.subscription_id}.{row.period}",
        kind=kind,
        user_id=row.user_id,
        payload={
            "subscription_id": row.subscription_id,
            "plan_id": row.plan_id,
            "plan_group": row.plan_group,
            "period": row.period,
            "period_started_at_ms": row.period_started_at_ms,
            "next_period_at_ms": row.next_period_at_ms,
        },
        created_at_ms=now_ms,
    )
