"""A flush in a SQL database: one transaction, whose first statement moves the watermark or finds that it has moved."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from meter.store.base import Flush, Flushed
from meter.store.records import R
from meter.store.repeats import new_operations, own_operations
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
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.tables import table_of

_watermarks = table_of(WatermarkRow)


class Fenced(Exception):
    """The watermark is not the expected one: the transaction is to be rolled back."""


async def move_watermark(connection: AsyncConnection, expected: WatermarkRow | None, reached: WatermarkRow) -> None:
    """Moves the watermark and keeps its row locked until the transaction ends. Raises `Fenced`."""
    if expected is None:
        try:
            await connection.execute(insert(_watermarks).values(reached.model_dump()))
        except IntegrityError:
            raise Fenced from None
        return
    moved = await connection.execute(
        update(_watermarks)
        .where(
            _watermarks.c.partition == expected.partition,
            _watermarks.c.epoch == expected.epoch,
            _watermarks.c.seq == expected.seq,
            _watermarks.c.head == expected.head,
        )
        .values(reached.model_dump(exclude={"partition"}))
    )
    if moved.rowcount != 1:
        raise Fenced


async def apply_flush(connection: AsyncConnection, dialect: SqlDialect, flush: Flush) -> Flushed:
    """Writes a flush. Raises `Fenced`, and what the database raises; the caller commits or rolls back."""
    await move_watermark(connection, flush.expected, flush.reached)
    await dialect.insert(connection, TransactionRow, flush.transactions)
    operations, repeated = await _new_operations(connection, dialect, flush)
    await dialect.insert(connection, OperationRow, operations)
    grants, doubled = await _own_operations(connection, dialect, flush)
    await dialect.replace(connection, AccountRow, flush.accounts)
    await dialect.replace(connection, GrantRow, grants)
    await dialect.replace(connection, ReservationRow, flush.reservations)
    await insert_missing(connection, dialect, AlertRow, flush.alerts)
    await insert_missing(connection, dialect, EventRow, flush.events)
    await dialect.insert(connection, QuarantineRow, flush.quarantine)
    return Flushed(done=True, repeated_operations=tuple(dict.fromkeys([*repeated, *doubled])))


async def insert_missing(connection: AsyncConnection, dialect: SqlDialect, model: type[R], rows: Sequence[R]) -> int:
    """Adds the rows whose keys are not there yet, and answers how many; the others stay as they are."""
    if not rows:
        return 0
    columns = [table_of(model).c[name] for name in model.KEY]
    new = {tuple(getattr(row, name) for name in model.KEY): row for row in reversed(rows)}
    keys = [key[0] if len(key) == 1 else key for key in new]
    for known in await connection.execute(select(*columns).where(dialect.among(columns, keys))):
        del new[tuple(known)]
    await dialect.insert(connection, model, list(new.values()))
    return len(new)


async def _new_operations(
    connection: AsyncConnection, dialect: SqlDialect, flush: Flush
) -> tuple[list[OperationRow], list[str]]:
    """See `repeats.new_operations`. Without a race: only who holds the watermark adds operations of its partition."""
    if not flush.operations:
        return [], []
    columns = table_of(OperationRow).c
    found = await connection.execute(
        select(columns.operation_id, columns.transaction_id).where(
            columns.partition == flush.partition,
            dialect.among([columns.operation_id], [operation.operation_id for operation in flush.operations]),
        )
    )
    return new_operations(flush.operations, dict(found.all()))


async def _own_operations(
    connection: AsyncConnection, dialect: SqlDialect, flush: Flush
) -> tuple[Sequence[GrantRow], list[str]]:
    """See `repeats.own_operations`."""
    keys = [grant.operation_id for grant in flush.grants if grant.operation_id is not None]
    if not keys:
        return flush.grants, []
    columns = table_of(GrantRow).c
    found = await connection.execute(
        select(columns.operation_id, columns.user_id, columns.grant_id).where(
            columns.partition == flush.partition, dialect.among([columns.operation_id], keys)
        )
    )
    return own_operations(flush.grants, {operation_id: (user, grant) for operation_id, user, grant in found})
