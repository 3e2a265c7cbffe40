"""Steps of the planner: what they need from the store, and how they are written and done (docs/plans.md, rule 18)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meter.engine import operations
from meter.engine.answers import EXISTS, OK, word_of
from meter.engine.engine import Engine
from meter.engine.operations import Asked, Operation
from meter.ledger.pending_grants import pending_row
from meter.plans import planner
from meter.plans.effects import Effects, errand_operations
from meter.plans.entitlement import NewGrant
from meter.plans.planner import Step
from meter.plans.terms import Terms, terms_of
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.plan_rows import PlanRow, PlanTermsRow, SubscriptionRow
from meter.store.row import Row

TERMS_PER_PAGE = 100
_THERE = (OK, EXISTS.word)  # the second where the store was put back to before a step that Redis has


class Steps:
    """Raises `Unavailable` where the store, or Redis before anything was written, does not answer."""

    def __init__(self, engine: Engine, store: Store, partitions: int) -> None:
        self._engine = engine
        self._store = store
        self._partitions = partitions
        self.effects = Effects(engine, store)

    async def terms(self, rows: Iterable[SubscriptionRow]) -> Terms:
        """The terms of the plans of some subscriptions, back to where these stand."""
        return await terms_for(self._store, rows)

    async def commit(
        self, steps: Sequence[Step], now_ms: int, new: Sequence[Row] = (), reference: str | None = None
    ) -> bool:
        """Writes steps, each on the version that it was decided on, and `new` rows, all or nothing; then does what they
        are to do in Redis, which the ledger has under the `reference`. False: another process was first.
        """
        called = {"reference": reference}
        grants = [pending_row(one, self._partitions, "", now_ms) for step in steps for one in _operations(step)]
        grants = [row.model_copy(update=called) for row in grants]
        errands = [errand.model_copy(update=called) for step in steps for errand in step.errands]
        alerts = [alert for step in steps for alert in step.alerts]
        past = [one for step in steps for one in step.past]
        made = [step.row for step in steps if step.row.version == 1]
        swaps = [step.row for step in steps if step.row.version > 1]
        if not await self._store.commit(Change(swaps, [*made, *new], [*grants, *alerts, *errands, *past])):
            return False
        await self.effects.carry_out(errands, grants)
        return True

    async def taken(self, step: Step) -> str:
        """`ok`, or the word of the script for why the account cannot take the grants of a step. Nothing is changed."""
        trial = _operations(step)
        if not trial:
            return OK
        lines = await self._engine.run_many(self._engine.partition_of(step.row.user_id), trial, "trial")
        words = map(word_of, lines)
        return next((word for word in words if word not in _THERE), OK)


async def terms_for(store: Store, rows: Iterable[SubscriptionRow]) -> Terms:
    """The terms of the plans of some subscriptions, back to where these stand."""
    since: dict[str, int] = {}
    for row in rows:
        for plan_id in (row.plan_id, row.next_plan_id):
            if plan_id is not None:
                since[plan_id] = min(since.get(plan_id, row.period_started_at_ms), row.period_started_at_ms)
    return Terms({plan_id: await _terms_since(store, plan_id, at_ms) for plan_id, at_ms in since.items()})


async def _terms_since(store: Store, plan_id: str, at_ms: int) -> list[PlanTermsRow]:
    plan = await store.get(PlanRow, plan_id)
    if plan is None or plan.version == 1:
        return [] if plan is None else [terms_of(plan)]
    found: list[PlanTermsRow] = []
    while not found or (len(found) % TERMS_PER_PAGE == 0 and found[-1].from_ms > at_ms):
        page = await store.find(
            PlanTermsRow,
            {"plan_id": plan_id},
            order_by="version",
            after=(found[-1].version, plan_id) if found else None,
            descending=True,
            limit=TERMS_PER_PAGE,
        )
        if not page:
            break
        found += page
    return found[::-1] or [terms_of(plan)]


def advanced(row: SubscriptionRow, terms: Terms, now_ms: int) -> Step | str:
    """The step of a subscription that is due, or why it cannot be worked out."""
    try:
        return planner.advanced(row, terms, now_ms)
    except Exception as error:  # a row that no code of ours has written must not hold up the others
        return f"{type(error).__name__}: {error}"[:500]


def grant_operation(user_id: str, grant: NewGrant) -> Operation:
    """The operation of a grant of a plan."""
    return operations.grant(
        user_id,
        grant.grant_id,
        grant.amount,
        priority=grant.priority,
        effective_at_ms=grant.effective_at_ms,
        expires_at_ms=grant.expires_at_ms,
        source=grant.source,
        at_end=grant.at_end,
        only=grant.only,
        asked=Asked("period"),
    )


def _operations(step: Step) -> list[Operation]:
    return [grant_operation(step.row.user_id, grant) for grant in step.grants]


def operations_of(step: Step) -> list[Operation]:
    """What Redis would be asked for by a step: what ends, and what comes."""
    return [*(one for errand in step.errands for one in errand_operations(errand)), *_operations(step)]
