"""Transactions and refusals as rows of a page: what was held and settled is one row, and each opens to its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from meter.console.figures import places_of, plain
from meter.contract.answers import Transaction
from meter.contract.rules import Violation
from meter.contract.search import LedgerRow, Refused

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
CHARGES = ("deduct", "commit")


@dataclass(frozen=True, slots=True)
class Row:
    """What a page shows of a transaction or a refusal. `left`: what could be spent then."""

    id: str
    at: datetime
    badge: str
    word: str
    text: str
    amount: Decimal | None
    left: Decimal | None
    reference: str
    actor: str
    of: LedgerRow | Transaction | Refused

    @property
    def is_refused(self) -> bool:
        """Whether nothing was changed."""
        return isinstance(self.of, Refused)

    @property
    def has_steps(self) -> bool:
        """Whether there is more to be told of it."""
        return self.is_refused or (isinstance(self.of, Transaction) and self.of.kind in (*CHARGES, *_SETTLES, "refund"))

    @property
    def is_refundable(self) -> bool:
        """Whether it is a charge."""
        return isinstance(self.of, Transaction) and self.of.kind in CHARGES and self.of.amount > 0

    @property
    def violations(self) -> Sequence[Violation]:
        """The rules that refused it."""
        return self.of.violations if isinstance(self.of, Refused) else ()


def rows_of(items: Sequence[LedgerRow | Refused]) -> list[Row]:
    """Newest first, without what a hold did before the row that settled it; that one is called what its hold was."""
    transactions = [one for one in items if isinstance(one, Transaction)]
    settled = {one.reservation_id for one in transactions if one.kind in _SETTLES and one.reservation_id}
    texts = {one.reservation_id: one.description for one in transactions if one.kind == "reserve"}
    found = []
    for one in items:
        if isinstance(one, Refused):
            found.append(refused_row(one))
        elif one.kind not in _BEGINS or one.reservation_id not in settled:
            found.append(row_of(one, texts.get(one.reservation_id) or ""))
    return found


def row_of(one: LedgerRow | Transaction, text: str = "") -> Row:
    """A transaction; `text` is what it is called where it does not say."""
    badge, word, sign = _WORDS.get(one.kind, ("gone", one.kind.replace("_", " "), 0))
    return Row(
        one.transaction_id,
        one.created_at,
        badge,
        word,
        one.description or text or _changes_of(one),
        one.amount * sign if sign else None,
        one.available_after,
        one.reference or "",
        one.actor or "",
        one,
    )


def refused_row(one: Refused) -> Row:
    """What was refused: what it asked for and what there was."""
    asked = f"asked {_text(one.amount)}" if one.amount is not None else one.operation
    return Row(
        one.refusal_id,
        one.created_at,
        "bad",
        "refused",
        asked,
        None,
        one.available,
        one.reference or "",
        one.actor or "",
        one,
    )


def short_of(one: Row) -> str:
    """By how much credits were short; why, where it was something else."""
    refused = one.of
    if not isinstance(refused, Refused):
        return ""
    if refused.amount is not None and refused.available is not None and refused.amount > refused.available:
        return f"short {_text(refused.amount - refused.available)}"
    return refused.reason.replace("_", " ")


def violation_text(one: Violation, amount: Decimal | None) -> str:
    """A rule that refused, with the figures of that moment."""
    whose = f"{one.user_id}: " if one.user_id else ""
    if one.rule == "credits":
        return f"{whose}credits short" + ("" if one.limit is None else f", {_text(one.limit)} were free")
    if one.rule == "budget" and one.limit is not None:
        left = one.limit - (one.used or 0) - (one.reserved or 0)
        over = "" if amount is None else f", over by {_text(max(amount - left, Decimal(0)))}"
        return f"{whose}budget {one.id} of {_text(one.limit)}, {_text(left)} were left{over}"
    words = {"rate_limit": "rate limit", "concurrency": "at once", "suspended": "suspended", "velocity": "breaker"}
    name = words.get(one.rule, one.rule)
    limit = "" if one.limit is None else f", {_text(one.limit)} allowed"
    return f"{whose}{name}{f' {one.id}' if one.id else ''}{limit}"


def draws_of(one: Transaction, names: dict[str, str]) -> str:
    """What came from which grant: "12.50 promo, 237.50 plan"."""
    places = places_of(draw.amount for draw in one.draws)
    return ", ".join(f"{plain(draw.amount, places)} {names.get(draw.grant_id, draw.grant_id)}" for draw in one.draws)


def _changes_of(one: Transaction) -> str:
    changes = one.changes if isinstance(one, LedgerRow) else None
    return ", ".join(sorted(changes)).replace("_", " ") if changes else ""


def _text(amount: Decimal) -> str:
    return plain(amount)
