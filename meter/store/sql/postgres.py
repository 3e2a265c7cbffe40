"""PostgreSQL through asyncpg: rows go in by COPY, snapshots by way of a temporary table."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from zlib import crc32

import asyncpg
import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    TableClause,
    any_,
    column,
    func,
    literal,
    select,
    table,
    tuple_,
    update,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from meter.errors import StoreDenied
from meter.log import logger
from meter.store.base import StoreRefused, StoreUnavailable
from meter.store.records import R, to_json
from meter.store.sql.columns import Columns
from meter.store.sql.dialect import SqlDialect, V, changed_columns, replaced_columns
from meter.store.sql.pooler import Connect, look, pooled
from meter.store.sql.store import SqlStore
from meter.store.sql.tables import table_of

CONNECT_TIMEOUT_SECONDS = 10.0
CONNECTIONS_MAX = 10

_SCHEMA_LOCK = 0x6D65746572  # "meter"
_REFUSALS = ("22", "23")  # SQLSTATE classes: data exception, integrity constraint violation
_DENIED_CLASSES = ("28", "3D")  # who may log in, and which databases there are
_DENIED = ("42501", "42704", "22023", "55P02", "08P01")  # no right to connect; an option that the server does not know
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"


_log = logger("meter.store")


class PostgresDialect(SqlDialect):
    """The temporary tables live as long as a connection; their names tell their columns, so versions can share one."""

    name = "postgresql"

    def reader(self, engine: AsyncEngine) -> AsyncEngine:
        return engine.execution_options(isolation_level="AUTOCOMMIT")  # one round trip instead of three

    @asynccontextmanager
    async def schema_transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with engine.begin() as connection:
            await connection.execute(sql_text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
            yield connection  # the end of the transaction releases the lock

    def columns(self, model: type[R]) -> Columns[R]:
        found: Columns[R] | None = self._columns.get(model)
        if found is None:
            found = self._columns[model] = Columns(model, nul=False)  # a description that has one must not stop a flush
        return found

    def among(self, columns: Sequence[ColumnElement[Any]], keys: Sequence[Any]) -> ColumnElement[bool]:
        if len(columns) == 1:
            return columns[0] == any_(_array(keys))
        parts = [func.unnest(_array([key[at] for key in keys])) for at in range(len(columns))]
        return tuple_(*columns).in_(select(*parts))

    async def insert(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        if rows:
            driver = await self._driver(connection)
            await self._copy(connection, driver, model.TABLE, model, rows)

    async def replace(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        if not rows:
            return
        staging = await self._stage(connection, model, rows)
        made = postgresql.insert(table_of(model)).from_select(self.columns(model).names, select(staging))
        stored = table_of(model).c
        if model.SUMS:
            sums = {name: stored[name] + made.excluded[name] for name in model.SUMS}
            await connection.execute(made.on_conflict_do_update(index_elements=list(model.KEY), set_=sums))
            return
        await connection.execute(
            made.on_conflict_do_update(
                index_elements=list(model.KEY),
                set_={name: made.excluded[name] for name in replaced_columns(model)},
                where=stored.last_seq <= made.excluded.last_seq,
            )
        )

    async def swap(self, connection: AsyncConnection, model: type[V], rows: Sequence[V]) -> int:
        staging, stored = await self._stage(connection, model, rows), table_of(model)
        same = [stored.c[name] == staging.c[name] for name in model.KEY]
        same.append(stored.c["version"] == staging.c["version"] - 1)
        # In the order of the keys, so that two processes with the same rows never wait for each other.
        ordered = select(stored.c["version"]).where(*same).order_by(*(stored.c[name] for name in model.KEY))
        locked = ordered.with_for_update(of=stored).subquery()
        await connection.execute(select(func.count()).select_from(locked))
        values = {name: staging.c[name] for name in changed_columns(model)}
        done = await connection.execute(update(stored).where(*same).values(values))
        return done.rowcount

    async def _stage(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> TableClause:
        """A temporary table with the rows."""
        names = self.columns(model).names
        staging = f"meter_{model.TABLE}_{crc32(','.join(names).encode()):08x}"
        driver = await self._driver(connection)
        with _translated():
            await driver.execute(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (LIKE {model.TABLE}) ON COMMIT DELETE ROWS"
            )
        await self._copy(connection, driver, staging, model, rows)
        return table(staging, *(column(name) for name in names))

    async def _driver(self, connection: AsyncConnection) -> Any:
        """asyncpg's own connection, in the transaction of `connection`, which begins with its first statement."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if not driver.is_in_transaction():
            await connection.execute(sql_text("SELECT 1"))
        return driver

    async def _copy(
        self, connection: AsyncConnection, driver: Any, target: str, model: type[R], rows: Sequence[R]
    ) -> None:
        columns = self.columns(model)
        try:
            with _translated():
                await driver.copy_records_to_table(target, records=columns.tuples(rows), columns=columns.names)
        except asyncio.CancelledError:
            await connection.invalidate()  # a rollback would wait for a server that may be gone
            raise


