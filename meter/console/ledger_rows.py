"""Transactions as rows of a page: what was held and settled is one row, which opens to its chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from meter.console.figures import places_of, plain
from meter.contract.answers import Transaction

_WORDS: dict[str, tuple[str, str, int]] = {
    "grant": ("plain", "added", 1),
    "grant_started": ("plain", "began", 1),
    "deduct": ("plain", "charged", -1),
    "reserve": ("held", "held", -1),
    "commit": ("plain", "charged", -1),
    "release": ("gone", "released", 1),
    "extend": ("held", "held more", -1),
    "refund": ("plain", "refunded", 1),
    "void": ("gone", "voided", -1),
    "grant_expired": ("gone", "expired", -1),
    "grant_rolled_over": ("plain", "rolled over", 1),
    "reservation_expired": ("gone", "hold expired", 1),
    "adjust": ("plain", "adjusted", 1),
    "account": ("gone", "account changed", 0),
    "key": ("gone", "key changed", 0),
}
"""Badge, word and what it does to what can be spent, by kind."""
_BEGINS, _SETTLES = ("reserve", "extend"), ("commit", "release", "reservation_expired")
REFUNDABLE = ("deduct", "commit")


@dataclass(slots=True)
class LedgerRow:
    """A transaction, and the steps behind it, oldest first."""

    transaction: Transaction
    badge: str
    word: str
    amount: Decimal | None
    text: str
    chain: list[LedgerRow] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        """The transactions that it is made of."""
        return {self.transaction.transaction_id, *(step.transaction.transaction_id for step in self.chain)}

    @property
    def is_refundable(self) -> bool:
        """Whether it is a charge."""
        return self.transaction.kind in REFUNDABLE and self.transaction.amount > 0


def rows_of(transactions: Sequence[Transaction]) -> list[LedgerRow]:
    """Newest first. What a hold did before it was settled stands behind its last row."""
    settled = {one.reservation_id: row_of(one) for one in reversed(transactions) if one.kind in _SETTLES}
    found = []
    for one in transactions:
        row = settled.get(one.reservation_id) if one.reservation_id else None
        if row is None or one.kind not in (*_BEGINS, *_SETTLES):
            found.append(row_of(one))
        elif row.transaction is one:
            found.append(row)
        else:
            row.chain.insert(0, row_of(one))
    for row in found:
        row.text = row.text or next((step.text for step in row.chain if step.text), "")
    return found


def row_of(one: Transaction) -> LedgerRow:
    """A transaction by itself."""
    badge, word, sign = _WORDS.get(one.kind, ("gone", one.kind.replace("_", " "), 0))
    return LedgerRow(one, badge, word, one.amount * sign if sign else None, one.description or "")


def draws_of(one: Transaction, names: dict[str, str]) -> str:
    """What came from which grant: "12.50 promo, 237.50 plan"."""
    places = places_of(draw.amount for draw in one.draws)
    return ", ".join(f"{plain(draw.amount, places)} {names.get(draw.grant_id, draw.grant_id)}" for draw in one.draws)
