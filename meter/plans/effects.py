"""What a step of a subscription does in Redis, after the store has it: grants, and errands about earlier grants.

Everything here can be done again without effect, and what could not be done stays in the store for `left_over`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from meter.clock import NEVER_MS
from meter.engine import operations, upkeep
from meter.engine.engine import Engine
from meter.engine.operations import Asked, Operation
from meter.errors import Unavailable
from meter.ledger.pending_grants import Intake
from meter.ledger.plan_rules import telling
from meter.plans.entitlement import rest_of
from meter.plans.planner import given_of
from meter.store.base import Store
from meter.store.plan_rows import ErrandRow, SubscriptionRow
from meter.store.rows import GrantRow

OPERATIONS_PER_CALL = 25
LEFT_OVER_MAX = 500

PLAN_SOURCE = "plan:"
PRICES, RULES = "prices", "rules"
_KINDS = ("void", "lapse", "renew", PRICES, RULES)


class Effects:
    """Grants, voids, lapses and renewals. Raises only where it says so."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._intake = Intake(engine, store)

    async def carry_out(self, errands: Sequence[ErrandRow], grants: Sequence[GrantRow]) -> None:
        """Does what a step is to do; what cannot be done now is left over."""
        try:
            for errand in errands:
                if errand.kind != RULES:
                    await self._run(errand)
            await self._intake.apply_many(grants)
            for errand in errands:
                if errand.kind == RULES:  # of an account, which the grants make
                    await self._run(errand)
        except Unavailable:
            return

    async def left_over(self, now_ms: int) -> None:
        """Does what was left over, up to a page of each. Raises `StoreUnavailable`."""
        for errand in await self._store.due(ErrandRow, "due", "created_at_ms", now_ms, LEFT_OVER_MAX):
            await self.carry_out([errand], [])
        await self._intake.apply_many(await self._promised())

    async def any_left_over(self, now_ms: int) -> bool:
        """Whether `left_over` would find anything. Raises `StoreUnavailable`."""
        if await self._store.due(ErrandRow, "due", "created_at_ms", now_ms, 1):
            return True
        return bool(await self._promised())

    async def _promised(self) -> list[GrantRow]:
        """Grants of plans that are durable and that Redis does not seem to have, up to a page."""
        pending = await self._store.pending_grants(NEVER_MS, LEFT_OVER_MAX)
        return [row for row in pending if row.source.startswith(PLAN_SOURCE)]

    async def complete(self, row: SubscriptionRow) -> None:
        """Does what the last step of a subscription left over. Raises `StoreUnavailable`."""
        ids = [f"{kind}.{row.subscription_id}.{row.version}" for kind in _KINDS]
        found = [await self._store.get(ErrandRow, errand_id) for errand_id in ids]
        pending = await self._pending(row.user_id, [one.grant_id for one in given_of(row)])
        await self.carry_out([errand for errand in found if errand is not None], pending)

    async def _run(self, errand: ErrandRow) -> None:
        """Does an errand, and takes it off the list. A grant that Redis has not yet is given first: it could come after
        its own end.
        """
        if errand.kind in (PRICES, RULES):
            told = [price_operation(errand)] if errand.kind == PRICES else rule_operations(errand)
            await self._engine.run_many(self._engine.partition_of(errand.user_id), told)
            await self._store.remove([errand])
            return
        names, many = [name for name, _ in _grants_of(errand)], errand_operations(errand)
        partition = self._engine.partition_of(errand.user_id)
        await self._intake.apply_many(await self._pending(errand.user_id, names))
        for first in range(0, len(many), OPERATIONS_PER_CALL):
            await self._engine.run_many(partition, many[first : first + OPERATIONS_PER_CALL])
        await self._store.remove([errand])

    async def _pending(self, user_id: str, names: Sequence[str]) -> list[GrantRow]:
        """What the store has and Redis may not, of these grants and of the rests that a step gave in their place."""
        found = await self._store.grants([(user_id, each) for name in names for each in (name, rest_of(name))])
        return [row for row in found.values() if row.pending]


def _grants_of(errand: ErrandRow) -> list[tuple[str, int]]:
    return errand.grants or []  # type: ignore[return-value] # as the planner made it


def errand_operations(errand: ErrandRow) -> list[Operation]:
    """What Redis is asked for by an errand."""
    if errand.kind == PRICES:
        return [price_operation(errand)]
    return [one for name, until_ms in _grants_of(errand) for one in _operations(errand, name, until_ms)]


def price_operation(errand: ErrandRow) -> Operation:
    """The operation by which Redis has what a plan says of prices."""
    ((group, version, card, multiplier, until_ms),) = cast("list[tuple[str, int, str, int, int]]", errand.grants)
    return upkeep.plan_prices(errand.user_id, group, version, card, multiplier, until_ms)


def rule_operations(errand: ErrandRow) -> list[Operation]:
    """The operations by which Redis has what a plan says of rules."""
    ((group, version, rules, bounds),) = cast("list[tuple[str, int, str, list[int]]]", errand.grants)
    return telling(errand.user_id, group, version, rules, bounds)


def _operations(errand: ErrandRow, name: str, until_ms: int) -> list[Operation]:
    if errand.kind == "void":
        asked = Asked(request_id=errand.reference or "")
        return [operations.void(errand.user_id, each, asked) for each in (name, rest_of(name))]
    return [upkeep.lapse(errand.user_id, name, until_ms if errand.kind == "renew" else 0)]
