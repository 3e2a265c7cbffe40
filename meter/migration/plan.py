"""What to bring in, worked out of all documents. Pure: documents, a clock and the decimal places go in.

A user any of whose transactions cannot be read is left out as a whole: what is not understood is no balance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from functools import partial

from pydantic import ValidationError

from meter.amount import AmountScale
from meter.clock import NEVER_MS, period_number, period_start_ms, time_zone
from meter.contract.plans import CreatePlanRequest
from meter.migration.documents import EXPIRIES, PLANS, RESERVED, SUBSCRIPTIONS, TRANSACTIONS, Document
from meter.migration.lots import Change, Ending, lots_of
from meter.migration.values import Unreadable, Values, new_id, units_of, without_noise
from meter.store.plan_rows import PlanRow, SubscriptionRow

BALANCE_ID = "import_balance"
_EXACT = Context(prec=200)
_UTC = time_zone("UTC")


@dataclass(frozen=True, slots=True)
class Fault:
    """What was left out, and why."""

    where: str
    reason: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewGrant:
    """Credits of a user; amounts in units."""

    grant_id: str
    amount: int
    expires_at_ms: int = NEVER_MS
    plan_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewHold:
    """Credits that are held; without an end of its own it gets the longest that there is."""

    reservation_id: str
    amount: int
    expires_at_ms: int | None
    where: str


@dataclass(slots=True)
class Account:
    """What a user brings along."""

    user_id: str
    where: str
    grants: list[NewGrant] = field(default_factory=list)
    debt: int = 0
    holds: list[NewHold] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """All that is to be brought in, and what cannot be."""

    plans: list[tuple[str, PlanRow]] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    subscriptions: list[tuple[str, SubscriptionRow]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expired: int = 0
    """Units that had ended although nobody had run the expiration."""


class Planner:
    """Takes documents one by one, then makes the plan."""

    def __init__(self, scale: AmountScale, now_ms: int) -> None:
        self._scale = scale
        self._now_ms = now_ms
        self._plan = Plan()
        self._plans: dict[str, PlanRow] = {}
        self._changes: dict[str, dict[str, Change]] = defaultdict(dict)
        self._endings: dict[str, dict[str, Ending]] = defaultdict(dict)
        self._holds: dict[str, dict[str, NewHold]] = defaultdict(dict)
        self._subscriptions: dict[str, tuple[str, Values]] = {}
        self._left_out: set[str] = set()
        self._readers = {
            PLANS: self._take_plan,
            TRANSACTIONS: self._take_transaction,
            EXPIRIES: self._take_ending,
            RESERVED: self._take_hold,
            SUBSCRIPTIONS: self._take_subscription,
        }

    def take(self, document: Document) -> None:
        """Reads a document; one that cannot be read is a fault of the plan."""
        values = Values(document.values)
        try:
            if document.fault:
                raise Unreadable(document.fault)
            self._readers[document.collection](document.where, values)
        except Unreadable as error:
            user_id = document.values.get("user_id")
            about = user_id if isinstance(user_id, str) else None
            self._plan.faults.append(Fault(document.where, str(error), about))
            if about is not None and document.collection in (TRANSACTIONS, EXPIRIES):
                self._left_out.add(about)

    def planned(self) -> Plan:
        """Everything that was taken, as what is to be done."""
        with localcontext(_EXACT):
            for user_id in sorted({*self._changes, *self._holds, *self._endings}):
                try:
                    self._plan_account(user_id)
                except Unreadable as error:
                    self._plan.faults.append(Fault(f"{TRANSACTIONS} of {user_id}", str(error), user_id))
        for where, values in self._subscriptions.values():
            try:
                self._plan_subscription(where, values)
            except Unreadable as error:
                self._plan.faults.append(Fault(where, str(error), values.user_id()))
        return self._plan

    def _take_plan(self, where: str, values: Values) -> None:
        old, price = values.old_id(), values.number("price")
        body = {
            "plan_id": new_id(old),
            "name": values.text("name"),
            "description": values.text_or_none("description"),
            "credit_limit": values.number("credit_limit"),
            "price": f"{price:f}",
            "billing_period": values.text("billing_period"),
            "validity_days": values.whole("validity_days"),
            "active": values.flag("is_active", default=True),
        }
        try:
            asked = CreatePlanRequest.model_validate(body, context=self._scale)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise Unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        members = asked.model_dump(exclude={"rollover"})
        row = PlanRow(**members, created_at_ms=self._now_ms, updated_at_ms=self._now_ms, version=1)
        self._plans[old] = row
        self._plan.plans.append((where, row))

    def _take_transaction(self, where: str, values: Values) -> None:
        del where
        user_id, old = values.user_id(), values.old_id()
        change = Change(
            old,
            values.microseconds("timestamp"),
            values.number("credits_added", 0),
            values.number("credits_deducted", 0),
            values.number("current_credits"),
        )
        if change.added < 0 or change.taken < 0:
            raise Unreadable("credits_added and credits_deducted must not be negative")
        if self._changes[user_id].setdefault(old, change) != change:
            raise Unreadable(f"another transaction has the _id {old}")

    def _take_ending(self, where: str, values: Values) -> None:
        del where
        plan_id = values.text_or_none("subscription_plan_id")
        old, expires_at_ms = values.old_id(), values.milliseconds_or_none("expires_at")
        if expires_at_ms is None:
            raise Unreadable("expires_at is missing")
        ending = Ending(
            old,
            plan_id,
            values.number("credits"),
            values.microseconds("created_at"),
            expires_at_ms,
            values.flag("expired", default=False),
        )
        self._endings[values.user_id()][old] = ending  # its expiration wrote it a second time

    def _take_hold(self, where: str, values: Values) -> None:
        old, user_id, is_open = values.old_id(), values.user_id(), True
        for name in ("committed", "released"):
            is_open = is_open and not values.flag(name, default=False)
        ends_ms = values.milliseconds_or_none("expires_at")
        if not is_open or (ends_ms is not None and ends_ms <= self._now_ms):
            self._holds[user_id].pop(old, None)
            return
        amount = units_of(values.number("credits"), self._scale, "credits")
        if amount <= 0:
            raise Unreadable("credits: must be more than 0")
        self._holds[user_id][old] = NewHold(new_id(old), amount, ends_ms, where)

    def _take_subscription(self, where: str, values: Values) -> None:
        self._subscriptions[values.user_id()] = (where, values)

    def _plan_account(self, user_id: str) -> None:
        holds = [*self._holds.get(user_id, {}).values()]
        if user_id in self._left_out:
            why = "the user is left out, because a document of his cannot be read"
            self._plan.faults.append(Fault(f"the account of {user_id}", why, user_id))
            return
        found = sorted(self._changes.get(user_id, {}).values(), key=lambda change: change.at_ms)  # stable
        if not found and not holds:
            return
        balance = self._balance(user_id, found)
        units = units_of(balance, self._scale, "the balance")
        account = Account(user_id, f"{TRANSACTIONS} of {user_id}", debt=max(0, -units), holds=holds)
        rest = max(0, units)
        for lot in lots_of(found, [*self._endings.get(user_id, {}).values()], balance):
            if lot.ending is None:
                continue
            amount = min(rest, units_of(without_noise(lot.left), self._scale, "credits that end"))
            rest -= amount
            if lot.ending.expires_at_ms <= self._now_ms:
                self._plan.expired += amount
            elif amount:
                self._add_grant(account, lot.ending, amount)
        if rest:
            account.grants.append(NewGrant(BALANCE_ID, rest))
        self._plan.accounts[user_id] = account

    def _add_grant(self, account: Account, ending: Ending, amount: int) -> None:
        plan_id = None if ending.plan_id is None else new_id(ending.plan_id)
        account.grants.append(NewGrant(new_id(ending.record_id), amount, ending.expires_at_ms, plan_id))

    def _balance(self, user_id: str, changes: list[Change]) -> Decimal:
        """What credit-management answers: the figure of the last transaction, without the noise of its floats."""
        if not changes:
            return Decimal(0)
        exact = sum((change.added - change.taken for change in changes), Decimal(0))
        last = [change.after for change in changes if change.at_ms == changes[-1].at_ms]
        half_unit = Decimal(1).scaleb(-self._scale.decimal_places) / 2
        if any(abs(after - exact) < half_unit for after in last):
            return exact
        told = last[-1]
        with suppress(Unreadable):
            units_of(told, self._scale, "")
            self._note_drift(user_id, told, exact)
            return told
        self._note_drift(user_id, without_noise(told), exact)
        return without_noise(told)

    def _note_drift(self, user_id: str, told: Decimal, exact: Decimal) -> None:
        self._plan.notes.append(
            f"{user_id}: credit-management answers {told:f}, and that comes in; the transactions add up to {exact:f}"
        )

    def _plan_subscription(self, where: str, values: Values) -> None:
        user_id, old_plan = values.user_id(), values.text("subscription_plan_id")
        ends_ms, started_ms = values.milliseconds_or_none("valid_until"), values.milliseconds_or_none("started_at")
        renews = values.flag("auto_renew", default=True)
        if not values.flag("is_active", default=True):
            self._plan.notes.append(f"{user_id}: the subscription of {where} is not active, and stays behind")
            return
        plan = self._plans.get(old_plan)
        if plan is None:
            raise Unreadable(f"the plan {old_plan[:80]} is not among those that come in")
        anchor_ms = ends_ms if ends_ms is not None else started_ms
        if anchor_ms is None:
            raise Unreadable("it has neither valid_until nor started_at")
        if not renews and anchor_ms <= self._now_ms:
            self._plan.notes.append(f"{user_id}: the subscription of {where} has ended, and stays behind")
            return
        row = self._subscription(user_id, new_id(values.old_id()), plan, anchor_ms, started_ms)
        self._plan.subscriptions.append((where, row.model_copy(update={"auto_renew": renews})))

    def _subscription(
        self, user_id: str, subscription_id: str, plan: PlanRow, anchor_ms: int, started_ms: int | None
    ) -> SubscriptionRow:
        """In a period that gives nothing, its credits being among the grants; the next one begins on the old grid."""
        start_of = partial(period_start_ms, anchor_ms, plan.billing_period, zone=_UTC)
        if anchor_ms > self._now_ms:
            number, start, following = -1, min(started_ms or self._now_ms, self._now_ms), anchor_ms
        else:
            number = period_number(anchor_ms, plan.billing_period, self._now_ms, _UTC)
            start, following = start_of(number=number), start_of(number=number + 1)
        return SubscriptionRow(
            user_id=user_id,
            plan_group=plan.plan_group,
            subscription_id=subscription_id,
            plan_id=plan.plan_id,
            anchor_at_ms=anchor_ms,
            billing_period=plan.billing_period,
            period=number,
            period_started_at_ms=start,
            next_period_at_ms=following,
            given=[[f"{subscription_id}.{number}", plan.credit_limit, start, following]],
            metadata={"imported_from": "credit-management"},
            created_at_ms=start,
            updated_at_ms=self._now_ms,
            version=1,
        )


def planned(documents: Iterable[Document], scale: AmountScale, now_ms: int) -> Plan:
    """The plan of some documents."""
    planner = Planner(scale, now_ms)
    for document in documents:
        planner.take(document)
    return planner.planned()
