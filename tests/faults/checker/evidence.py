"""What the checker judges by: the three readings side by side, and what the run did on purpose."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tests.faults.checker.history import Told


class Finding(NamedTuple):
    """Something that is wrong. `word` is what the tables count: lost, doubled, invented, gap, difference, ..."""

    invariant: str
    word: str
    what: str


class Row(NamedTuple):
    """A transaction of the store."""

    seq: int
    epoch: int
    transaction_id: str
    kind: str
    user: str
    amount: int
    available: int
    reserved: int
    debt: int
    at_ms: int
    key: str
    reservation: str
    reference: str
    detail: dict[str, Any]

    @property
    def name(self) -> str:
        """What its caller called it: the key; the reference of a deduct without one, and of a grant, whose own key
        (with blanks) keeps it from being given twice. Empty for what no caller did.
        """
        by_reference = self.kind == "grant" or (self.kind == "deduct" and not self.key)
        return self.reference if by_reference else self.key


class Balance(NamedTuple):
    """An account, as Redis or the store has it."""

    available: int
    reserved: int
    debt: int
    granted: int
    expired: int
    voided: int
    limit: int
    spent: int


class Entry(NamedTuple):
    """A transaction of the outbox in Redis."""

    seq: int
    epoch: int
    transaction_id: str
    prev: str
    user: str
    kind: str
    amount: int


@dataclass
class Side:
    """What Redis has, or the store: accounts, what is left and held of each grant, and (user, amount) of open holds."""

    accounts: dict[str, Balance] = field(default_factory=dict)
    grants: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    holds: dict[str, tuple[str, int]] = field(default_factory=dict)
    place: tuple[int, int, str] = (0, 0, "-")
    """Epoch, seq and head: of the partition, or of the watermark."""


class Loss(NamedTuple):
    """Redis was made to lose what it had acknowledged, or was ordered to be rebuilt. `stored_seq`: the store had all up
    to there. `detected`: it was refused or rebuilt.
    """

    fault: str
    at_ms: int
    over_ms: int
    stored_seq: int
    detected: bool
    loses: bool


class Sample(NamedTuple):
    """A look while everything went on: the first seq of the outbox and grants of Redis, then what the store has."""

    at_ms: int
    first_seq: int
    epoch: int
    watermark_seq: int
    homeless: tuple[str, ...]
    """Grants that Redis had and the store, asked afterwards, had not."""


@dataclass
class Evidence:
    """All of it. `strangers` are keys in Redis that are no key of the deployment, `foreign_touched` those of another
    deployment that are not as they were.
    """

    told: dict[str, Told]
    rows: list[Row]
    store: Side
    redis: Side
    outbox: list[Entry] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    subscribed: dict[str, list[str]] = field(default_factory=dict)
    """user_id: the grants that its subscriptions say they gave."""
    quarantine: list[int] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    foreign_touched: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)

    @cached_property
    def by_key(self) -> dict[str, list[Row]]:
        """Transactions by what their caller called them."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.name:
                found[row.name].append(row)
        return found

    def rows_of(self, told: Told) -> list[Row]:
        """The transactions of an operation."""
        return self.by_key.get(told.key or told.id, [])

    def lost_with(self, began_ms: int, ended_ms: int, seq: int) -> Loss | None:
        """The announced loss that takes along what was acknowledged then as that seq; a loss that nobody noticed takes
        nothing along.
        """
        return next(
            (
                loss
                for loss in self.losses
                if loss.loses and loss.detected and began_ms <= loss.over_ms and seq > loss.stored_seq
            ),
            None,
        )

    def lost_between(self, first_ms: int, last_ms: int) -> bool:
        """Whether history was lost, as announced, between two moments."""
        return any(
            loss.loses and loss.detected and first_ms <= loss.over_ms and loss.at_ms <= last_ms for loss in self.losses
        )
