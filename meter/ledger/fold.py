"""The fold: outbox entries become one step of the durable ledger, each link of their chain checked.

Pure: entries and the rows they touch go in, a `Flush` comes out. It also proves each entry's balances from the ones
before it, so that what the store says of an account is what its transactions add up to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import JsonValue

from meter.clock import NEVER_MS
from meter.engine.outbox import Entry
from meter.ledger.chain import UNREAD_HEAD, ChainBroken, Known, Unbookable, Unread, quarantine_prefix
from meter.ledger.entry_rows import alerts_of, amend, copied, error_alert, text_of, transaction_row, unchecked
from meter.store.base import Flush
from meter.store.rows import (
    AccountRow,
    AlertRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    ReservationRow,
    TransactionRow,
    WatermarkRow,
)

CHOSEN = "reserve "
"""What the operation_id of a reservation's own id begins with; no caller's key has a blank."""


_OUR_RESERVATION_ID = re.compile(r"r[0-9]{1,4}_[A-Za-z0-9_-]{22}")


# What a transaction does to available + reserved - debt, per unit of its amount.
_NET = {
    "grant": 1,
    "grant_started": 1,
    "refund": 1,
    "deduct": -1,
    "commit": -1,
    "void": -1,
    "grant_expired": -1,
}

_MAKES_A_GRANT = frozenset({"grant", "grant_rolled_over"})

# The counter of the account that a kind adds its amount to.
_COUNTER = {
    "grant": ("granted", 1),
    "grant_started": ("granted", 1),
    "deduct": ("spent", 1),
    "commit": ("spent", 1),
    "refund": ("spent", -1),
    "void": ("voided", 1),
    "grant_expired": ("expired", 1),
}

_ENDS = {"commit": "committed", "release": "released", "reservation_expired": "expired"}


def unknown(entries: Iterable[Entry | Unread], known: Known) -> tuple[set[str], set[tuple[str, str]], set[str]]:
    """user_ids, (user_id, grant_id)s and reservation_ids that a fold of the entries needs besides what is known and
    what they make themselves.
    """
    made: set[object] = set()
    users: set[str] = set()
    grants: set[tuple[str, str]] = set()
    reservations: set[str] = set()
    for entry in entries:
        if isinstance(entry, Unread):
            continue
        user_id = entry.user_id
        if user_id not in known.accounts:
            users.add(user_id)
        for draw in entry.draws:
            if (user_id, draw.grant_id) not in known.grants:
                grants.add((user_id, draw.grant_id))
        reservation_id = entry.detail.get("reservation_id")
        if entry.kind == "reserve":
            made.add(reservation_id)
        elif reservation_id is not None and reservation_id not in made and reservation_id not in known.reservations:
            reservations.add(str(reservation_id))
    return users, grants, reservations


class Fold:
    """One step of the ledger, from `expected` over all the entries that are taken."""

    def __init__(self, partition: int, expected: WatermarkRow | None, known: Known, now_ms: int) -> None:
        self._partition = partition
        self._expected = expected
        self._known = known
        self._now_ms = now_ms
        self._taken = 0
        self._epoch = expected.epoch if expected else None
        self._seq = expected.seq if expected else 0
        self._head: str | None = expected.head if expected else "-"
        if self._head == UNREAD_HEAD:
            self._head = None
        self._transactions: list[TransactionRow] = []
        self._operations: list[OperationRow] = []
        self._events: list[EventRow] = []
        self._events_before = 0
        self._alerts: list[AlertRow] = []
        self._quarantine: list[QuarantineRow] = []
        self._users: set[str] = set()
        self._grants: set[tuple[str, str]] = set()
        self._reservations: set[str] = set()

    def take(self, entries: Iterable[Entry | Unread]) -> None:
        """Adds the next entries. Raises `ChainBroken` and `Unbookable`, and then leaves `known` unusable."""
        for entry in entries:
            try:
                self._take(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Unbookable(self._taken, f"{type(error).__name__}: {error}"[:500]) from error
            self._taken += 1

    def _take(self, entry: Entry | Unread) -> None:
        if entry.seq != self._seq + 1:
            raise ChainBroken(f"partition {self._partition}: seq {entry.seq} follows {self._seq}")
        self._seq = entry.seq
        self._events_before = len(self._events)
        if isinstance(entry, Unread):
            self._put_aside(entry)
            return
        if self._epoch is None:
            self._epoch = entry.epoch
        if entry.epoch != self._epoch:
            raise ChainBroken(
                f"partition {self._partition}: seq {entry.seq} is of epoch {entry.epoch}, not {self._epoch}"
            )
        if self._head is not None and entry.prev != self._head:
            raise ChainBroken(f"partition {self._partition}: seq {entry.seq} follows {entry.prev}, not {self._head}")
        self._head = entry.transaction_id
        self._book(entry)

    def flush(self) -> Flush:
        """Everything taken, as one step. It ends the fold; its rows are never changed again."""
        known = self._known
        return Flush(
            partition=self._partition,
            expected=self._expected,
            reached=WatermarkRow(
                partition=self._partition,
                epoch=self._epoch or 1,
                seq=self._seq,
                head=self._head or UNREAD_HEAD,
                updated_at_ms=self._now_ms,
            ),
            transactions=self._transactions,
            accounts=[known.accounts[user_id] for user_id in self._users],
            grants=[known.grants[key] for key in self._grants],
            reservations=[known.reservations[reservation_id] for reservation_id in self._reservations],
            operations=self._operations,
            alerts=self._alerts,
            events=self._events,
            quarantine=self._quarantine,
        )

    def _put_aside(self, entry: Unread) -> None:
        """A poison entry is kept verbatim as its seq. What it did is unknown, so the next link cannot be checked."""
        self._head = None
        self._known.unread_seq = entry.seq
        text = entry.text.decode(errors="backslashreplace").replace("\0", "\\x00")  # PostgreSQL has no NUL
        self._quarantine.append(
            QuarantineRow(
                partition=self._partition, seq=entry.seq, text=text, reason=entry.reason, created_at_ms=self._now_ms
            )
        )
        message = f"outbox entry {entry.seq} of partition {self._partition} is in quarantine"
        self._alarm(entry, message)
        self._events.append(
            EventRow(
                event_id=f"{quarantine_prefix(self._partition)}{entry.seq}",
                kind="quarantine",
                message=message,
                created_at_ms=self._now_ms,
            )
        )

    def _book(self, entry: Entry) -> None:
        detail = entry.detail
        reservation_id = text_of(detail.get("reservation_id"))
        self._transactions.append(transaction_row(self._partition, entry))
        self._alerts += alerts_of(entry)
        if entry.operation_id:
            self._operation(entry, entry.operation_id)
        if entry.kind == "reserve" and is_chosen(entry):
            self._operation(entry, f"{CHOSEN}{reservation_id}")
        self._account(entry)
        self.follow(entry)

    def follow(self, entry: Entry) -> None:
        """Brings the rows of the entry's grants and reservation up to date, and books nothing."""
        for draw in entry.draws:
            self._grant(entry, draw.grant_id, draw.amount, draw.remaining, draw.reserved)
        reservation_id = text_of(entry.detail.get("reservation_id"))
        if reservation_id is not None:
            self._reservation(entry, reservation_id)

    def _operation(self, entry: Entry, operation_id: str) -> None:
        self._operations.append(
            unchecked(
                OperationRow,
                partition=self._partition,
                operation_id=operation_id,
                transaction_id=entry.transaction_id,
                fingerprint=text_of(entry.detail.get("fingerprint")),
                answer=answer_of(entry, self._known),
                created_at_ms=entry.created_at_ms,
            )
        )

    def _account(self, entry: Entry) -> None:
        row = self._account_of(entry.user_id)
        kind = entry.kind
        booked = kind != "grant" or not _is_scheduled(entry)
        moved = _NET.get(kind, 0) * entry.amount if booked else 0
        net_before = row.available + row.reserved - row.debt
        if entry.available + entry.reserved - entry.debt != net_before + moved:
            self._mismatch(entry, row)
        changed: dict[str, object] = {
            "available": entry.available,
            "reserved": entry.reserved,
            "debt": entry.debt,
            "last_seq": entry.seq,
            "updated_at_ms": entry.created_at_ms,
        }
        counter = _COUNTER.get(kind)
        if counter is not None and booked:
            name, sign = counter
            changed[name] = getattr(row, name) + sign * entry.amount
        if kind == "account":
            changed.update(_configured(entry, row))
        amend(row, changed)

    def _account_of(self, user_id: str) -> AccountRow:
        """This fold's own row of an account."""
        known = self._known.accounts
        if user_id not in self._users:
            self._users.add(user_id)
            before = known.get(user_id)
            known[user_id] = copied(before) if before else AccountRow(user_id=user_id, partition=self._partition)
        return known[user_id]

    def _mismatch(self, entry: Entry, before: AccountRow) -> None:
        """Balances that do not add up break the chain; after a poison entry they are taken, with an alarm."""
        text = (
            f"{entry.user_id}: {entry.kind} of {entry.amount} at seq {entry.seq} leaves {entry.available} + "
            f"{entry.reserved} - {entry.debt} after {before.available} + {before.reserved} - {before.debt}"
        )
        if before.last_seq >= self._known.unread_seq:
            raise ChainBroken(f"partition {self._partition}: {text}")
        self._alarm(entry, text)

    def _grant(self, entry: Entry, grant_id: str, amount: int, remaining: int, reserved: int) -> None:
        key = (entry.user_id, grant_id)
        known = self._known.grants
        row = known.get(key)
        if row is None or _makes(entry, grant_id):
            row = known[key] = self._new_grant(entry, grant_id, amount)
        elif key not in self._grants:
            row = known[key] = copied(row)
        self._grants.add(key)
        changed = {
            "remaining": remaining,
            "reserved": reserved,
            "state": _grant_state(entry, row, remaining),
            "pending": False,
            "last_seq": entry.seq,
        }
        amend(row, changed)

    def _new_grant(self, entry: Entry, grant_id: str, amount: int) -> GrantRow:
        """A grant from its own entry, or the one that a refund made, or (after a poison entry) one of unknown terms."""
        detail, is_made = entry.detail, _makes(entry, grant_id)
        if not is_made and entry.kind != "refund":
            if not self._known.unread_seq:
                raise ChainBroken(f"partition {self._partition}: seq {entry.seq} draws on unknown grant {grant_id}")
            self._alarm(entry, f"the terms of grant {grant_id} are unknown")
        return unchecked(
            GrantRow,
            user_id=entry.user_id,
            grant_id=grant_id,
            partition=self._partition,
            amount=entry.amount if is_made else amount,
            remaining=0,
            reserved=0,
            priority=detail.get("priority", 10),
            effective_at_ms=detail.get("effective_at", entry.created_at_ms),
            expires_at_ms=detail.get("expires_at", NEVER_MS) if is_made else NEVER_MS,
            created_at_ms=entry.created_at_ms,
            source=detail.get("source", "refund"),
            state="active",
            at_end=text_of(detail.get("at_end")),
            pending=False,
            transaction_id=entry.transaction_id,
            operation_id=None,
            fingerprint=text_of(detail.get("fingerprint")),
            description=text_of(detail.get("description")),
            metadata=detail.get("metadata"),
            last_seq=entry.seq,
        )

    def _reservation(self, entry: Entry, reservation_id: str) -> None:
        known, detail = self._known.reservations, entry.detail
        row = known.get(reservation_id)
        if row is None and entry.kind != "reserve" and not self._known.unread_seq:
            raise ChainBroken(f"partition {self._partition}: seq {entry.seq} is of unknown hold {reservation_id}")
        if entry.kind == "reserve" or row is None:
            row = known[reservation_id] = unchecked(
                ReservationRow,
                reservation_id=reservation_id,
                user_id=entry.user_id,
                partition=self._partition,
                amount=0,
                charged=0,
                state="open",
                draws=[],
                expires_at_ms=detail.get("expires_at", entry.created_at_ms),
                created_at_ms=entry.created_at_ms,
                at_end=detail.get("at_end", "release"),
                ended_at_ms=None,
                requested=0,
                answer=None,
                last_seq=0,
            )
        elif reservation_id not in self._reservations:
            row = known[reservation_id] = copied(row)
        self._reservations.add(reservation_id)
        changed: dict[str, object] = {"last_seq": entry.seq}
        if entry.kind in ("reserve", "extend"):
            draws = row.draws if isinstance(row.draws, list) else []
            changed["amount"] = row.amount + entry.amount
            changed["draws"] = [*draws, *([draw.grant_id, draw.amount] for draw in entry.draws)]
            changed["expires_at_ms"] = detail["expires_at"]
        else:
            changed["state"] = _ENDS[entry.kind]
            changed["charged"] = entry.amount if entry.kind == "commit" else 0
            changed["ended_at_ms"] = entry.created_at_ms
            changed["requested"] = entry.amount + int(str(detail.get("uncovered", 0)))
            changed["answer"] = answer_of(entry, self._known)
        amend(row, changed)

    def _alarm(self, entry: Entry | Unread, message: str) -> None:
        """An error, and its alert where its user is known. Its id counts within its entry: the same in any batch."""
        event = EventRow(
            event_id=f"flush-{self._partition}-{entry.seq}-{len(self._events) - self._events_before}",
            kind="error",
            user_id=None if isinstance(entry, Unread) else entry.user_id,
            message=message[:500],
            created_at_ms=self._now_ms,
        )
        self._events.append(event)
        if not isinstance(entry, Unread):
            about: dict[str, JsonValue] = {"transaction_id": entry.transaction_id, "seq": entry.seq}
            self._alerts.append(error_alert(event, entry.user_id, entry.created_at_ms, about))


