"""The usage figures in a SQL database: reads as statements, and what changes them besides a flush."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    String,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from meter.clock import DAY_MS, HOUR_MS, NEVER_MS
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.records import R
from meter.store.rows import TransactionRow, WatermarkRow
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.flush import carry_out, usage_steps
from meter.store.sql.queries import Statement
from meter.store.sql.tables import table_of
from meter.store.usage import Added, Key, UsageSum, UsageWanted, next_path, sum_of
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

T = TypeVar("T")

ROLLUP_TIMEOUT_SECONDS = 600.0
"""Forgetting the figures of years takes a while, in which no flush happens."""

_figures, _quantities = table_of(UsageRow), table_of(UsageQuantityRow)
_past, _present = table_of(PastPlanRow).c, table_of(SubscriptionRow).c
_plans = union_all(
    select(_past.user_id, _past.plan_id, _past.from_ms, _past.until_ms),
    select(
        _present.user_id,
        _present.plan_id,
        func.coalesce(_present.plan_since_ms, _present.created_at_ms),
        literal(NEVER_MS, BigInteger()),
    ).where(_present.state != "ended"),
).subquery("plans_had")
_COLUMNS = {
    "user": "path",
    "model": "model",
    "feature": "feature",
    "key": "key_id",
    "rate_card_version": "rate_card_version",
}


class Outdated(Exception):
    """A gap is not what it was: the transaction is to be rolled back."""


class _Level(FunctionElement[str]):
    """The first so many segments of a path."""

    inherit_cache = True
    type = String()

    def __init__(self, path: ColumnElement[str], depth: int) -> None:
        super().__init__(path, literal(depth, literal_execute=True))


@compiles(_Level, "postgresql")
def _(element: _Level, compiler: Any, **options: Any) -> str:
    path, depth = (compiler.process(clause, **options) for clause in element.clauses)
    return f"array_to_string((string_to_array({path}, '/'))[1:{depth}], '/')"


@compiles(_Level, "mysql", "mariadb")
def _(element: _Level, compiler: Any, **options: Any) -> str:
    path, depth = (compiler.process(clause, **options) for clause in element.clauses)
    return f"substring_index({path}, '/', {depth})"


@compiles(_Level, "sqlite")
def _(element: _Level, compiler: Any, **options: Any) -> str:
    """No user_id has a quotation mark or a backslash, so that its segments make an array of JSON."""
    path, depth = (compiler.process(clause, **options) for clause in element.clauses)
    segments = f"""json_each('["' || replace({path}, '/', '","') || '"]')"""
    return f"(SELECT group_concat(value, '/') FROM {segments} WHERE key < {depth})"  # noqa: S608 - our own


def values_in(dialect: SqlDialect, paths: Sequence[str], from_ms: int, to_ms: int) -> Statement:
    """Which models and features those paths have."""
    columns = _figures.c
    during = (columns.bucket_ms >= from_ms, columns.bucket_ms < to_ms)
    paths_of = dialect.among([columns.path], paths)
    return select(columns.path, columns.model, columns.feature).where(paths_of, *during).distinct()


def ledger(partition: int, after_seq: int, until_seq: int, limit: int) -> Statement:
    """The transactions of a partition by seq."""
    table = table_of(TransactionRow)
    wanted = (table.c.partition == partition, table.c.seq > after_seq, table.c.seq <= until_seq)
    return select(table).where(*wanted).order_by(table.c.seq).limit(limit)


async def fill(
    connection: AsyncConnection, dialect: SqlDialect, gap: UsageGapRow, after_seq: int, added: Added
) -> None:
    """Moves a gap, and adds what was in it. Raises `Outdated`."""
    gaps = table_of(UsageGapRow)
    same = [gaps.c[name] == getattr(gap, name) for name in (*UsageGapRow.KEY, "version")]
    moved = update(gaps).where(*same).values(after_seq=after_seq, version=gap.version + 1)
    done = await connection.execute(moved if after_seq < gap.until_seq else delete(gaps).where(*same))
    if done.rowcount != 1:
        raise Outdated
    await carry_out(connection, dialect, usage_steps(added))


async def begin(
    connection: AsyncConnection, dialect: SqlDialect, from_ms: int, bucket_minutes: int, version: int
) -> int:
    """See `UsageStore.begin_rollup`. The locked watermarks keep every flush out."""
    marks, gaps = table_of(WatermarkRow), table_of(UsageGapRow)
    locked = select(marks.c.partition, marks.c.seq, marks.c.bucket_minutes).with_for_update()
    found = (await connection.execute(locked)).all()
    older = await connection.scalar(select(func.min(gaps.c.from_ms)))
    if older is not None:
        from_ms = min(from_ms, older)
    if {minutes for _, _, minutes in found} - {None, bucket_minutes}:
        from_ms = 0
    for table in (_figures, _quantities):
        await connection.execute(delete(table).where(table.c.bucket_ms >= from_ms))
    await connection.execute(delete(gaps))
    made = {"after_seq": 0, "from_ms": from_ms, "version": version}
    rows = [UsageGapRow(partition=at, until_seq=seq, **made) for at, seq, _ in found if seq]
    await dialect.insert(connection, UsageGapRow, rows)
    await connection.execute(update(marks).values(counted_seq=marks.c.seq, bucket_minutes=bucket_minutes))
    return sum(row.until_seq for row in rows)


def sums(wanted: UsageWanted, after: Key, limit: int) -> Statement:
    """Charges and refunds by key, in the order of keys, after that one."""
    inner = _rows(wanted, _figures, *(_figures.c[name] for name in UsageRow.SUMS))
    keys = [inner.c[f"key{at}"] for at in range(len(wanted.group_by))]
    found = select(*keys, *(func.sum(inner.c[name]) for name in UsageRow.SUMS)).where(*_behind(keys, after))
    return found.group_by(*keys).order_by(*keys).limit(limit) if keys else found


def quantities(wanted: UsageWanted, first: Key, last: Key) -> Statement:
    """Quantities by key and dimension, from the one key to the other."""
    inner = _rows(wanted, _quantities, _quantities.c.dimension, _quantities.c.quantity)
    keys = [inner.c[f"key{at}"] for at in range(len(wanted.group_by))]
    found = select(*keys, inner.c.dimension, func.sum(inner.c.quantity))
    if keys:
        found = found.where(keys[0] >= first[0], keys[0] <= last[0])
        found = found.where(_tuple(keys) >= _tuple(first), _tuple(keys) <= _tuple(last))
    return found.group_by(*keys, inner.c.dimension)


def _behind(keys: Sequence[ColumnElement[Any]], after: Key) -> list[ColumnElement[bool]]:
    """The first condition says nothing new: it is the one that an index can be used for."""
    return [keys[0] >= after[0], _tuple(keys) > _tuple(after)] if after else []


def _tuple(parts: Sequence[Any]) -> Any:
    return tuple_(*(part if isinstance(part, ColumnElement) else literal(part) for part in parts))


def _rows(wanted: UsageWanted, table: FromClause, *values: ColumnElement[Any]) -> Any:
    """The wanted rows with their keys, which are made here so that each database sees one expression to group by."""
    keys = [_key(word, table, wanted).label(f"key{at}") for at, word in enumerate(wanted.group_by)]
    chosen: list[ColumnElement[bool]] = []
    if wanted.path is not None:
        path = table.c.path
        is_below = and_(path >= f"{wanted.path}/", path < next_path(wanted.path))
        within = (path >= wanted.path, path < next_path(wanted.path))
        chosen += [path == wanted.path] if wanted.only else [*within, or_(path == wanted.path, is_below)]
    if wanted.from_ms is not None:
        chosen.append(table.c.bucket_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        chosen.append(table.c.bucket_ms < wanted.to_ms)
    source = _with_plans(table, wanted.bucket_ms) if "plan" in wanted.group_by else table
    return select(*keys, *values).select_from(source).where(*chosen).subquery()


def _with_plans(table: FromClause, bucket_ms: int) -> FromClause:
    """Each row with the plans that its user had when its bucket ended."""
    end_ms = table.c.bucket_ms + bucket_ms
    at_the_end = and_(_plans.c.from_ms < end_ms, _plans.c.until_ms >= end_ms)
    return table.outerjoin(_plans, and_(_plans.c.user_id == table.c.path, at_the_end))


def _key(word: str, table: FromClause, wanted: UsageWanted) -> Any:
    if word in _COLUMNS:
        return table.c[_COLUMNS[word]]
    if word.startswith("level_"):
        return _Level(table.c.path, int(word.removeprefix("level_")))
    if word == "plan":
        return func.coalesce(_plans.c.plan_id, "")
    bucket = table.c.bucket_ms
    *earlier, last = wanted.offsets
    offset: Any = last.offset_ms
    if earlier:
        offset = case(*((bucket < one.until_ms, one.offset_ms) for one in earlier), else_=last.offset_ms)
    if word == "day":
        return (bucket + offset) // DAY_MS
    return (bucket + offset) // HOUR_MS * HOUR_MS - offset


def summed(found: Sequence[Sequence[Any]], parts: Sequence[Sequence[Any]], width: int) -> list[UsageSum]:
    """What the two statements found, as one. Some databases have decimals for the sums of integers."""
    by_key: dict[Key, dict[str, int]] = {}
    for row in parts:
        by_key.setdefault(_plain(row[:width]), {})[row[width]] = int(row[width + 1])
    keys = [(_plain(row[:width]), row[width:]) for row in found]
    return [sum_of(key, numbers, by_key.get(key, {})) for key, numbers in keys if numbers[0] is not None]


def _plain(key: Sequence[Any]) -> Key:
    return tuple(part if isinstance(part, str) else int(part) for part in key)


class SqlUsage:
    """What a store is asked about usage; a part of `SqlStore`, which gives the connections."""

    _dialect: SqlDialect

    async def _all(self, model: type[R], statement: Statement) -> list[R]:
        raise NotImplementedError

    async def _rows(self, statement: Select[Any]) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    async def _write(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, timeout_seconds: float | None = None
    ) -> T:
        raise NotImplementedError

    async def usage_values(self, paths: Sequence[str], from_ms: int, to_ms: int) -> list[tuple[str, str, str]]:
        found = await self._rows(values_in(self._dialect, paths, from_ms, to_ms)) if paths else []
        return [(path, model, feature) for path, model, feature in found]

    async def fill_usage_gap(self, gap: UsageGapRow, after_seq: int, added: Added) -> bool:
        try:
            await self._write(lambda connection: fill(connection, self._dialect, gap, after_seq, added))
        except Outdated:
            return False
        return True

    async def begin_rollup(self, from_ms: int, bucket_minutes: int, version: int) -> int:
        def work(connection: AsyncConnection) -> Awaitable[int]:
            return begin(connection, self._dialect, from_ms, bucket_minutes, version)

        return await self._write(work, timeout_seconds=ROLLUP_TIMEOUT_SECONDS)

    async def watermarks(self) -> list[WatermarkRow]:
        marks = table_of(WatermarkRow)
        return await self._all(WatermarkRow, select(marks).order_by(marks.c.partition))

    async def usage_sums(self, wanted: UsageWanted, after: Key, limit: int) -> list[UsageSum]:
        found = await self._rows(sums(wanted, after, limit))
        width = len(wanted.group_by)
        parts = await self._rows(quantities(wanted, tuple(found[0][:width]), tuple(found[-1][:width]))) if found else []
        return summed(found, parts, width)

    async def transactions(self, transaction_ids: Sequence[str]) -> dict[str, TransactionRow]:
        table = table_of(TransactionRow)
        chosen = self._dialect.among([table.c.transaction_id], transaction_ids)
        found = await self._all(TransactionRow, select(table).where(chosen)) if transaction_ids else []
        return {row.transaction_id: row for row in found}

    async def ledger(self, partition: int, after_seq: int, until_seq: int, limit: int) -> list[TransactionRow]:
        return await self._all(TransactionRow, ledger(partition, after_seq, until_seq, limit))
