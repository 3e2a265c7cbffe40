"""Which part of a balance ends when. Pure.

credit-management keeps one number per user, and beside it how much was once given until when; it takes no credits off
these. So the user's transactions are played again, each charge taken from what ends first, as meter does it; what comes
out is then brought to the balance that credit-management itself answers, which stays the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

MATCH_MS = 60_000
"""A record of an end is written in the step of its transaction."""


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction: what it added or took, and the balance that it left."""

    transaction_id: str
    at_ms: int
    added: Decimal
    taken: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class Ending:
    """Credits that were given until a time."""

    record_id: str
    plan_id: str | None
    amount: Decimal
    created_at_ms: int
    expires_at_ms: int
    expired: bool


@dataclass(slots=True)
class Lot:
    """What is left of credits that came in together; without an `ending` they never end."""

    ending: Ending | None
    left: Decimal


def lots_of(changes: Sequence[Change], endings: Sequence[Ending], balance: Decimal) -> list[Lot]:
    """The lots of a balance, at least 0, in the order in which they end: what never ends is the last. Their sum is the
    balance.
    """
    open_endings = sorted(endings, key=lambda ending: ending.created_at_ms)
    forever, lots = Lot(None, Decimal(0)), list[Lot]()
    for change in changes:
        if change.added:
            ending = _matching(change, open_endings)
            if ending is None:
                forever.left += change.added
            else:
                open_endings.remove(ending)
                lots.append(Lot(ending, change.added))
        if change.taken:
            _burn([*_by_end(lots), forever], change.taken)
    lots += [Lot(ending, ending.amount) for ending in open_endings]
    ordered = [*_by_end(lots), forever]
    for lot in ordered:
        if lot.ending is not None and lot.ending.expired:  # what had ended and is in the balance all the same
            forever.left, lot.left = forever.left + lot.left, Decimal(0)
    surplus = sum((lot.left for lot in ordered), Decimal(0)) - max(balance, Decimal(0))
    if surplus > 0:
        _burn(ordered, surplus)
    else:
        forever.left -= surplus
    return [lot for lot in ordered if lot.left]


def _matching(change: Change, endings: Sequence[Ending]) -> Ending | None:
    return next(
        (
            ending
            for ending in endings
            if ending.amount == change.added and abs(ending.created_at_ms - change.at_ms) <= MATCH_MS
        ),
        None,
    )


def _by_end(lots: Sequence[Lot]) -> list[Lot]:
    return sorted(lots, key=lambda lot: lot.ending.expires_at_ms if lot.ending else 0)


def _burn(lots: Sequence[Lot], amount: Decimal) -> None:
    for lot in lots:
        part = min(lot.left, amount)
        lot.left -= part
        amount -= part
