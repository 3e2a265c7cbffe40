"""The fold adds entries up: they become one step of the durable ledger, each link of their chain checked.

Pure: entries and the rows they touch go in, a `Flush` comes out. It also proves each entry's balances from the ones
before it, so that what the store says of an account is what its transactions add up to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import JsonValue

from meter.clock import NEVER_MS
from meter.engine.operations import answer_of
from meter.engine.outbox import CHARGES, Counter, Draw, Entry, Kind, OfAGrant, ReservationState, Unread
from meter.engine.parts import first_of, in_all, path_of
from meter.engine.restrictions import only_of_made
from meter.ledger.caller import CHOSEN, api_key_of, is_chosen
from meter.ledger.chain import UNREAD_HEAD, ChainBroken, Known, Unbookable, UnknownKind, quarantine_prefix
from meter.ledger.counted import configured, levels_in, move_levels, step_of
from meter.ledger.entry_rows import alerts_of, copied, error_alert, name_before, own_key, transaction_columns, unchecked
from meter.ledger.figures import BUCKET_MINUTES, PLAIN, Figures, feature_of, gaps_before, tags_of
from meter.ledger.grant_state import state_after
from meter.ledger.top_up_entries import TOP_UP, request_in, word_after
from meter.store.base import Flush
from meter.store.records import Records, row_of
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
from meter.store.top_up_rows import TopUpRow

Values = dict[str, Any]
"""The `__dict__` of a row that is a fold's own: it is changed in place, entry by entry."""


class _Way(NamedTuple):
    """What a kind does, as `Kind` says it: a member of an enumeration costs as much to ask as the rest of a fold."""

    net: int
    counter: Counter | None
    step: int
    leaves: ReservationState | None
    makes_a_grant: bool
    of_a_grant: OfAGrant | None
    charges: bool


_WAYS = {
    one: _Way(one.net, one.counter, one.step, one.leaves, one.makes_a_grant, one.of_a_grant, one in CHARGES)
    for one in Kind
}
_ACCOUNT, _DEDUCT, _GRANT, _REFUND, _RESERVE = Kind.ACCOUNT, Kind.DEDUCT, Kind.GRANT, Kind.REFUND, Kind.RESERVE


def unknown(entries: Iterable[Entry | Unread], known: Known) -> tuple[set[str], set[tuple[str, str]], set[str]]:
    """user_ids, (user_id, grant_id)s and reservation_ids that a fold of the entries needs besides what is known and
    what they make themselves.
    """
    accounts, known_grants, known_reservations = known.accounts, known.grants, known.reservations
    made: set[object] = set()
    users: set[str] = set()
    grants: set[tuple[str, str]] = set()
    reservations: set[str] = set()
    for entry in entries:
        if isinstance(entry, Unread):
            continue
        user_id = entry.user_id
        if user_id not in accounts:
            users.add(user_id)
        if "counters" in entry.detail:
            users |= {level for level in levels_in(entry) if level not in accounts}
        for draw in entry.draws:
            if (key := (user_id, draw[0])) not in known_grants:
                grants.add(key)
        if (reservation_id := entry.detail.get("reservation_id")) is not None:
            if entry.kind is _RESERVE:
                made.add(reservation_id)
            elif reservation_id not in made and reservation_id not in known_reservations:
                reservations.add(str(reservation_id))
        elif entry.kind is _ACCOUNT and (was := name_before(entry)) is not None and was not in accounts:
            users.add(was)
    return users, grants, reservations


