"""The catalog on a SQL database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from meter.store.base import StoreRefused
from meter.store.catalog import Change, Count, Plain, as_it_was, by_model
from meter.store.row import Row, VersionedRow
from meter.store.shared import RACES_MAX
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.flush import insert_missing
from meter.store.sql.queries import Statement
from meter.store.sql.tables import table_of

R = TypeVar("R", bound=Row)
V = TypeVar("V", bound=VersionedRow)
T = TypeVar("T")


class Outrun(Exception):
    """Another process was first: the transaction is to be rolled back."""


class SqlCatalog:
    """Rows that people make and change; a part of `SqlStore`, which gives the connections."""

    _dialect: SqlDialect

    async def _all(self, model: type[R], statement: Statement) -> list[R]:
        raise NotImplementedError

    async def _write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        raise NotImplementedError

    async def get(self, model: type[R], *key: Plain) -> R | None:
        columns = table_of(model).c
        same = [columns[name] == part for name, part in zip(model.KEY, key, strict=True)]
        found = await self._all(model, select(table_of(model)).where(*same))
        return found[0] if found else None

    async def insert(self, row: Row) -> bool:
        try:
            await self._write(lambda connection: self._dialect.insert(connection, type(row), [row]))
        except StoreRefused:
            return False
        return True

    async def swap(self, row: VersionedRow) -> bool:
        return await self._write(lambda connection: _swap_one(connection, row)) == 1

    async def insert_many(self, rows: Sequence[Row]) -> int:
        attempt = 1
        while rows:
            try:
                return await self._write(
                    lambda connection: insert_missing(connection, self._dialect, type(rows[0]), rows)
                )
            except StoreRefused:  # another process may have added one of them in between
                if attempt == RACES_MAX:
                    raise
                attempt += 1
        return 0

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        if not rows:
            return 0
        return await self._write(lambda connection: self._dialect.swap(connection, type(rows[0]), rows))

    async def commit(self, change: Change) -> bool:
        attempt = 1
        while True:
            try:
                await self._write(lambda connection: self._commit(connection, change))
                return True
            except Outrun:
                return False
            except StoreRefused:
                if await self._is_any_there(change.new):
                    return False
                if attempt == RACES_MAX:  # not that another process added one of the missing rows in between
                    raise
                attempt += 1

    async def _commit(self, connection: AsyncConnection, change: Change) -> None:
        for count in change.counts:
            if await _count_one(connection, count) != 1:
                raise Outrun
        for swapped in by_model(change.swaps):
            if await self._swap(connection, swapped) < len(swapped):
                raise Outrun
        for new in by_model(change.new):
            await self._dialect.insert(connection, type(new[0]), new)
        for missing in by_model(change.missing):
            await insert_missing(connection, self._dialect, type(missing[0]), missing)

    async def _swap(self, connection: AsyncConnection, rows: Sequence[V]) -> int:
        if len(rows) == 1:
            return await _swap_one(connection, rows[0])
        return await self._dialect.swap(connection, type(rows[0]), rows)

    async def _is_any_there(self, rows: Sequence[Row]) -> bool:
        found = [await self.get(type(row), *(getattr(row, name) for name in row.KEY)) for row in rows]
        return any(row is not None for row in found)

    async def remove(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        await self._write(lambda connection: self._delete(connection, rows, type(rows[0]).KEY))

    async def rewrite(self, old: Sequence[R], new: Sequence[R]) -> bool:
        try:
            await self._write(lambda connection: self._rewrite(connection, old, new))
        except Outrun:
            return False
        return True

    async def _rewrite(self, connection: AsyncConnection, old: Sequence[R], new: Sequence[R]) -> None:
        if await self._delete(connection, old, as_it_was(type(old[0]))) < len(old):
            raise Outrun
        await self._dialect.insert(connection, type(old[0]), new)

    async def _delete(self, connection: AsyncConnection, rows: Sequence[Row], names: Sequence[str]) -> int:
        """Deletes the rows that have those values; answers how many there were."""
        table = table_of(type(rows[0]))
        values = [tuple(getattr(row, name) for name in names) for row in rows]
        same = self._dialect.among(
            [table.c[name] for name in names], values if len(names) > 1 else [value[0] for value in values]
        )
        return (await connection.execute(delete(table).where(same))).rowcount

    async def due(self, model: type[R], state: str, time: str, until: int, limit: int) -> list[R]:
        table = table_of(model)
        wanted = (table.c["state"] == state, table.c[time] <= until)
        return await self._all(model, select(table).where(*wanted).order_by(table.c[time]).limit(limit))

    async def find(
        self,
        model: type[R],
        equal: Mapping[str, Plain],
        *,
        order_by: str,
        until: int | None = None,
        after: Sequence[Plain] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[R]:
        columns = table_of(model).c
        order = [columns[name] for name in dict.fromkeys((order_by, *model.KEY))]
        wanted: list[ColumnElement[bool]] = [columns[name] == value for name, value in equal.items()]
        if until is not None:
            wanted.append(columns[order_by] <= until)
        if after is not None:  # the first condition says nothing new: it is the one that an index can be used for
            wanted.append(order[0] <= after[0] if descending else order[0] >= after[0])
            wanted.append(
                or_(
                    *(
                        and_(
                            *(order[n] == after[n] for n in range(at)),
                            order[at] < after[at] if descending else order[at] > after[at],
                        )
                        for at in range(len(order))
                    )
                )
            )
        ordered = [column.desc() for column in order] if descending else order
        statement = select(table_of(model)).where(*wanted).order_by(*ordered).limit(limit)
        return await self._all(model, statement)


async def _swap_one(connection: AsyncConnection, row: VersionedRow) -> int:
    """Replaces a row that has the version before; answers how many had it."""
    table = table_of(type(row))
    same = [table.c[name] == getattr(row, name) for name in row.KEY]
    changed = update(table).where(*same, table.c.version == row.version - 1).values(row.__dict__)
    return (await connection.execute(changed)).rowcount


async def _count_one(connection: AsyncConnection, count: Count) -> int:
    """Counts one more; answers how many rows there were to count in."""
    table, row = table_of(type(count.row)), count.row
    column = table.c[count.column]
    same = [table.c[name] == getattr(row, name) for name in row.KEY]
    counted = (
        update(table)
        .where(*same, table.c["state"] == count.state, column < count.most)
        .values({count.column: column + 1, "version": table.c.version + 1})
    )
    return (await connection.execute(counted)).rowcount
