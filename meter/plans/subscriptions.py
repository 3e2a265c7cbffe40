"""Subscriptions: what the calls do (docs/plans.md, rules 13 to 18).

Each brings the subscription up to its own time, lets the planner decide, and commits all of it by compare-and-set.
Time is the scripts' time, so the test clock moves everything alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from meter.engine.answers import OK, OVERFLOW, TOO_MANY, TOO_MANY_RESTRICTIONS
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.plans import planner
from meter.plans.planner import ENDED, SET_ASIDE, Asked, Step
from meter.plans.steps import Steps, advanced, operations_of
from meter.plans.terms import Terms, terms_of
from meter.store.base import Store
from meter.store.plan_rows import PlanRow, SubscriptionRow
from meter.store.row import Row

SWAPS_MAX = 10
"""How often a call is tried again when other processes change the same subscription."""

Refused = Literal[
    "plan-not-found",
    "plan-inactive",
    "subscription-exists",
    "subscription-not-found",
    "subscription-fixed",
    "subscription-set-aside",
    "too-many-grants",
    "too-many-restrictions",
    "overflow",
    "busy",
]
"""Why a call was refused; nothing was changed."""

_REFUSED_GRANTS: dict[str, Refused] = {
    TOO_MANY.word: "too-many-grants",
    TOO_MANY_RESTRICTIONS.word: "too-many-restrictions",
    OVERFLOW.word: "overflow",
}

Kept = Callable[[SubscriptionRow], Sequence[Row]]
"""What is to be committed as new with the subscription that is answered."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What is written besides what the call decides; `reference` is on each row of the ledger that comes of it."""

    kept: Kept
    reference: str | None = None
    tried: Callable[[Sequence[Operation]], Awaitable[None]] | None = None
    """Is told what Redis would be asked for, where nothing is to be done at all."""


_Decided = tuple[SubscriptionRow | None, Step]
"""The row that was decided on, None where there was none, and the step."""


@dataclass(frozen=True, slots=True)
class Proration:
    """How the change of a plan is settled: at the period's end; or now, afresh (`none`) or by the `difference`."""

    when: Literal["now", "period_end"]
    how: Literal["none", "difference"]


