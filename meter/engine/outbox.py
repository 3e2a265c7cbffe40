"""Outbox entries: the ledger rows as the scripts write them (the format is in lua/state/outbox.lua).

An entry of a kind that this code does not know is read all the same: a newer script wrote it. A history shows it as it
is; a flusher books it when it moves nothing, and waits for its upgrade otherwise.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal, NamedTuple, TypeGuard

import orjson

ENTRY_VERSION = 1

Counter = Literal["granted", "spent", "expired", "voided"]
ReservationState = Literal["open", "committed", "released", "expired"]


OfAGrant = Literal["begins", "ends", "voids"]


class Kind(StrEnum):
    """What a transaction is, and all that this says of its account; a row that says less than all cannot be made.

    A unit of its amount adds `step` to the account's `counter`, and so `net` to available + reserved - debt, because
    granted = spent + expired + voided + available + reserved - debt. `leaves` is the state of the reservation that it
    is about; `makes_a_grant` says that a grant begins to exist with it, `of_a_grant` what becomes of those that it
    draws on (of a rollover the old one), None where they only have more or less than before.
    """

    counter: Counter | None
    step: int
    leaves: ReservationState | None
    makes_a_grant: bool
    of_a_grant: OfAGrant | None

    def __new__(
        cls,
        text: str,
        counter: Counter | None,
        step: int,
        leaves: ReservationState | None,
        makes_a_grant: bool,
        of_a_grant: OfAGrant | None,
    ) -> Kind:
        kind = str.__new__(cls, text)
        kind._value_ = text
        kind.counter, kind.step, kind.leaves = counter, step, leaves
        kind.makes_a_grant, kind.of_a_grant = makes_a_grant, of_a_grant
        return kind

    GRANT = "grant", "granted", 1, None, True, "begins"
    GRANT_STARTED = "grant_started", "granted", 1, None, False, "begins"
    GRANT_EXPIRED = "grant_expired", "expired", 1, None, False, "ends"
    GRANT_ROLLED_OVER = "grant_rolled_over", None, 0, None, True, "ends"
    DEDUCT = "deduct", "spent", 1, None, False, None
    REFUND = "refund", "spent", -1, None, False, None
    RESERVE = "reserve", None, 0, "open", False, None
    EXTEND = "extend", None, 0, "open", False, None
    COMMIT = "commit", "spent", 1, "committed", False, None
    RELEASE = "release", None, 0, "released", False, None
    RESERVATION_EXPIRED = "reservation_expired", None, 0, "expired", False, None
    VOID = "void", "voided", 1, None, False, "voids"
    ACCOUNT = "account", None, 0, None, False, None

    @property
    def net(self) -> int:
        """What one unit of its amount does to available + reserved - debt."""
        return self.step if self.counter == "granted" else -self.step


Moving = Literal[
    Kind.GRANT,
    Kind.GRANT_STARTED,
    Kind.GRANT_EXPIRED,
    Kind.GRANT_ROLLED_OVER,
    Kind.DEDUCT,
    Kind.REFUND,
    Kind.RESERVE,
    Kind.EXTEND,
    Kind.COMMIT,
    Kind.RELEASE,
    Kind.RESERVATION_EXPIRED,
    Kind.VOID,
]


def moves(kind: Kind) -> TypeGuard[Moving]:
    """Whether entries of a kind do anything to credits; those of the others can be booked at any time as they are."""
    return kind.counter is not None or kind.leaves is not None or kind.makes_a_grant


KINDS: dict[str, Kind] = {kind.value: kind for kind in Kind}

CHARGES = frozenset(kind for kind in Kind if kind.counter == "spent" and kind.step > 0)
"""What can be refunded."""

_WORD = re.compile(r"[a-z_]{1,32}")


class Draw(NamedTuple):
    """What a transaction did to one grant: the amount, and what the grant then had left and reserved (units)."""

    grant_id: str
    amount: int
    remaining: int
    reserved: int


class Entry(NamedTuple):
    """One transaction. Amounts are units; the three balances are those after it."""

    epoch: int
    seq: int
    prev: str
    transaction_id: str
    operation_id: str
    kind: Kind | str
    """A text that is no `Kind`: what a newer script wrote."""
    user_id: str
    amount: int
    draws: tuple[Draw, ...]
    available: int
    reserved: int
    debt: int
    created_at_ms: int
    detail: dict[str, object]

    def units(self, name: str) -> int:
        """A number of the detail; 0 where there is none."""
        found = self.detail.get(name, 0)
        return found if isinstance(found, int) else int(str(found))

    def text(self, name: str) -> str | None:
        """A text of the detail; None where there is none."""
        found = self.detail.get(name)
        return None if found is None else str(found)


_KIND = Entry._fields.index("kind") + 1
_DRAWS = Entry._fields.index("draws") + 1


def parse_entry(text: bytes) -> Entry:
    """Reads an entry. Raises `ValueError` or `TypeError` for anything that lua/state/outbox.lua could not write."""
    fields = orjson.loads(text)
    if not isinstance(fields, list) or len(fields) != 15 or fields[0] != ENTRY_VERSION:
        raise ValueError(f"not an outbox entry of version {ENTRY_VERSION}: {text[:80]!r}")
    kind = KINDS.get(fields[_KIND])
    if kind is not None:
        fields[_KIND] = kind
    elif not _WORD.fullmatch(fields[_KIND]):
        raise ValueError(f"not the kind of an outbox entry: {text[:80]!r}")
    fields[_DRAWS] = tuple([Draw(*draw) for draw in fields[_DRAWS]])
    return Entry._make(fields[1:])


def entry_text(entry: Entry) -> bytes:
    """An entry as `parse_entry` reads it."""
    values: list[object] = [ENTRY_VERSION, *entry]
    values[_DRAWS] = [list(draw) for draw in entry.draws]
    return orjson.dumps(values)


def seq_of(transaction_id: str) -> tuple[int, int] | None:
    """(partition, seq) that a transaction_id names; None when it is none of ours."""
    parts = transaction_id.split("-")
    if len(parts) != 4 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0]), int(parts[1])
