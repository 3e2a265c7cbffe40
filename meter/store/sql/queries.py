"""The reads of the SQL stores, as statements. Each is one statement, so each sees one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, func, or_, select

from meter.store.row import Row
from meter.store.rows import AccountRow, EventRow, GrantRow, OperationRow, ReservationRow, TransactionRow
from meter.store.sql.tables import table_of

Statement = Select[Any]

_transactions = table_of(TransactionRow).c
_accounts = table_of(AccountRow).c
_grants = table_of(GrantRow).c
_reservations = table_of(ReservationRow).c
_operations = table_of(OperationRow).c
_events = table_of(EventRow).c


def one(model: type[Row], *key: object) -> Statement:
    """The row of a key."""
    columns = table_of(model).c
    return select(table_of(model)).where(*(columns[name] == part for name, part in zip(model.KEY, key, strict=True)))


def _after(first: Column[Any], second: Column[Any], pair: tuple[int, str] | None) -> list[ColumnElement[bool]]:
    """Beyond a pair in the order of two columns, in the form that every planner turns into an index range."""
    if pair is None:
        return []
    return [first >= pair[0], or_(first > pair[0], second > pair[1])]


def _is_live() -> ColumnElement[bool]:
    """An ended grant is live as long as open reservations hold some of it."""
    left = or_(_grants.remaining > 0, _grants.reserved > 0, _grants.state == "scheduled")
    # SQLite would find the grants of some users among all that are not pending, by the index of that column.
    return and_(func.coalesce(_grants.pending, False).is_(False), left)


def pending_grants(created_before_ms: int, limit: int, after: tuple[int, str, str] | None) -> Statement:
    """Grants still pending, oldest first."""
    order = (_grants.created_at_ms, _grants.user_id, _grants.grant_id)
    found = select(table_of(GrantRow)).where(_grants.pending.is_(True), _grants.created_at_ms < created_before_ms)
    if after is not None:
        created_at_ms, user_id, grant_id = after
        same_user = and_(_grants.user_id == user_id, _grants.grant_id > grant_id)
        found = found.where(
            _grants.created_at_ms >= created_at_ms,
            or_(_grants.created_at_ms > created_at_ms, _grants.user_id > user_id, same_user),
        )
    return found.order_by(*order).limit(limit)


def refunded(transaction_id: str) -> Statement:
    """The sum of the refunds of a charge."""
    return select(func.coalesce(func.sum(_transactions.amount), 0)).where(_transactions.refund_of == transaction_id)


def history(
    user_id: str,
    *,
    kinds: Sequence[str] = (),
    reference: str | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    before_seq: int | None = None,
    limit: int,
) -> Statement:
    """A user's transactions, newest first."""
    found = select(table_of(TransactionRow)).where(_transactions.user_id == user_id)
    if kinds:
        found = found.where(_transactions.kind.in_(kinds))
    if reference is not None:
        found = found.where(or_(_transactions.reference == reference, _transactions.operation_id == reference))
    if from_ms is not None:
        found = found.where(_transactions.created_at_ms >= from_ms)
    if to_ms is not None:
        found = found.where(_transactions.created_at_ms < to_ms)
    if before_seq is not None:
        found = found.where(_transactions.seq < before_seq)
    return found.order_by(_transactions.seq.desc()).limit(limit)


def traced(reference: str, *, before: tuple[int, int, int] | None, limit: int) -> Statement:
    """The transactions of a reference, newest first."""
    time, seq, partition = _transactions.created_at_ms, _transactions.seq, _transactions.partition
    found = select(table_of(TransactionRow)).where(_transactions.reference == reference)
    if before is not None:
        at, after_seq, after_partition = before
        earlier = or_(seq < after_seq, and_(seq == after_seq, partition < after_partition))
        found = found.where(or_(time < at, and_(time == at, earlier)))
    return found.order_by(time.desc(), seq.desc(), partition.desc()).limit(limit)


def grants_of(
    user_id: str, *, after: tuple[int, str] | None, limit: int, expires_before_ms: int | None = None
) -> Statement:
    """A user's grants by their making, or the live ones by their end."""
    found = select(table_of(GrantRow)).where(_grants.user_id == user_id)
    order = _grants.created_at_ms
    if expires_before_ms is not None:
        order = _grants.expires_at_ms
        found = found.where(_is_live(), order < expires_before_ms)
    return found.where(*_after(order, _grants.grant_id, after)).order_by(order, _grants.grant_id).limit(limit)


def reservations_of(user_id: str, *, state: str | None, after: tuple[int, str] | None, limit: int) -> Statement:
    """A user's reservations by their making."""
    order, key = _reservations.created_at_ms, _reservations.reservation_id
    found = select(table_of(ReservationRow)).where(_reservations.user_id == user_id, *_after(order, key, after))
    if state is not None:
        found = found.where(_reservations.state == state)
    return found.order_by(order, key).limit(limit)


def scan_accounts(partition: int, after_user_id: str, limit: int) -> Statement:
    """Accounts of a partition by user_id."""
    return (
        select(table_of(AccountRow))
        .where(_accounts.partition == partition, _accounts.user_id > after_user_id)
        .order_by(_accounts.user_id)
        .limit(limit)
    )


def live_grants(users: ColumnElement[bool]) -> Statement:
    """The live grants of some users."""
    return select(table_of(GrantRow)).where(users, _is_live())


def open_reservations(users: ColumnElement[bool]) -> Statement:
    """The open reservations of some users."""
    return select(table_of(ReservationRow)).where(users, _reservations.state == "open")


def operations_since(partition: int, since_ms: int, after: tuple[int, str] | None, limit: int) -> Statement:
    """Operations by the time they were made."""
    order, key = _operations.created_at_ms, _operations.operation_id
    return (
        select(table_of(OperationRow))
        .where(_operations.partition == partition, order >= since_ms, *_after(order, key, after))
        .order_by(order, key)
        .limit(limit)
    )


def reservations_ended_since(partition: int, since_ms: int, after: tuple[int, str] | None, limit: int) -> Statement:
    """Reservations by the time they ended."""
    order, key = _reservations.ended_at_ms, _reservations.reservation_id
    return (
        select(table_of(ReservationRow))
        .where(_reservations.partition == partition, order >= since_ms, *_after(order, key, after))
        .order_by(order, key)
        .limit(limit)
    )


def events(*, kind: str | None, user_id: str | None, before: tuple[int, str] | None, limit: int) -> Statement:
    """Ledger events, newest first."""
    order, key = _events.created_at_ms, _events.event_id
    found = select(table_of(EventRow))
    if kind is not None:
        found = found.where(_events.kind == kind)
    if user_id is not None:
        found = found.where(_events.user_id == user_id)
    if before is not None:
        found = found.where(order <= before[0], or_(order < before[0], key < before[1]))
    return found.order_by(order.desc(), key.desc()).limit(limit)
