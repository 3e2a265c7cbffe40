"""What a level must have counted, added up from the ledger: what `meter reconcile` proves, and what a rebuild goes by
where Redis had another history than the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from meter.engine.outbox import CHARGES, Kind
from meter.engine.parts import first_of, following, is_part, whole_of
from meter.engine.rules import Budget, Terms, levels_of, read_counters, read_terms
from meter.store.base import Store
from meter.store.rows import AccountRow, ReservationRow, TransactionRow

ACCOUNTS_PER_PAGE = 200
ROWS_PER_PAGE = 1_000
_KINDS = (*sorted(CHARGES), Kind.REFUND)
_BEFORE_A_SLASH = ".\x7f"
"""Behind a level: no user_id stands between it and what is below the level."""


class Counted(NamedTuple):
    """What a level has counted, in units; `used` by budget."""

    charged: int
    held: int
    holds: int
    used: dict[str, int]

    @classmethod
    def of(cls, account: AccountRow) -> Counted:
        """What the row of an account says."""
        counters, terms = read_counters(account.counters), read_terms(account.rules or "0 -")
        used = {one.budget_id: counters.charged - one.base for one in terms.budgets if one.unit == "credits"}
        return cls(counters.charged, counters.held, counters.holds, used)


async def recount(store: Store, account: AccountRow) -> Counted:
    """What the level of an account must have counted, by its terms and all transactions of it and below it."""
    terms = read_terms(account.rules or "0 -")
    budgets = [one for one in terms.budgets if one.unit == "credits"]
    charged, held, holds, used = 0, 0, 0, {one.budget_id: 0 for one in budgets}
    own: set[str] = set()
    async for users in _users_under(store, account):
        found = [hold for hold in await store.open_reservations(users) if not is_part(hold.reservation_id)]
        own |= {hold.reservation_id for hold in found}
        counted = [hold for hold in found if _counts(hold, terms)]
        held, holds = held + sum(hold.amount for hold in counted), holds + len(counted)
        for user in users:
            async for row in _moved_since(store, user, terms):
                charge = row if row.refund_of is None else await store.transaction(row.refund_of)
                if charge is None or charge.seq <= terms.since:
                    continue
                amount = row.amount if row is charge else -row.amount
                charged += amount
                for one in budgets:
                    used[one.budget_id] += amount if _is_of_window(charge, one) else 0
    held += sum([part.amount for part in await _parts(store, account, own) if _counts(part, terms)])
    return Counted(charged, held, holds, used)


def _counts(hold: ReservationRow, terms: Terms) -> bool:
    return hold.counted_seq is not None and hold.counted_seq > terms.since > 0


async def _moved_since(store: Store, user_id: str, terms: Terms) -> AsyncIterator[TransactionRow]:
    """What was charged for a path, or refunded, whoever paid; not what it paid for others."""
    async for first in _charges_since(store, user_id, terms):
        if first_of(first.transaction_id, first.detail) == first.transaction_id:
            yield first
            others = following(first.transaction_id, first.detail)
            for row in (await store.transactions(others)).values() if others else ():
                yield row


async def _parts(store: Store, account: AccountRow, own: set[str]) -> list[ReservationRow]:
    """The open parts of those holds: pools are the levels of the account, and those below it."""
    if not own:
        return []
    parts = await store.open_reservations(levels_of(account.user_id)[:-1])
    async for users in _users_under(store, account):
        parts += await store.open_reservations(users)
    found = {part.reservation_id: part for part in parts if is_part(part.reservation_id)}
    return [part for part in found.values() if whole_of(part.reservation_id) in own]


def recounted(account: AccountRow, counted: Counted) -> AccountRow:
    """The row of an account that has counted that; its budgets have used what they must have."""
    counters = read_counters(account.counters)._replace(charged=counted.charged, held=counted.held, holds=counted.holds)
    words = [_with_base(word, counted) for word in (account.rules or "").split(" ")]
    return account.model_copy(update={"counters": counters.text, "rules": " ".join(words)})


def _with_base(word: str, counted: Counted) -> str:
    parts = word.split(",")
    if parts[0] == "b" and parts[1] in counted.used:
        parts[_BASE] = str(counted.charged - counted.used[parts[1]])
    return ",".join(parts)


_BASE = 1 + Budget._fields.index("base")


def _is_of_window(charge: TransactionRow, budget: Budget) -> bool:
    return charge.seq > budget.from_seq and charge.created_at_ms >= budget.starts_at_ms


async def _users_under(store: Store, account: AccountRow) -> AsyncIterator[list[str]]:
    """The level itself and the accounts below it, a page at a time."""
    level, after = account.user_id, account.user_id + _BEFORE_A_SLASH
    yield [level]
    while page := await store.scan_accounts(account.partition, after, ACCOUNTS_PER_PAGE):
        users = [row.user_id for row in page if row.user_id.startswith(f"{level}/")]
        if users:
            yield [user for user in users if level in levels_of(user)]
        if len(users) < len(page):
            return
        after = page[-1].user_id


async def _charges_since(store: Store, user_id: str, terms: Terms) -> AsyncIterator[TransactionRow]:
    before: int | None = None
    while terms.since:
        rows = await store.history(user_id, kinds=_KINDS, before_seq=before, limit=ROWS_PER_PAGE)
        for row in rows:
            if row.seq <= terms.since:
                return
            yield row
        if len(rows) < ROWS_PER_PAGE:
            return
        before = rows[-1].seq