class Subscriptions:
    """Assigns, changes and ends subscriptions. Raises `Unavailable`."""

    def __init__(self, engine: Engine, store: Store, partitions: int) -> None:
        self._engine = engine
        self._store = store
        self._steps = Steps(engine, store, partitions)

    async def of_user(self, user_id: str, after_group: str, limit: int) -> list[SubscriptionRow]:
        """A user's subscriptions by plan group as they are now, ended ones included."""
        after = (after_group, user_id) if after_group else None
        rows = await self._store.find(
            SubscriptionRow, {"user_id": user_id}, order_by="plan_group", after=after, limit=limit
        )
        now_ms = await self._now_ms(user_id)
        terms = await self._steps.terms([row for row in rows if planner.is_due(row, now_ms)])
        return [_as_of(row, terms, now_ms) for row in rows]

    async def assign(self, user_id: str, plan_id: str, asked: Asked, caller: Caller) -> SubscriptionRow | Refused:
        """Gives a user a plan and grants the first period's credits. The same plan again: sets what was sent."""

        async def decide(now_ms: int) -> _Decided | Refused:
            plan = await self._store.get(PlanRow, plan_id)
            if plan is None:
                return "plan-not-found"
            present = await self._settled(user_id, plan.plan_group, now_ms, caller)
            if present is None or present.state == ENDED:
                if not plan.active:
                    return _not_to_be_had(plan)
                return present, planner.begun(user_id, plan.plan_group, terms_of(plan), asked, now_ms, present)
            if present.state == SET_ASIDE:
                return "subscription-set-aside"
            if present.plan_id != plan_id:
                return _not_to_be_had(plan) if plan.deleted else "subscription-exists"
            if asked.time_zone not in (None, present.time_zone) or asked.anchor_ms not in (None, present.anchor_at_ms):
                return "subscription-fixed"
            return present, planner.adjusted(present, asked, now_ms)

        return await self._done(user_id, decide, caller)

    async def change(
        self, user_id: str, plan_id: str, proration: Proration, caller: Caller
    ) -> SubscriptionRow | Refused:
        """Changes the plan now or at the period's end. To the plan that the user has: takes a coming change back."""

        async def decide(now_ms: int) -> _Decided | Refused:
            plan = await self._store.get(PlanRow, plan_id)
            if plan is None:
                return "plan-not-found"
            present = await self._settled(user_id, plan.plan_group, now_ms, caller)
            if present is None or present.state == ENDED:
                return "plan-not-found" if plan.deleted else "subscription-not-found"
            if present.state == SET_ASIDE:
                return "subscription-set-aside"
            if present.plan_id == plan_id:
                return present, planner.change_taken_back(present, now_ms)
            is_promised = proration.when == "period_end" and present.next_plan_id == plan_id
            if not (plan.active or is_promised):
                return _not_to_be_had(plan)
            if proration.when == "period_end":
                return present, planner.change_to_come(present, plan_id, now_ms)
            if proration.how == "none":
                return present, planner.changed_afresh(present, terms_of(plan), now_ms)
            terms = await self._steps.terms([present])
            return present, planner.changed_by_difference(present, terms_of(plan), terms, now_ms)

        return await self._done(user_id, decide, caller)

    async def end(
        self,
        user_id: str,
        plan_group: str,
        when: Literal["now", "period_end"],
        unspent: Literal["stay", "void"],
        caller: Caller,
    ) -> SubscriptionRow | Refused:
        """Ends a subscription now or at the period's end; unspent credits of it stay, or are void at that time."""

        async def decide(now_ms: int) -> _Decided | Refused:
            present = await self._settled(user_id, plan_group, now_ms, caller)
            if present is None:
                return "subscription-not-found"
            if present.state == SET_ASIDE and when == "period_end":
                return "subscription-set-aside"
            return present, planner.ended(present, when, unspent, now_ms)

        return await self._done(user_id, decide, caller)

    async def _done(
        self, user_id: str, decide: Callable[[int], Awaitable[_Decided | Refused]], caller: Caller
    ) -> SubscriptionRow | Refused:
        """What was decided and done, when no other process was first, of a few tries."""
        for _ in range(SWAPS_MAX):
            now_ms = await self._now_ms(user_id)
            decided = await decide(now_ms)
            if isinstance(decided, str):
                return decided
            present, step = decided
            word = await self._steps.taken(step)
            if word != OK:
                return _REFUSED_GRANTS[word]
            if caller.tried is not None:
                await caller.tried(operations_of(step))
                return step.row
            new, changes = caller.kept(step.row), [] if step.row is present else [step]
            if await self._steps.commit(changes, now_ms, new, caller.reference):
                if not changes:
                    await self._steps.effects.complete(step.row)  # a first try may have died before that
                return step.row
        return "busy"

    async def _settled(self, user_id: str, plan_group: str, now_ms: int, caller: Caller) -> SubscriptionRow | None:
        """The subscription as of now, with all that was due done; as set aside where that cannot be worked out."""
        if caller.tried is not None:
            row = await self._store.get(SubscriptionRow, user_id, plan_group)
            is_due = row is not None and planner.is_due(row, now_ms)
            return _as_of(row, await self._steps.terms([row]), now_ms) if row is not None and is_due else row
        while True:
            row = await self._store.get(SubscriptionRow, user_id, plan_group)
            if row is None or not planner.is_due(row, now_ms):
                return row
            step = advanced(row, await self._steps.terms([row]), now_ms)
            if isinstance(step, str):
                return row.model_copy(update={"state": SET_ASIDE, "fault": step})
            await self._steps.commit([step], now_ms)

    async def _now_ms(self, user_id: str) -> int:
        return await self._engine.now_ms(self._engine.partition_of(user_id))


def _not_to_be_had(plan: PlanRow) -> Refused:
    """Why nobody can take a plan that is not active. Who has it, or was promised it, keeps it (rule 4)."""
    return "plan-not-found" if plan.deleted else "plan-inactive"


def _as_of(row: SubscriptionRow, terms: Terms, now_ms: int) -> SubscriptionRow:
    while planner.is_due(row, now_ms):
        step = advanced(row, terms, now_ms)
        if isinstance(step, str):
            break
        row = step.row
    return row
