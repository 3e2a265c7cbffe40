"""The fold adds entries up: they become one step of the durable ledger, each link of their chain checked.

Pure: entries and the rows they touch go in, a `Flush` comes out. It also proves each entry's balances from the ones
before it, so that what the store says of an account is what its transactions add up to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import assert_never

from pydantic import JsonValue

from meter.clock import NEVER_MS
from meter.engine.operations import answer_of
from meter.engine.outbox import Draw, Entry, Kind, ReservationState
from meter.ledger.chain import UNREAD_HEAD, ChainBroken, Known, Unbookable, UnknownKind, Unread, quarantine_prefix
from meter.ledger.entry_rows import alerts_of, amend, copied, error_alert, own_key, transaction_row, unchecked
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
        if entry.kind is Kind.RESERVE:
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
        """Adds the next entries. Raises `ChainBroken`, `Unbookable` or `UnknownKind`, which leave `known` unusable."""
        for entry in entries:
            try:
                self._take(entry)
            except UnknownKind as unknown_kind:
                unknown_kind.index = self._taken
                raise
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
        kind = entry.kind
        if not isinstance(kind, Kind):
            self._refuse_to_guess(entry)
        reservation = self._known.reservations.get(entry.text("reservation_id") or "")
        of_reservation = None if reservation is None else reservation.reference
        self._transactions.append(transaction_row(self._partition, entry, of_reservation))
        self._alerts += alerts_of(entry)
        if entry.operation_id:
            self._operation(entry, entry.operation_id)
        if not isinstance(kind, Kind):
            return
        reservation_id = entry.text("reservation_id")
        if is_chosen(entry):
            self._operation(entry, f"{CHOSEN}{reservation_id}")
        self._account(entry, kind)
        self.follow(entry)

    def follow(self, entry: Entry) -> None:
        """Brings the rows of the entry's grants and reservation up to date, and books nothing."""
        kind = entry.kind
        if not isinstance(kind, Kind):
            return
        for draw in entry.draws:
            self._grant(entry, kind, draw)
        reservation_id = entry.text("reservation_id")
        if reservation_id is not None and kind.leaves is not None:
            self._reservation(entry, kind.leaves, reservation_id)

    def _refuse_to_guess(self, entry: Entry) -> None:
        """Raises `UnknownKind`, unless the entry moves nothing: then there is nothing to know."""
        before = self._known.accounts.get(entry.user_id)
        balances = (before.available, before.reserved, before.debt) if before else (0, 0, 0)
        if entry.draws or balances != (entry.available, entry.reserved, entry.debt):
            raise UnknownKind(entry.seq, entry.kind)

    def _operation(self, entry: Entry, operation_id: str) -> None:
        self._operations.append(
            unchecked(
                OperationRow,
                partition=self._partition,
                operation_id=operation_id,
                transaction_id=entry.transaction_id,
                fingerprint=entry.text("fingerprint"),
                answer=answer_of(entry),
                created_at_ms=entry.created_at_ms,
            )
        )

    def _account(self, entry: Entry, kind: Kind) -> None:
        row = self._account_of(entry.user_id)
        amount = 0 if _is_scheduled(entry) else entry.amount
        moved = kind.net * amount
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
        if kind.counter is not None:
            changed[kind.counter] = getattr(row, kind.counter) + kind.step * amount
        if kind is Kind.ACCOUNT:
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

    def _grant(self, entry: Entry, kind: Kind, draw: Draw) -> None:
        grant_id = draw.grant_id
        key = (entry.user_id, grant_id)
        known = self._known.grants
        row = known.get(key)
        if row is None or _makes(entry, kind, grant_id):
            row = known[key] = self._new_grant(entry, kind, grant_id, draw.amount)
        elif key not in self._grants:
            row = known[key] = copied(row)
        self._grants.add(key)
        changed = {
            "remaining": draw.remaining,
            "reserved": draw.reserved,
            "state": _grant_state(entry, kind, row, draw.remaining),
            "pending": False,
            "last_seq": entry.seq,
        }
        amend(row, changed)

    def _new_grant(self, entry: Entry, kind: Kind, grant_id: str, amount: int) -> GrantRow:
        """A grant from its own entry, or the one that a refund made, or (after a poison entry) one of unknown terms."""
        detail, is_made = entry.detail, _makes(entry, kind, grant_id)
        if not is_made and kind is not Kind.REFUND:
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
            at_end=entry.text("at_end"),
            pending=False,
            transaction_id=entry.transaction_id,
            operation_id=None,
            fingerprint=entry.text("fingerprint"),
            description=entry.text("description"),
            metadata=detail.get("metadata"),
            reference=entry.text("reference"),
            last_seq=entry.seq,
        )

    def _reservation(self, entry: Entry, leaves: ReservationState, reservation_id: str) -> None:
        known, detail = self._known.reservations, entry.detail
        row = known.get(reservation_id)
        if row is None and entry.kind is not Kind.RESERVE and not self._known.unread_seq:
            raise ChainBroken(f"partition {self._partition}: seq {entry.seq} is of unknown hold {reservation_id}")
        if entry.kind is Kind.RESERVE or row is None:
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
                reference=entry.text("reference") or own_key(entry.operation_id),
                last_seq=0,
            )
        elif reservation_id not in self._reservations:
            row = known[reservation_id] = copied(row)
        self._reservations.add(reservation_id)
        changed: dict[str, object] = {"last_seq": entry.seq}
        if leaves == "open":
            draws = row.draws if isinstance(row.draws, list) else []
            changed["amount"] = row.amount + entry.amount
            changed["draws"] = [*draws, *([draw.grant_id, draw.amount] for draw in entry.draws)]
            changed["expires_at_ms"] = detail["expires_at"]
        else:
            changed["state"] = leaves
            changed["charged"] = entry.amount if leaves == "committed" else 0
            changed["ended_at_ms"] = entry.created_at_ms
            changed["requested"] = entry.amount + entry.units("uncovered")
            changed["answer"] = None if entry.detail.get("withdrawn") else answer_of(entry)
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


