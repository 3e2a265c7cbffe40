"""A flush in a SQL database: one transaction, whose first statement moves the watermark or finds that it has moved.

What is written is said once, as steps; a driver carries them out, awaiting each or in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Update, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from meter.store.base import Flush, Flushed
from meter.store.key_rows import REVOKED, ApiKeyRow
from meter.store.records import R
from meter.store.repeats import new_operations, own_operations
from meter.store.row import Row
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
from meter.store.top_up_rows import TopUpRow
from meter.store.usage import Added
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

T = TypeVar("T")

PLACE = ("partition", "epoch", "seq", "head")
"""What a watermark must be for a flush to count from it."""

_watermarks = table_of(WatermarkRow)


class Fenced(Exception):
    """The watermark is not the expected one: the transaction is to be rolled back."""


@dataclass(frozen=True, slots=True)
class Move:
    """Moves the watermark and keeps its row locked until the transaction ends. Raises `Fenced`."""

    expected: WatermarkRow | None
    reached: WatermarkRow


@dataclass(frozen=True, slots=True)
class Put:
    """Adds rows, or puts snapshots in the place of older ones; rows that have `SUMS` are added to those."""

    model: type[Row]
    rows: Sequence[Row]
    is_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks for some columns of the rows whose columns `by` are among `keys`; of one partition, or of all."""

    model: type[Row]
    columns: tuple[str, ...]
    by: tuple[str, ...]
    keys: Sequence[Any]
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Rename:
    """Gives the usage figures of a path to another one."""

    was: str
    path: str


