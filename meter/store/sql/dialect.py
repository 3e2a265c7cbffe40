"""What differs between the SQL databases, as they do it when nothing better is known of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Dialect, Update, bindparam, tuple_, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from meter.store.records import R
from meter.store.row import Row, VersionedRow
from meter.store.rows import GrantRow, ReservationRow
from meter.store.sql.columns import Columns
from meter.store.sql.tables import table_of

Insert = mysql.Insert | sqlite.Insert

V = TypeVar("V", bound=VersionedRow)

_OLD = "was "  # no column has a blank
_SAID_ONCE = {"description", "metadata", "operation_id", "fingerprint", "reference"}
_MADE_ONCE = {GrantRow: _SAID_ONCE, ReservationRow: {*_SAID_ONCE, "created_at_ms"}}
"""A pending grant gets the time at which Redis made it, which is the one that every list shows."""


def changed_columns(model: type[VersionedRow]) -> list[str]:
    """The columns that a new version may change: SQLite writes each index anew whose columns are named."""
    return [name for name in model.model_fields if name not in model.KEY]


def replaced_columns(model: type[Row]) -> list[str]:
    """The columns that a newer snapshot changes, `last_seq` last: MySQL assigns from left to right."""
    kept = {*model.KEY, *_MADE_ONCE.get(model, ())}
    return [name for name in model.model_fields if name not in kept and name != "last_seq"] + ["last_seq"]


def _swap_of(model: type[VersionedRow]) -> Update:
    """UPDATE of all columns but the key; its last parameter is the version before."""
    table = table_of(model)
    same = [table.c[name] == bindparam(_OLD + name) for name in (*model.KEY, "version")]
    return update(table).where(*same).values({name: bindparam(name) for name in changed_columns(model)})


class SqlDialect:
    """One database family: how it connects its calls, writes many rows, and asks for many keys."""

    name = ""

    def __init__(self) -> None:
        self._columns: dict[type[Row], Any] = {}
        self._statements: dict[tuple[bool, type[Row]], str] = {}
        self._swaps: dict[type[Row], tuple[str, Callable[[tuple[object, ...]], tuple[object, ...]]]] = {}

    def reader(self, engine: AsyncEngine) -> AsyncEngine:
        """The engine of single reads."""
        return engine

    def writer(self, engine: AsyncEngine) -> AsyncEngine:
        """The engine of transactions that write."""
        return engine

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Held by a transaction that writes."""
        yield

    @asynccontextmanager
    async def schema_transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A transaction under the lock that one process at a time holds to create or migrate tables."""
        async with self.writer(engine).begin() as connection:
            yield connection

    def columns(self, model: type[R]) -> Columns[R]:
        """How this database takes rows of a model."""
        found: Columns[R] | None = self._columns.get(model)
        if found is None:
            found = self._columns[model] = Columns(model)
        return found

    def among(self, columns: Sequence[ColumnElement[Any]], keys: Sequence[Any]) -> ColumnElement[bool]:
        """Whether a column is one of `keys`; or several columns, of tuples. One statement, however many keys."""
        return columns[0].in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)

    async def insert(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        """Adds rows; one whose key is there already fails the transaction."""
        if rows:
            await self._execute_many(connection, model, rows, is_snapshot=False)

    async def replace(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        """Puts snapshots in the place of older ones, which keep what was said when they were made."""
        if rows:
            await self._execute_many(connection, model, rows, is_snapshot=True)

    async def swap(self, connection: AsyncConnection, model: type[V], rows: Sequence[V]) -> int:
        """Replaces rows that have the version before; answers how many had it."""
        columns = self.columns(model)
        found = self._swaps.get(model)
        if found is None:
            compiled = _swap_of(model).compile(dialect=connection.dialect)
            names = [name.removeprefix(_OLD) for name in (compiled.positiontup or ())]
            found = self._swaps[model] = str(compiled), itemgetter(*(columns.names.index(name) for name in names[:-1]))
        statement, chosen = found
        # In the order of the keys, so that two processes with the same rows never wait for each other.
        ordered = sorted(rows, key=attrgetter(*model.KEY))
        values = [
            (*chosen(plain), row.version - 1) for plain, row in zip(columns.tuples(ordered), ordered, strict=True)
        ]
        done = await connection.exec_driver_sql(statement, values)
        return done.rowcount

    def insertion(self, model: type[Row]) -> Insert:
        """INSERT of all columns."""
        raise NotImplementedError

    def replacement(self, model: type[Row]) -> Insert:
        """INSERT that replaces an older snapshot."""
        raise NotImplementedError

    def statement(self, model: type[Row], dialect: Dialect, *, is_snapshot: bool) -> str:
        """The text of `insertion` or `replacement`, for the driver's own executemany."""
        found = self._statements.get((is_snapshot, model))
        if found is None:
            made = self.replacement(model) if is_snapshot else self.insertion(model)
            compiled = made.compile(dialect=dialect, column_keys=list(table_of(model).columns.keys()))
            found = self._statements[is_snapshot, model] = str(compiled)
        return found

    async def _execute_many(
        self, connection: AsyncConnection, model: type[R], rows: Sequence[R], *, is_snapshot: bool
    ) -> None:
        """By the driver's own executemany: SQLAlchemy's would build a dictionary per row."""
        statement = self.statement(model, connection.dialect, is_snapshot=is_snapshot)
        await connection.exec_driver_sql(statement, self.columns(model).tuples(rows))