def answer_of(entry: Entry, known: Known) -> str | None:
    """The line that the script answered (its Lua file's "Answers"), from the rows before it; None for what no caller
    asked for, and for a refund, whose answer tells what is left of the charge.
    """
    told = _told(entry, known)
    if told is None:
        return None
    # A forfeit is booked by an entry of its own, right after this one; the caller saw the balances behind it.
    available = entry.available - _member(entry, "forfeited")
    return f"ok {entry.user_id} {told} {available} {entry.reserved} {entry.debt}"


def is_chosen(entry: Entry) -> bool:
    """Whether the entry is a reserve whose caller chose the reservation_id, which then is an idempotency key."""
    ours = _OUR_RESERVATION_ID.fullmatch(str(entry.detail.get("reservation_id")))
    return entry.kind == "reserve" and ours is None and "fingerprint" in entry.detail


def _told(entry: Entry, known: Known) -> str | None:
    """An answer without "ok", user and balances."""
    detail, amount, id_ = entry.detail, entry.amount, entry.transaction_id
    reservation, short, ends_at = (
        detail.get("reservation_id"),
        _member(entry, "uncovered"),
        _member(entry, "expires_at"),
    )
    match entry.kind:
        case "grant":
            return f"{detail['grant_id']} {id_} {amount}"
        case "deduct":
            return f"{id_} {amount + short} {amount} {short}"
        case "reserve":
            return f"{reservation} {amount} {ends_at} {ends_at - entry.created_at_ms}"
        case "extend" if (hold := known.reservations.get(str(reservation))) is not None:
            return f"{reservation} {hold.amount + amount} {ends_at} {ends_at - entry.created_at_ms}"
        case "commit":
            released, forfeited, late = (
                _member(entry, "released"),
                _member(entry, "forfeited"),
                bool(detail.get("late")),
            )
            return f"{reservation} {id_} {amount} {released} {forfeited} {short} {int(late)}"
        case "release":
            return f"{reservation} {id_} {amount} {_member(entry, 'forfeited')}"
        case "void" if (grant := known.grants.get((entry.user_id, str(detail["grant_id"])))) is not None:
            return f"{grant.grant_id} {id_} {grant.remaining}"  # of a scheduled one nothing is booked
        case "account":
            suspended = "s" if detail["suspended"] else "-"
            return f"{detail['overdraft_limit']} {suspended} {detail['low_credit_thresholds']}"
    return None


