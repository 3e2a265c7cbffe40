"""SQLite: the default store, one file, one writer at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import URL, ColumnElement, event, func, literal, select, tuple_
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from meter.errors import ConfigError, StoreUnavailable
from meter.store.base import Flush, Flushed, StoreRefused
from meter.store.json_text import json_or_text
from meter.store.records import to_json
from meter.store.row import Row
from meter.store.sql.dialect import SqlDialect, replaced_columns
from meter.store.sql.flush import Fenced
from meter.store.sql.sqlite_writer import SqliteWriter
from meter.store.sql.store import SqlStore
from meter.store.sql.tables import table_of

BUSY_MS_MAX = 15_000
LOCKED_PAUSE_MS = 20
CACHE_KIB = 32_768
READERS_MAX = 4

_BEGIN = "meter_begin"


class SqliteDialect(SqlDialect):
    """Writers of this process queue in `turn`; those of other processes wait for the file, up to the busy timeout.

    BEGIN IMMEDIATE is also the schema lock, and SQLite rolls tables back.
    """

    name = "sqlite"

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._timeout_seconds = timeout_seconds
        self._writing = asyncio.Lock()

    def writer(self, engine: AsyncEngine) -> AsyncEngine:
        # A transaction that begins by reading could not become the writer once another one has written.
        return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with asyncio.timeout(self._timeout_seconds):
            await self._writing.acquire()
        try:
            yield
        finally:
            self._writing.release()

    def among(self, columns: Sequence[ColumnElement[Any]], keys: Sequence[Any]) -> ColumnElement[bool]:
        each = func.json_each(literal(orjson.dumps(keys).decode())).table_valued("value")
        if len(columns) == 1:
            return columns[0].in_(select(each.c.value))
        parts = [func.json_extract(each.c.value, f"$[{at}]") for at in range(len(columns))]
        return tuple_(*columns).in_(select(*parts))

    def insertion(self, model: type[Row]) -> Insert:
        return insert(table_of(model))

    def replacement(self, model: type[Row]) -> Insert:
        table = table_of(model)
        made = insert(table)
        if model.SUMS:
            sums = {name: table.c[name] + made.excluded[name] for name in model.SUMS}
            return made.on_conflict_do_update(index_elements=list(model.KEY), set_=sums)
        return made.on_conflict_do_update(
            index_elements=list(model.KEY),
            set_={name: made.excluded[name] for name in replaced_columns(model)},
            where=table.c.last_seq <= made.excluded.last_seq,
        )


def open_sqlite(url: URL, *, timeout_seconds: float) -> SqlStore:
    """A store in the file that `url` names; its folder is created. Raises `ConfigError` when it names none."""
    if not url.database or url.database == ":memory:":
        raise ConfigError("METER_STORE_URL: SQLite needs a file, sqlite:///path; for tests there is memory://")
    if not url.database.startswith("file:"):
        Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        json_serializer=to_json,
        json_deserializer=json_or_text,
        pool_size=READERS_MAX + 1,
        max_overflow=0,
        pool_timeout=timeout_seconds,
    )
    busy_ms = min(BUSY_MS_MAX, int(timeout_seconds * 1000))
    event.listen(engine.sync_engine, "connect", partial(_configure, busy_ms))
    event.listen(engine.sync_engine, "begin", _begin)
    return SqliteStore(engine, SqliteDialect(timeout_seconds), busy_ms)


class SqliteStore(SqlStore):
    """Flushes in a thread of its own, everything else by way of SQLAlchemy.

    A thread that waits for the file cannot be interrupted: the busy timeout is what bounds a call.
    """

    def __init__(self, engine: AsyncEngine, dialect: SqliteDialect, busy_ms: int) -> None:
        super().__init__(engine, dialect, timeout_seconds=None)
        self._writer_thread = SqliteWriter(partial(_connected, engine, busy_ms), dialect)

    async def apply(self, flush: Flush) -> Flushed:
        with _translated():
            try:
                return await self._run(self._apply(flush))
            except Fenced:
                return Flushed(done=False)

    async def close(self) -> None:
        await self._calls.drain()
        await self._writer_thread.close()
        await super().close()

    async def _apply(self, flush: Flush) -> Flushed:
        async with self._dialect.turn():
            return await self._writer_thread.apply(flush)


@contextmanager
def _translated() -> Iterator[None]:
    """sqlite3's exceptions where SQLAlchemy does not see them; a statement that cannot be run is a bug and passes."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        raise StoreRefused(str(error)) from error
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        raise StoreUnavailable(str(error)) from error


def _connected(engine: AsyncEngine, busy_ms: int) -> sqlite3.Connection:
    """A connection of sqlite3's own to the file of an engine, set up as the engine's are."""
    (path,), told = engine.sync_engine.dialect.create_connect_args(engine.url)
    options: dict[str, Any] = {**told, "isolation_level": None, "check_same_thread": False}
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    _set_up(connection.cursor(), busy_ms, time.sleep)
    return connection


def _configure(busy_ms: int, connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    _set_up(cursor, busy_ms, lambda seconds: await_only(asyncio.sleep(seconds)))
    cursor.close()


def _set_up(cursor: DBAPICursor | sqlite3.Cursor, busy_ms: int, sleep: Callable[[float], object]) -> None:
    cursor.execute(f"PRAGMA busy_timeout = {busy_ms}")
    _write_ahead(cursor, busy_ms, sleep)
    cursor.execute("PRAGMA synchronous = FULL")  # NORMAL may lose the last commits with the power
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def _write_ahead(cursor: DBAPICursor | sqlite3.Cursor, busy_ms: int, sleep: Callable[[float], object]) -> None:
    """Has the file written ahead. The busy timeout does not hold for this: two processes that make a file at one moment
    meet "database is locked" at once, so it is tried again for as long.
    """
    for left in range(busy_ms // LOCKED_PAUSE_MS, -1, -1):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not left or "locked" not in str(error):
                raise
            sleep(LOCKED_PAUSE_MS / 1000)
        else:
            return


def _begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get(_BEGIN)
    if begin is not None:
        connection.exec_driver_sql(begin)