def is_chosen(entry: Entry) -> bool:
    """Whether the entry is a reserve whose caller chose the reservation_id, which then is an idempotency key."""
    if entry.kind is not Kind.RESERVE or "fingerprint" not in entry.detail:
        return False
    return _OUR_RESERVATION_ID.fullmatch(str(entry.detail.get("reservation_id"))) is None


def _makes(entry: Entry, kind: Kind, grant_id: str) -> bool:
    """Whether the entry is the one that made the grant."""
    return kind.makes_a_grant and entry.detail["grant_id"] == grant_id


def _is_scheduled(entry: Entry) -> bool:
    """Whether the entry is of a grant that begins later: it moves no balance yet."""
    return entry.kind is Kind.GRANT and int(str(entry.detail["effective_at"])) > entry.created_at_ms


def _grant_state(entry: Entry, kind: Kind, before: GrantRow, remaining: int) -> str:
    match kind.of_a_grant:
        case "voids":
            return "voided"
        case "begins":
            return "scheduled" if _is_scheduled(entry) else _left(remaining)
        case "ends" if before.state != "voided" and not _makes(entry, kind, before.grant_id):
            return "expired"
        case "ends" | None:
            return before.state if before.state in ("voided", "expired", "scheduled") else _left(remaining)
        case other:
            assert_never(other)


def _left(remaining: int) -> str:
    return "active" if remaining else "exhausted"


def _configured(entry: Entry, before: AccountRow) -> dict[str, object]:
    detail = entry.detail
    return {
        "overdraft_limit": detail["overdraft_limit"],
        "suspended": detail["suspended"],
        "low_credit_thresholds": detail["low_credit_thresholds"],
        "profile": detail.get("profile", before.profile),
    }