@dataclass(frozen=True, slots=True)
class Outdate:
    """Lets nobody go on with what was read for the usage gaps of a partition."""

    partition: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Revokes API keys, but those that are."""

    key_ids: Sequence[str]


Step = Move | Put | Ask | Rename | Outdate | Revoke
Steps = Generator[Step, Sequence[Any], T]
"""What is answered to each: the rows of an `Ask`, else nothing that matters."""


def flush_steps(flush: Flush) -> Steps[Flushed]:
    """Writes a flush."""
    yield Move(flush.expected, flush.reached)
    yield Put(TransactionRow, flush.transactions)
    operations, repeated = yield from _new_operations(flush)
    yield Put(OperationRow, operations)
    grants, doubled = yield from _own_operations(flush)
    yield Put(AccountRow, flush.accounts, is_snapshot=True)
    yield Put(GrantRow, grants, is_snapshot=True)
    yield Put(ReservationRow, flush.reservations, is_snapshot=True)
    yield from _missing(AlertRow, flush.alerts)
    yield from _missing(TopUpRow, flush.top_ups)
    yield from _missing(EventRow, flush.events)
    yield Put(QuarantineRow, flush.quarantine)
    if flush.revoked_keys:
        yield Revoke(flush.revoked_keys)
    if flush.renamed:
        yield Outdate(flush.partition)
    for was, path in flush.renamed:
        yield Rename(was, path)
    yield from usage_steps(flush.usage)
    yield from _missing(UsageGapRow, flush.gaps)
    return Flushed(done=True, repeated_operations=tuple(dict.fromkeys([*repeated, *doubled])))


def usage_steps(added: Added) -> Steps[None]:
    """Adds to the usage figures."""
    yield Put(UsageRow, added.figures, is_snapshot=True)
    yield Put(UsageQuantityRow, added.quantities, is_snapshot=True)


def _missing(model: type[R], rows: Sequence[R]) -> Steps[int]:
    if not rows:
        return 0
    new = {tuple(getattr(row, name) for name in model.KEY): row for row in reversed(rows)}
    keys = [key[0] if len(key) == 1 else key for key in new]
    for known in (yield Ask(model, model.KEY, model.KEY, keys)):
        del new[tuple(known)]
    yield Put(model, list(new.values()))
    return len(new)


def _new_operations(flush: Flush) -> Steps[tuple[Sequence[OperationRow], list[str]]]:
    """See `repeats.new_operations`. Without a race: only who holds the watermark adds operations of its partition."""
    if not flush.operations:
        return (), []
    keys = [operation.operation_id for operation in flush.operations]
    asked = Ask(OperationRow, ("operation_id", "transaction_id"), ("operation_id",), keys, flush.partition)
    stored = {operation_id: transaction_id for operation_id, transaction_id in (yield asked)}  # noqa: C416 - rows
    return new_operations(flush.operations, stored)


def _own_operations(flush: Flush) -> Steps[tuple[Sequence[GrantRow], list[str]]]:
    """See `repeats.own_operations`."""
    keys = [grant.operation_id for grant in flush.grants if grant.operation_id is not None]
    if not keys:
        return flush.grants, []
    asked = Ask(GrantRow, ("operation_id", "user_id", "grant_id"), ("operation_id",), keys, flush.partition)
    return own_operations(flush.grants, {operation_id: (user, grant) for operation_id, user, grant in (yield asked)})


async def apply_flush(connection: AsyncConnection, dialect: SqlDialect, flush: Flush) -> Flushed:
    """Writes a flush. Raises `Fenced`, and what the database raises; the caller commits or rolls back."""
    return await carry_out(connection, dialect, flush_steps(flush))


async def insert_missing(connection: AsyncConnection, dialect: SqlDialect, model: type[R], rows: Sequence[R]) -> int:
    """Adds the rows whose keys are not there yet, and answers how many; the others stay as they are."""
    return await carry_out(connection, dialect, _missing(model, rows))


async def carry_out(connection: AsyncConnection, dialect: SqlDialect, steps: Steps[T]) -> T:
    """Carries steps out in a transaction."""
    answer: Sequence[Any] = ()
    try:
        step = next(steps)
        while True:
            match step:
                case Move():
                    await _move(connection, step)
                case Put():
                    put = dialect.replace if step.is_snapshot else dialect.insert
                    await put(connection, step.model, step.rows)
                case Ask():
                    answer = await _ask(connection, dialect, step)
                case Rename() | Outdate() | Revoke():
                    for statement in updates_of(step):
                        await connection.execute(statement)
            step = steps.send(answer)
    except StopIteration as end:
        done: T = end.value
        return done


def updates_of(step: Rename | Outdate | Revoke) -> list[Update]:
    """What such a step is in SQL."""
    if isinstance(step, Revoke):
        keys = table_of(ApiKeyRow)
        live = update(keys).where(keys.c.state != REVOKED).values(state=REVOKED, version=keys.c.version + 1)
        return [live.where(keys.c.key_id == key_id) for key_id in step.key_ids]
    if isinstance(step, Outdate):
        gaps = table_of(UsageGapRow)
        return [update(gaps).where(gaps.c.partition == step.partition).values(version=gaps.c.version + 1)]
    tables = (table_of(UsageRow), table_of(UsageQuantityRow))
    return [update(table).where(table.c.path == step.was).values(path=step.path) for table in tables]


async def _move(connection: AsyncConnection, move: Move) -> None:
    expected, reached = move.expected, move.reached
    if expected is None:
        try:
            await connection.execute(insert(_watermarks).values(reached.model_dump()))
        except IntegrityError:
            raise Fenced from None
        return
    same_buckets = _watermarks.c.bucket_minutes.is_not_distinct_from(expected.bucket_minutes)
    moved = await connection.execute(
        update(_watermarks)
        .where(*(_watermarks.c[name] == getattr(expected, name) for name in PLACE), same_buckets)
        .values(reached.model_dump(exclude={"partition"}))
    )
    if moved.rowcount != 1:
        raise Fenced


async def _ask(connection: AsyncConnection, dialect: SqlDialect, ask: Ask) -> Sequence[Any]:
    columns = table_of(ask.model).c
    wanted: list[ColumnElement[bool]] = [dialect.among([columns[name] for name in ask.by], ask.keys)]
    if ask.partition is not None:
        wanted.append(columns["partition"] == ask.partition)
    return (await connection.execute(select(*(columns[name] for name in ask.columns)).where(*wanted))).all()
