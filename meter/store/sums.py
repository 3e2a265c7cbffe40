"""What a store is asked for when somebody wants to know who spent what."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

CHARGED_KINDS = ("deduct", "commit")
SUMMED_KINDS = (*CHARGED_KINDS, "refund", "grant")

By = Literal["user", "day", "plan", "metadata"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sums `by` user, by UTC day, by the plans that users had at the time of each transaction (one who had two counts
    for each), or by the text of the top-level `member` of the metadata, of transactions that have it. `from_ms`
    inclusive, `to_ms` exclusive.
    """

    by: By
    member: str = ""
    user_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


class Sum(NamedTuple):
    """The sums of one key: how many charges, and the units of charges, refunds and grants. Days count from 1970."""

    key: str
    charges: int
    charged: int
    refunded: int
    granted: int


def summed(key: object, numbers: tuple[object, ...]) -> Sum:
    """A sum as a driver gives it."""
    return Sum(str(key), *map(whole, numbers))


def whole(number: object) -> int:
    """A sum of integers as a driver gives it: some have decimals for it, `Decimal("5E+8")` among them; nothing is 0."""
    return int(Decimal(str(number or 0)))