def _member(entry: Entry, name: str) -> int:
    return int(str(entry.detail.get(name, 0)))


def _makes(entry: Entry, grant_id: str) -> bool:
    """Whether the entry is the one that made the grant."""
    return entry.kind in _MAKES_A_GRANT and entry.detail["grant_id"] == grant_id


def _is_scheduled(entry: Entry) -> bool:
    """Whether the entry is of a grant that begins later: it moves no balance yet."""
    return entry.kind == "grant" and int(str(entry.detail["effective_at"])) > entry.created_at_ms


def _grant_state(entry: Entry, before: GrantRow, remaining: int) -> str:
    if entry.kind == "void":
        return "voided"
    if entry.kind == "grant" and _is_scheduled(entry):
        return "scheduled"
    is_ending = entry.kind == "grant_expired" or (
        entry.kind == "grant_rolled_over" and not _makes(entry, before.grant_id)
    )
    if is_ending and before.state != "voided":
        return "expired"
    if before.state in ("voided", "expired") or (before.state == "scheduled" and entry.kind != "grant_started"):
        return before.state
    return "active" if remaining else "exhausted"


def _configured(entry: Entry, before: AccountRow) -> dict[str, object]:
    detail = entry.detail
    return {
        "overdraft_limit": detail["overdraft_limit"],
        "suspended": detail["suspended"],
        "low_credit_thresholds": detail["low_credit_thresholds"],
        "profile": detail.get("profile", before.profile),
    }
