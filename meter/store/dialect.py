"""What differs between the SQL databases, as they do it when nothing better is known of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from meter.store.columns import Columns, R
from meter.store.rows import GrantRow, ReservationRow, Row
from meter.store.tables import table_of

Insert = mysql.Insert | sqlite.Insert

_MADE_ONCE = frozenset({"created_at_ms", "description", "metadata", "operation_id", "fingerprint"})


def to_json(value: object) -> str:
    """The JSON text of a column."""
    return orjson.dumps(value).decode()


def replaced_columns(model: type[Row]) -> list[str]:
    """The columns that a newer snapshot changes, `last_seq` last: MySQL assigns from left to right."""
    kept = set(model.KEY) | (_MADE_ONCE if model in (GrantRow, ReservationRow) else set())
    return [name for name in model.model_fields if name not in kept and name != "last_seq"] + ["last_seq"]


class SqlDialect:
    """One database family: how it connects its calls, writes many rows, and asks for many keys."""

    name = ""

    def __init__(self) -> None:
        self._columns: dict[type[Row], Any] = {}
        self._statements: dict[tuple[str, type[Row]], str] = {}

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
            found = self._columns[model] = Columns(model, json=to_json)
        return found

    def among(self, columns: Sequence[ColumnElement[Any]], keys: Sequence[Any]) -> ColumnElement[bool]:
        """Whether a column is one of `keys`; or several columns, of tuples. One statement, however many keys."""
        return columns[0].in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)

    async def insert(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        """Adds rows; one whose key is there already fails the transaction."""
        if rows:
            await self._execute_many(connection, model, rows, "insert")

    async def replace(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        """Puts snapshots in the place of older ones, which keep what was said when they were made."""
        if rows:
            await self._execute_many(connection, model, rows, "replace")

    def insertion(self, model: type[Row]) -> Insert:
        """INSERT of all columns."""
        raise NotImplementedError

    def replacement(self, model: type[Row]) -> Insert:
        """INSERT that replaces an older snapshot."""
        raise NotImplementedError

    async def _execute_many(self, connection: AsyncConnection, model: type[R], rows: Sequence[R], verb: str) -> None:
        """By the driver's own executemany: SQLAlchemy's would build a dictionary per row."""
        statement = self._statements.get((verb, model))
        if statement is None:
            made = self.insertion(model) if verb == "insert" else self.replacement(model)
            compiled = made.compile(dialect=connection.dialect, column_keys=list(table_of(model).columns.keys()))
            statement = self._statements[verb, model] = str(compiled)
        await connection.exec_driver_sql(statement, self.columns(model).tuples(rows))