class Fold:
    """One step of the ledger, from `expected` over all the entries that are taken."""

    def __init__(
        self,
        partition: int,
        expected: WatermarkRow | None,
        known: Known,
        now_ms: int,
        bucket_minutes: int = BUCKET_MINUTES,
    ) -> None:
        """`bucket_minutes`: of the usage figures, where the watermark does not say."""
        self._bucket_minutes = (expected.bucket_minutes if expected else None) or bucket_minutes
        self._figures = Figures(self._bucket_minutes, known.values)
        self._renamed: list[tuple[str, str]] = []
        self._revoked_keys: list[str] = []
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
        self._transactions: list[tuple[object, ...]] = []
        self._operations: list[tuple[object, ...]] = []
        self._events: list[EventRow] = []
        self._events_before = 0
        self._alerts: list[AlertRow] = []
        self._top_ups: list[TopUpRow] = []
        self._quarantine: list[QuarantineRow] = []
        # Rows that this fold may change: those of `known` are copied first, as an earlier flush may be under way.
        self._accounts: dict[str, Values] = {}
        self._grants: dict[tuple[str, str], Values] = {}
        self._reservations: dict[str, Values] = {}

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
        seq = entry.seq
        if seq != self._seq + 1:
            raise ChainBroken(f"partition {self._partition}: seq {seq} follows {self._seq}")
        self._seq = seq
        self._events_before = len(self._events)
        if isinstance(entry, Unread):
            self._put_aside(entry)
            return
        if self._epoch is None:
            self._epoch = entry.epoch
        if entry.epoch != self._epoch:
            raise ChainBroken(f"partition {self._partition}: seq {seq} is of epoch {entry.epoch}, not {self._epoch}")
        if self._head is not None and entry.prev != self._head:
            raise ChainBroken(f"partition {self._partition}: seq {seq} follows {entry.prev}, not {self._head}")
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
                counted_seq=self._seq,
                bucket_minutes=self._bucket_minutes,
            ),
            transactions=Records(TransactionRow, self._transactions),
            accounts=[known.accounts[user_id] for user_id in self._accounts],
            grants=[known.grants[key] for key in self._grants],
            reservations=[known.reservations[reservation_id] for reservation_id in self._reservations],
            operations=Records(OperationRow, self._operations),
            alerts=self._alerts,
            top_ups=self._top_ups,
            events=self._events,
            quarantine=self._quarantine,
            renamed=self._renamed,
            revoked_keys=self._revoked_keys,
            usage=self._figures.added(),
            gaps=gaps_before(self._expected),
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
        kind, detail = entry.kind, entry.detail
        way = _WAYS.get(kind)  # type: ignore[call-overload]
        if way is None:
            self._refuse_to_guess(entry)
        elif kind is _DEDUCT and not detail:  # nearly all; it says nothing besides
            self._transactions.append(transaction_columns(self._partition, entry))
            self._figures.plain_charge(entry.user_id, entry.created_at_ms, entry.amount)
            if entry.operation_id:
                self._operation(entry, entry.operation_id)
            self._account(entry, way)
            for draw in entry.draws:
                self._grant(entry, way, draw)
            return
        reservation_id = entry.text("reservation_id") if "reservation_id" in detail else None
        reservation = None if reservation_id is None else self._known.reservations.get(reservation_id)
        of_reservation = None if reservation is None else reservation.reference
        self._transactions.append(transaction_columns(self._partition, entry, of_reservation))
        if "alerts" in detail or "budget_alerts" in detail or kind is Kind.GRANT_EXPIRED:
            self._alerts += alerts_of(entry)
        if entry.operation_id:
            self._operation(entry, entry.operation_id)
        if way is None:
            return
        if kind is _RESERVE and is_chosen(entry):
            self._operation(entry, f"{CHOSEN}{reservation_id}")
        self._tell_others(entry)
        if way.counter == "spent":
            self._count(entry, way, reservation)
        self._account(entry, way)
        if "counters" in detail:
            rows = {name: self._accounts.get(name) or self._own_account(name) for name in levels_in(entry)}
            for fault in move_levels(entry, step_of(way.counter, way.step, entry), rows):
                self._alarm(entry, fault)
        self._follow(entry, way, reservation_id)

    def _tell_others(self, entry: Entry) -> None:
        """What a transaction means for rows that are no account's, grant's or reservation's."""
        if entry.kind is _ACCOUNT and (was := name_before(entry)) is not None:
            self._rename(was, entry)
        elif entry.kind is Kind.KEY and entry.detail.get("change") == "revoke":
            self._revoked_keys.append(str(entry.detail["key_id"]))

    def _count(self, entry: Entry, way: _Way, reservation: ReservationRow | None) -> None:
        """Adds a charge or a refund to the usage figures."""
        detail, tags, path = entry.detail, self._known.tags, path_of(entry.user_id, entry.detail)
        if way.step < 0:
            told = tags.get(str(detail.get("refund_of")), PLAIN)
            self._figures.refund(path, entry.created_at_ms, entry.amount, told)
            return
        first = first_of(entry.transaction_id, detail)
        is_first = first == entry.transaction_id  # else another one pays for the same request
        told, quantities = (
            tags_of(detail, detail.get("metadata"), reservation) if is_first else (tags.get(first, PLAIN), ())
        )
        if told != PLAIN:
            tags[entry.transaction_id] = told
        self._figures.charge(path, entry.created_at_ms, entry.amount, told, quantities, requests=int(is_first))

    def follow(self, entry: Entry) -> None:
        """Brings the rows of the entry's grants and reservation up to date, and books nothing."""
        if isinstance(entry.kind, Kind):
            self._follow(entry, _WAYS[entry.kind], entry.text("reservation_id"))

    def _follow(self, entry: Entry, way: _Way, reservation_id: str | None) -> None:
        for draw in entry.draws:
            self._grant(entry, way, draw)
        if reservation_id is not None and way.leaves is not None:
            self._reservation(entry, way.leaves, reservation_id)

    def _refuse_to_guess(self, entry: Entry) -> None:
        """Raises `UnknownKind`, unless the entry moves nothing: then there is nothing to know."""
        before = self._known.accounts.get(entry.user_id)
        balances = (before.available, before.reserved, before.debt, before.restricted or 0) if before else (0, 0, 0, 0)
        if entry.draws or balances != (entry.available, entry.reserved, entry.debt, entry.units("restricted")):
            raise UnknownKind(entry.seq, entry.kind)

    def _operation(self, entry: Entry, operation_id: str) -> None:
        fingerprint, answer = entry.text("fingerprint"), answer_of(entry)
        columns = (self._partition, operation_id, entry.transaction_id, fingerprint, answer, entry.created_at_ms)
        self._operations.append(columns)

    def _account(self, entry: Entry, way: _Way) -> None:
        _, seq, _, _, _, kind, user_id, amount, _, available, reserved, debt, at_ms, detail = entry
        values = self._accounts.get(user_id) or self._own_account(user_id)
        if kind is _GRANT and _is_scheduled(entry):
            amount = 0
        restricted = entry.units("restricted") or None if entry.detail else None
        net_before = values["available"] + (values["restricted"] or 0) + values["reserved"] - values["debt"]
        if available + (restricted or 0) + reserved - debt != net_before + way.net * amount:
            self._mismatch(entry, values)
        values["restricted"] = restricted
        values["available"] = available
        values["reserved"] = reserved
        values["debt"] = debt
        values["last_seq"] = seq
        values["updated_at_ms"] = at_ms
        if way.counter is not None:
            values[way.counter] += way.step * amount
            if way.charges and amount:
                values["last_spent_at_ms"] = at_ms
        if kind is _ACCOUNT:
            values.update(configured(entry, values))
        if TOP_UP in detail:
            values["top_up"] = word_after(entry)
            self._top_ups += filter(None, (request_in(entry),))

    def _rename(self, was: str, entry: Entry) -> None:
        """The account goes on under the entry's name; whoever has the old one from then on begins with nothing."""
        known, values = self._known.accounts, self._accounts.get(was) or self._own_account(was)
        self._figures.rename(was, entry.user_id)
        self._renamed.append((was, entry.user_id))
        gone = {"profile": None, "rules": None, "counters": None, "top_up": None}
        row = known[entry.user_id] = row_of(AccountRow, {**values, "user_id": entry.user_id, **gone})
        self._accounts[entry.user_id] = row.__dict__
        empty = known[was] = AccountRow(user_id=was, partition=self._partition, last_seq=entry.seq)
        self._accounts[was] = empty.__dict__

    def _own_account(self, user_id: str) -> Values:
        known = self._known.accounts
        before = known.get(user_id)
        row = known[user_id] = copied(before) if before else AccountRow(user_id=user_id, partition=self._partition)
        values = self._accounts[user_id] = row.__dict__
        return values

    def _mismatch(self, entry: Entry, before: Values) -> None:
        """Balances that do not add up break the chain; after a poison entry they are taken, with an alarm."""
        after = f"{entry.available} + {entry.units('restricted')} + {entry.reserved} - {entry.debt}"
        text = (
            f"{entry.user_id}: {entry.kind} of {entry.amount} at seq {entry.seq} leaves {after} after "
            f"{before['available']} + {before['restricted'] or 0} + {before['reserved']} - {before['debt']}"
        )
        if before["last_seq"] >= self._known.unread_seq:
            raise ChainBroken(f"partition {self._partition}: {text}")
        self._alarm(entry, text)

    def _grant(self, entry: Entry, way: _Way, draw: Draw) -> None:
        grant_id, amount, remaining, reserved = draw
        key = (entry.user_id, grant_id)
        values = self._grants.get(key)
        if values is None or way.makes_a_grant:
            values = self._own_grant(entry, way, key, amount)
        values["remaining"] = remaining
        values["reserved"] = reserved
        if not (remaining and way.of_a_grant is None and values["state"] == "active"):
            is_scheduled, is_made = _is_scheduled(entry), _makes(entry, way, grant_id)
            values["state"] = state_after(
                way.of_a_grant, str(values["state"]), remaining, is_scheduled=is_scheduled, is_made=is_made
            )
        values["pending"] = False
        values["last_seq"] = entry.seq

    def _own_grant(self, entry: Entry, way: _Way, key: tuple[str, str], amount: int) -> Values:
        known = self._known.grants
        row = known.get(key)
        if row is None or _makes(entry, way, key[1]):
            row = known[key] = self._new_grant(entry, way, key[1], amount)
        elif key not in self._grants:
            row = known[key] = copied(row)
        values = self._grants[key] = row.__dict__
        return values

    def _new_grant(self, entry: Entry, way: _Way, grant_id: str, amount: int) -> GrantRow:
        """A grant from its own entry, or the one that a refund made, or (after a poison entry) one of unknown terms."""
        detail, is_made = entry.detail, _makes(entry, way, grant_id)
        if not is_made and entry.kind is not _REFUND:
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
            only=only_of_made(detail, grant_id, is_made=is_made),
            last_seq=entry.seq,
        )

    def _reservation(self, entry: Entry, leaves: ReservationState, reservation_id: str) -> None:
        values = self._reservations.get(reservation_id)
        if values is None or entry.kind is _RESERVE:
            values = self._own_reservation(entry, reservation_id)
        values["last_seq"] = entry.seq
        if leaves == "open":
            draws = [[draw[0], draw[1]] for draw in entry.draws]
            values["amount"] += entry.amount
            values["draws"] = [*values["draws"], *draws] if isinstance(values["draws"], list) else draws
            values["expires_at_ms"] = entry.detail["expires_at"]
        else:
            values["state"] = leaves
            held, charged = in_all(entry.detail, values["amount"], entry.amount if leaves == "committed" else 0)
            values["amount"], values["charged"] = held, charged
            values["ended_at_ms"] = entry.created_at_ms
            values["requested"] = charged + entry.units("uncovered") if leaves == "committed" else entry.amount
            values["answer"] = None if entry.detail.get("withdrawn") else answer_of(entry)

    def _own_reservation(self, entry: Entry, reservation_id: str) -> Values:
        known, is_made = self._known.reservations, entry.kind is _RESERVE
        row = known.get(reservation_id)
        if row is None and not is_made and not self._known.unread_seq:
            raise ChainBroken(f"partition {self._partition}: seq {entry.seq} is of unknown hold {reservation_id}")
        if row is None or is_made:
            row = known[reservation_id] = self._new_reservation(entry, reservation_id)
        else:
            row = known[reservation_id] = copied(row)
        values = self._reservations[reservation_id] = row.__dict__
        return values

    def _new_reservation(self, entry: Entry, reservation_id: str) -> ReservationRow:
        detail = entry.detail
        values: Values = {
            "reservation_id": reservation_id,
            "user_id": entry.user_id,
            "partition": self._partition,
            "amount": 0,
            "charged": 0,
            "state": "open",
            "draws": [],
            "expires_at_ms": detail.get("expires_at", entry.created_at_ms),
            "created_at_ms": entry.created_at_ms,
            "at_end": detail.get("at_end", "release"),
            "ended_at_ms": None,
            "requested": 0,
            "answer": None,
            "reference": entry.text("reference") or own_key(entry.operation_id),
            "price": entry.text("price"),
            "feature": feature_of(detail.get("metadata")) or None,
            "api_key": api_key_of(entry),
            "counted_seq": entry.seq if "counters" in detail else None,
            "tags": entry.text("tags"),
            "last_seq": 0,
        }
        return row_of(ReservationRow, values)

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


def _makes(entry: Entry, way: _Way, grant_id: str) -> bool:
    """Whether the entry is the one that made the grant."""
    return way.makes_a_grant and entry.detail.get("grant_id") == grant_id  # an adjustment that takes has none


def _is_scheduled(entry: Entry) -> bool:
    """Whether the entry is of a grant that begins later: it moves no balance yet."""
    return entry.kind is _GRANT and int(str(entry.detail["effective_at"])) > entry.created_at_ms
