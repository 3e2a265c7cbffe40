"""Outbox entries: the ledger rows as the scripts write them, those of a call together (the format is in
lua/state/writing.lua and lua/state/outbox.lua).

An entry of a kind that this code does not know is read all the same: a newer script wrote it. A history shows it as it
is; a flusher books it when it moves nothing, and waits for its upgrade otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, NoReturn, TypeGuard

import orjson

from meter.errors import MeterError

ENTRY_VERSION = 2

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
    ADJUST = "adjust", "granted", 1, None, True, "begins"
    """Of either sign: above zero it makes a grant, below it takes from those that it draws on."""
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
    KEY = "key", None, 0, None, False, None

    @property
    def net(self) -> int:
        """What one unit of its amount does to available + reserved - debt."""
        return self.step if self.counter == "granted" else -self.step


Moving = Literal[
    Kind.GRANT,
    Kind.ADJUST,
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

    @property
    def brings_a_grant(self) -> bool:
        """Whether a caller asked for the grant that it makes, which is durable before Redis has it."""
        return self.kind is Kind.GRANT or (self.kind is Kind.ADJUST and self.amount > 0)

    def units(self, name: str) -> int:
        """A number of the detail; 0 where there is none."""
        found = self.detail.get(name, 0)
        return found if isinstance(found, int) else int(str(found))

    def text(self, name: str) -> str | None:
        """A text of the detail; None where there is none."""
        found = self.detail.get(name)
        return None if found is None else str(found)


@dataclass(frozen=True, slots=True)
class Unread:
    """A transaction of the outbox that could not be read."""

    seq: int
    text: bytes
    reason: str


class NewerEntry(MeterError):
    """An outbox entry of a version that this code does not know: it waits for its upgrade and skips nothing."""


def read_outbox_entry(last_seq: int, text: bytes, first_seq: int, naming: Sequence[bytes] = ()) -> list[Entry | Unread]:
    """The transactions of an entry of the outbox, from `first_seq` on; its id says that the last one is `last_seq`.
    With `naming`, those alone whose row has one of these texts.

    What lua/state/writing.lua could not have written is `Unread`. Raises `NewerEntry`.
    """
    if naming and not _has(text, naming):
        return []
    head, *rows = text.split(b"\n")
    try:
        if text.startswith(b"[1,"):
            return [_of_schema_1(text)]
        batch = _Batch(*orjson.loads(head)[1:]) if text.startswith(b"[2,") else _other_version(head)
        if batch.first_seq + len(rows) - 1 != last_seq:
            raise ValueError(f"{len(rows)} transactions from {batch.first_seq} to {last_seq}")
    except (ValueError, TypeError, IndexError) as error:
        reason = _reason(error)
        return [Unread(seq, text, reason) for seq in range(max(first_seq, _first_of(text, last_seq)), last_seq + 1)]
    found: list[Entry | Unread] = []
    prev, before, behind = batch.prev, f"{batch.partition}-", f"-{batch.sender}-{batch.number}"
    for seq, row in enumerate(rows, batch.first_seq):
        transaction_id = f"{before}{seq}{behind}"
        if seq >= first_seq and not (naming and not _has(row, naming)):
            try:
                found.append(batch.entry(seq, prev, transaction_id, row))
            except (ValueError, TypeError, IndexError, KeyError) as error:
                found.append(Unread(seq, head + b"\n" + row, _reason(error)))
        prev = transaction_id
    return found


class _Batch(NamedTuple):
    """The first line of an entry: what its transactions have in common."""

    epoch: int
    first_seq: int
    prev: str
    partition: int
    sender: str
    number: int
    created_at_ms: int

    def entry(self, seq: int, prev: str, transaction_id: str, row: bytes) -> Entry:
        """The transaction of a row. Raises for what lua/state/outbox.lua could not have written.

        Tuples are made by `tuple.__new__`: to name what is in them costs a third of the reading of a row.
        """
        fields = orjson.loads(row)
        kind, user_id, amount, available, reserved, debt = fields[:_BALANCES]
        draws: tuple[Draw, ...]
        if type(debt) is str:
            drawn = (debt, 0 if kind == Kind.RELEASE else amount, fields[_BALANCES], fields[_BALANCES + 1])
            draws, debt, at = (tuple.__new__(Draw, drawn),), 0, _BALANCES + 2
        else:
            draws, at = tuple([Draw(*draw) for draw in fields[_BALANCES]]), _BALANCES + 1
        operation_id, detail, at_ms = "", {}, self.created_at_ms
        if len(fields) > at:
            operation_id, detail = fields[at], fields[at + 1]
            at_ms = fields[at + 2] if len(fields) > at + 2 else at_ms
        place = (self.epoch, seq, prev, transaction_id, operation_id, KINDS.get(kind) or _kind(kind))
        account = (user_id, amount, draws, available, reserved, debt, at_ms, detail)
        return tuple.__new__(Entry, place + account)


_BALANCES = 6
"""Members of a row up to the debt; where that is none, the only draw stands in its place."""
_UNREAD_MAX = 10_000
"""Transactions that an entry which nobody can read may say it has."""


def _first_of(text: bytes, last_seq: int) -> int:
    """The first seq of an entry that nobody can read, if that can be read; else it is taken to have one transaction."""
    found = re.match(rb"\[2,\d+,(\d{1,16}),", text)
    first = last_seq if found is None else int(found[1])
    return first if last_seq - _UNREAD_MAX < first <= last_seq else last_seq


def _of_schema_1(text: bytes) -> Entry:
    """An entry as scripts wrote it before they put a whole call into one: an array of its own, 1 in front."""
    fields = orjson.loads(text)
    if not isinstance(fields, list) or len(fields) != 15:
        raise ValueError("not an outbox entry of version 1")
    fields[_KIND] = _kind(fields[_KIND])
    fields[_DRAWS] = tuple([Draw(*draw) for draw in fields[_DRAWS]])
    return Entry._make(fields[1:])


_KIND = Entry._fields.index("kind") + 1
_DRAWS = Entry._fields.index("draws") + 1


def _kind(word: str) -> Kind | str:
    kind = KINDS.get(word)
    if kind is None and not _WORD.fullmatch(word):
        raise ValueError(f"{word[:40]!r} is not the kind of an outbox entry")
    return word if kind is None else kind


def _other_version(head: bytes) -> NoReturn:
    found = re.match(rb"\[(\d{1,9}),", head)
    if found is not None and int(found[1]) > ENTRY_VERSION:
        raise NewerEntry("it is of a newer version")
    raise ValueError(f"not an outbox entry of version {ENTRY_VERSION}: {head[:80]!r}")


def _has(text: bytes, needles: Sequence[bytes]) -> bool:
    return any(needle in text for needle in needles)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def entry_text(entry: Entry) -> bytes:
    """An entry by itself, for people and for the quarantine; `read_outbox_entry` reads it too."""
    values: list[object] = [1, *entry]
    values[_DRAWS] = [list(draw) for draw in entry.draws]
    return orjson.dumps(values)


def read_entry(text: bytes) -> Entry:
    """What `entry_text` made. Raises `ValueError` and `TypeError` for what it did not."""
    return _of_schema_1(text)


def seq_of(transaction_id: str) -> tuple[int, int] | None:
    """(partition, seq) that a transaction_id names; None when it is none of ours."""
    parts = transaction_id.split("-")
    if len(parts) != 4 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0]), int(parts[1])