class PooledDialect(PostgresDialect):
    """Behind a pooler: reads are transactions, too."""

    def reader(self, engine: AsyncEngine) -> AsyncEngine:
        return engine


class PostgresStore(SqlStore):
    """Looks at `open` whether a pooler is in between."""

    def __init__(self, engine: AsyncEngine, connect: Connect, *, timeout_seconds: float) -> None:
        super().__init__(engine, PostgresDialect(), timeout_seconds=timeout_seconds)
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._has_looked = False

    async def open(self, settings: Mapping[str, str]) -> None:
        if not self._has_looked:
            is_pooled, is_lax = await self._run(look(self._connect))
            if is_pooled:
                _log.info("PostgreSQL is behind a pooler: each read is a transaction of its own")
                engine = pooled(self._connect, self._timeout_seconds, CONNECTIONS_MAX, is_lax=is_lax)
                self._use(engine, PooledDialect())
            self._has_looked = True
        await super().open(settings)


def open_postgres(url: str, *, timeout_seconds: float, read_again: Callable[[], str] | None = None) -> SqlStore:
    """A store in the database of a libpq URL; asyncpg reads its parameters (sslmode, host, target_session_attrs, …).
    `read_again` tells the URL of each new connection.
    """

    async def bare(**options: Any) -> Any:
        return await _connected(_dsn(url if read_again is None else read_again()), **options)

    async def connect() -> Any:
        connection = await bare()
        try:
            await connection.execute(_DURABLE)
        except BaseException:
            connection.terminate()
            raise
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        json_serializer=to_json,
        json_deserializer=orjson.loads,
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=timeout_seconds,
    )
    return PostgresStore(engine, bare, timeout_seconds=timeout_seconds)


async def _connected(dsn: str, **options: Any) -> Any:
    """A connection. Raises `StoreDenied` for what waiting does not mend, else `StoreUnavailable`."""
    try:
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_SECONDS, **options)
    except asyncpg.PostgresError as error:
        if str(error.sqlstate)[:2] in _DENIED_CLASSES or error.sqlstate in _DENIED:
            raise StoreDenied(f"METER_STORE_URL: PostgreSQL refuses it ({error.sqlstate}): {error}") from None
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    except (asyncpg.InterfaceError, ValueError, ssl.SSLError) as error:  # SSLError first: it is an OSError, too
        raise StoreDenied(f"METER_STORE_URL: {error}") from None
    except ConnectionError as error:
        if "rejected SSL upgrade" not in str(error):
            raise
        raise StoreDenied(f"METER_STORE_URL: {error}; without TLS it is ?sslmode=disable") from None


def _dsn(url: str) -> str:
    """The URL as asyncpg reads it: it takes members that it does not know for settings of the server."""
    parts = urlsplit(url)
    members = [("sslmode" if name == "ssl" else name, value) for name, value in parse_qsl(parts.query)]
    query = urlencode([(name, value) for name, value in members if name != "channel_binding"])
    return urlunsplit(parts._replace(scheme="postgresql", query=query))


def _array(values: Sequence[Any]) -> ColumnElement[Any]:
    # A text without a length, to which PostgreSQL would cut it.
    kind = BigInteger() if values and isinstance(values[0], int) else String()
    return literal(list(values), postgresql.ARRAY(kind))


@contextmanager
def _translated() -> Iterator[None]:
    """asyncpg's exceptions where SQLAlchemy does not see them."""
    try:
        yield
    except asyncpg.PostgresError as error:
        kind = StoreRefused if str(error.sqlstate)[:2] in _REFUSALS else StoreUnavailable
        raise kind(str(error)) from error
    except ValueError as error:  # a value that the client could not encode
        raise StoreRefused(str(error)) from error
    except asyncpg.InterfaceError as error:
        raise StoreUnavailable(str(error)) from error
