"""Brings a plan in: plans, then each user's credits, debt and holds, then the subscriptions.

Everything has an id that follows from the old one, and is asked about before it is done: a run that was killed goes on
where it was, and one more changes nothing. Credits come in by the durable path of `POST /credits/add`, each grant with
the source `import`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from meter.config import Settings
from meter.engine import operations
from meter.engine.answers import FLAG, KEY_REUSED, OK, REPLAYED, word_of
from meter.engine.engine import Engine
from meter.engine.operations import BALANCE, Asked
from meter.ledger.pending_grants import Intake, pending_row
from meter.migration.plan import Account, Fault, NewGrant, NewHold, Plan
from meter.store.base import Store
from meter.store.plan_rows import PlanRow, SubscriptionRow
from meter.store.rows import GrantRow

SOURCE = "import"
REFERENCE = "import:credit-management"
"""What every transaction of an import has: `GET /credits/history?reference=` finds them."""
DEBT_KEY = "import_debt"
AT_ONCE = 16
"""Users that are brought in at the same time; the store writes what they ask for together."""

IMPORTED, UNCHANGED, REFUSED = "imported", "unchanged", "refused"
_DESCRIPTION = "brought in from credit-management"
_FIELDS = ("name", "credit_limit", "price", "billing_period", "validity_days")


@dataclass(slots=True)
class Report:
    """What became of a plan. Amounts are units."""

    plans: Counter[str] = field(default_factory=Counter)
    grants: Counter[str] = field(default_factory=Counter)
    debts: Counter[str] = field(default_factory=Counter)
    reservations: Counter[str] = field(default_factory=Counter)
    subscriptions: Counter[str] = field(default_factory=Counter)
    accounts: int = 0
    granted: int = 0
    """Of this run and of earlier ones, as `debt` and `reserved`."""
    debt: int = 0
    reserved: int = 0
    expired: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class BringIn:
    """Does what a plan says. Raises `Unavailable`; the same again then goes on."""

    def __init__(self, engine: Engine, store: Store, settings: Settings, actor: str = "") -> None:
        """`actor`: who does it, for the ledger."""
        self._actor = actor
        self._engine = engine
        self._store = store
        self._settings = settings
        self._intake = Intake(engine, store)

    async def run(self, plan: Plan, progress: Callable[[int], None]) -> Report:
        """Brings everything in; `progress` is told how many accounts are there."""
        report = Report(expired=plan.expired, faults=list(plan.faults), notes=list(plan.notes))
        now_ms = await self._engine.now_ms()
        for where, row in plan.plans:
            report.plans[await self._plan(where, row, report)] += 1
        waiting = iter(plan.accounts.values())

        async def some() -> None:
            for account in waiting:
                await self._account(account, now_ms, report)
                report.accounts += 1
                progress(report.accounts)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())
        for where, subscription in plan.subscriptions:
            report.subscriptions[await self._subscription(where, subscription, report)] += 1
        return report

    async def _plan(self, where: str, row: PlanRow, report: Report) -> str:
        if await self._store.insert(row):
            return IMPORTED
        present = await self._store.get(PlanRow, row.plan_id)
        if present is None or (present.version == 1 and _terms(present) != _terms(row)):
            report.faults.append(Fault(where, f"another plan {row.plan_id} was brought in before"))
            return REFUSED
        return UNCHANGED  # or changed since, by who works with it

    async def _account(self, account: Account, now_ms: int, report: Report) -> None:
        faulty = partial(_refused, report, account.user_id)
        for grant in account.grants:
            done = await self._grant(account, grant, now_ms)
            report.grants[done if done in (IMPORTED, UNCHANGED) else faulty(account.where, done)] += 1
            report.granted += grant.amount if done in (IMPORTED, UNCHANGED) else 0
        if account.debt:
            done = await self._debt(account)
            report.debts[done if done in (IMPORTED, UNCHANGED) else faulty(account.where, done)] += 1
            report.debt += account.debt if done in (IMPORTED, UNCHANGED) else 0
        for hold in account.holds:
            done = await self._hold(account.user_id, hold, now_ms)
            report.reservations[done if done in (IMPORTED, UNCHANGED) else faulty(hold.where, done)] += 1
            report.reserved += hold.amount if done in (IMPORTED, UNCHANGED) else 0

    async def _grant(self, account: Account, grant: NewGrant, now_ms: int) -> str:
        metadata = None if grant.plan_id is None else {"plan_id": grant.plan_id}
        one = operations.grant(
            account.user_id,
            grant.grant_id,
            grant.amount,
            expires_at_ms=grant.expires_at_ms,
            source=SOURCE,
            asked=self._asked(SOURCE, metadata),
        )
        told = {"description": _DESCRIPTION, "metadata": metadata, "reference": REFERENCE}
        row = pending_row(one, self._settings.partitions, "", now_ms).model_copy(update=told)
        present = await self._store.get(GrantRow, row.user_id, row.grant_id)
        if present is not None and present.fingerprint != row.fingerprint:
            return f"the grant {row.grant_id} came in before with another amount or end; it stays as it is"
        if present is not None and not present.pending:
            return UNCHANGED
        line = await self._intake.add(row, self._actor)
        word = word_of(line)
        if word not in (OK, "pending"):
            return f"the grant {row.grant_id} was refused: {word}"
        return IMPORTED if present is None and line.split(" ")[FLAG] != REPLAYED else UNCHANGED

    def _asked(self, key: str, metadata: object = None) -> Asked:
        return Asked(key, operations.members(_DESCRIPTION, metadata, REFERENCE), actor=self._actor)

    async def _debt(self, account: Account) -> str:
        """Debt as of a charge beyond the credits, with a limit that allows just that."""
        user_id = account.user_id
        if await self._store.history(user_id, reference=DEBT_KEY, limit=1):
            return UNCHANGED
        present = BALANCE.read(await self._engine.run(user_id, operations.balance(user_id)))
        if present.units("overdraft_limit") < account.debt:
            await self._engine.run(
                user_id, operations.configure(user_id, overdraft_limit=account.debt, asked=Asked(actor=self._actor))
            )
        asked = self._asked(DEBT_KEY)
        line = await self._engine.run(user_id, operations.deduct(user_id, account.debt, "overdraft", asked))
        if word_of(line) != OK:
            return f"the debt was refused: {word_of(line)}"
        return UNCHANGED if line.split(" ")[FLAG] == REPLAYED else IMPORTED

    async def _hold(self, user_id: str, hold: NewHold, now_ms: int) -> str:
        found = await self._engine.run_for_reservation(hold.reservation_id, operations.reservation(hold.reservation_id))
        if word_of(found) == OK or await self._store.reservations([hold.reservation_id]):
            return UNCHANGED
        longest_ms = self._settings.reservation_ttl_max_seconds * 1000
        ttl_ms = longest_ms if hold.expires_at_ms is None else min(longest_ms, hold.expires_at_ms - now_ms)
        asked = self._asked("")
        one = operations.reserve(user_id, hold.reservation_id, hold.amount, max(1, ttl_ms), chosen=True, asked=asked)
        word = word_of(await self._engine.run(user_id, one))
        if word == KEY_REUSED.word:
            return UNCHANGED
        return IMPORTED if word == OK else f"the hold was refused: {word}"

    async def _subscription(self, where: str, row: SubscriptionRow, report: Report) -> str:
        if await self._store.get(PlanRow, row.plan_id) is not None and await self._store.insert(row):
            return IMPORTED
        present = await self._store.get(SubscriptionRow, row.user_id, row.plan_group)
        if present is not None and (row.subscription_id == present.subscription_id or present.metadata == row.metadata):
            return UNCHANGED
        why = "the user has another subscription" if present is not None else "its plan did not come in"
        return _refused(report, row.user_id, where, why)


def _refused(report: Report, user_id: str, where: str, why: str) -> str:
    report.faults.append(Fault(where, why, user_id))
    return REFUSED


def _terms(row: PlanRow) -> list[object]:
    return [getattr(row, name) for name in _FIELDS]
