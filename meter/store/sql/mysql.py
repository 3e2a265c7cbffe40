"""MySQL and MariaDB through asyncmy, on InnoDB."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hashlib import blake2s
from typing import Any

import orjson
from sqlalchemy import URL, ColumnElement, Select, column, event, func, make_url, select, tuple_
from sqlalchemy import text as sql_text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from meter.errors import ConfigError
from meter.store.base import StoreUnavailable
from meter.store.json_text import from_shallow_json, shallow_text, to_shallow_json
from meter.store.records import R
from meter.store.row import Row
from meter.store.rows import GrantRow
from meter.store.sql.columns import Columns
from meter.store.sql.dialect import SqlDialect, replaced_columns
from meter.store.sql.store import SqlStore
from meter.store.sql.tables import table_of

CONNECT_TIMEOUT_SECONDS = 10
CONNECTIONS_MAX = 10
IDLE_SECONDS_MAX = 1800
SCHEMA_LOCK_SECONDS = 300
KEY_CHARS_MAX = 128

_CHECK_NAME = "ssl_check_hostname"
_TLS_OPTIONS = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher", _CHECK_NAME)
_SAID = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

# Without it a text that is too long would be cut off silently.
_STRICT = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"

_NAME_OPERATIONS = sql_text(
    """
    UPDATE grants JOIN JSON_TABLE(:named, '$[*]' COLUMNS (
        user_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[0]',
        grant_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
        operation_id VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[2]'
    )) AS named ON grants.user_id = named.user_id AND grants.grant_id = named.grant_id
    SET grants.operation_id = named.operation_id
    WHERE grants.operation_id IS NULL
    """
)


class MysqlDialect(SqlDialect):
    """ON DUPLICATE KEY UPDATE takes any unique key for the key, so grants get their operation_id on its own."""

    name = "mysql"

    def among(self, columns: Sequence[ColumnElement[Any]], keys: Sequence[Any]) -> ColumnElement[bool]:
        # MariaDB compares a list of tuples with each row it finds, one by one.
        return super().among(columns, keys) if len(columns) == 1 else tuple_(*columns).in_(_keys(len(columns), keys))

    @asynccontextmanager
    async def schema_transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with engine.connect() as connection:
            database = await connection.scalar(select(func.database()))
            name = f"meter_schema_{blake2s(str(database).encode(), digest_size=8).hexdigest()}"
            if await connection.scalar(select(func.get_lock(name, SCHEMA_LOCK_SECONDS))) != 1:
                raise StoreUnavailable(f"another process has held the lock {name} for {SCHEMA_LOCK_SECONDS} s")
            await connection.commit()
            try:
                async with connection.begin():
                    yield connection
            finally:
                await connection.execute(select(func.release_lock(name)))

    def columns(self, model: type[R]) -> Columns[R]:
        found: Columns[R] | None = self._columns.get(model)
        if found is None:
            found = self._columns[model] = Columns(model, json=shallow_text)
        return found

    def insertion(self, model: type[Row]) -> mysql.Insert:
        return mysql.insert(table_of(model))

    def replacement(self, model: type[Row]) -> mysql.Insert:
        table = table_of(model)
        made = mysql.insert(table)
        if model.SUMS:
            return made.on_duplicate_key_update([(name, table.c[name] + made.inserted[name]) for name in model.SUMS])
        is_newer = made.inserted.last_seq >= table.c.last_seq
        return made.on_duplicate_key_update(
            [(name, func.if_(is_newer, made.inserted[name], table.c[name])) for name in replaced_columns(model)]
        )

    async def replace(self, connection: AsyncConnection, model: type[R], rows: Sequence[R]) -> None:
        if model is not GrantRow:
            await super().replace(connection, model, rows)
            return
        grants = [row for row in rows if isinstance(row, GrantRow)]
        bare = [row.model_copy(update={"operation_id": None}) for row in grants]
        await super().replace(connection, GrantRow, bare)
        named = [(row.user_id, row.grant_id, row.operation_id) for row in grants if row.operation_id is not None]
        if named:
            await connection.execute(_NAME_OPERATIONS, {"named": orjson.dumps(named).decode()})


def _keys(width: int, keys: Sequence[Any]) -> Select[*tuple[Any, ...]]:
    """Keys of several texts as a table."""
    names = [f"key{at}" for at in range(width)]
    kind = f"VARCHAR({KEY_CHARS_MAX}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    columns = ", ".join(f"{name} {kind} PATH '$[{at}]'" for at, name in enumerate(names))
    wanted = sql_text(f"JSON_TABLE(:keys, '$[*]' COLUMNS ({columns})) AS wanted")
    chosen: Select[*tuple[Any, ...]] = select(*(column(name) for name in names))
    return chosen.select_from(wanted.bindparams(keys=orjson.dumps(keys).decode()))


def open_mysql(url: URL, *, timeout_seconds: float, read_again: Callable[[], str] | None = None) -> SqlStore:
    """A store in the database of `url`; mysql:// and mariadb:// mean the same driver. `read_again` tells the URL whose
    user and password a new connection has. Raises `ConfigError` for an option of TLS that cannot be used.
    """
    _tls_of(url)  # a wrong one is told now
    family = url.drivername.partition("+")[0]
    engine = create_async_engine(
        url.set(drivername=f"{family}+asyncmy"),
        connect_args={"charset": "utf8mb4", "connect_timeout": CONNECT_TIMEOUT_SECONDS, "init_command": _STRICT},
        isolation_level="READ COMMITTED",  # without the gap locks of the default
        json_serializer=to_shallow_json,
        json_deserializer=from_shallow_json,
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_recycle=IDLE_SECONDS_MAX,
        pool_timeout=timeout_seconds,
    )
    event.listen(engine.sync_engine, "do_connect", partial(_by_tls, url))
    if read_again is not None:
        event.listen(engine.sync_engine, "do_connect", partial(_as_now, read_again))
    return SqlStore(engine, MysqlDialect(), timeout_seconds=timeout_seconds)


def _tls_of(url: URL) -> ssl.SSLContext | None:
    """How the options of a URL want TLS, None where there are none. A server proves itself by the certificates of
    `ssl_ca` or `ssl_capath`, else by the system's: the driver, left alone, checks nothing where neither is named.
    Raises `ConfigError`.
    """
    given = {name: str(url.query[name]) for name in _TLS_OPTIONS if name in url.query}
    if not given:
        return None
    name = next(iter(given))
    try:
        context = ssl.create_default_context()
        if "ssl_ca" in given or "ssl_capath" in given:
            name, context = "ssl_ca" if "ssl_ca" in given else "ssl_capath", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(given.get("ssl_ca"), given.get("ssl_capath"))
        if "ssl_cert" in given:
            name = "ssl_cert"
            context.load_cert_chain(given[name], given.get("ssl_key"))
        elif "ssl_key" in given:
            raise ConfigError(f"METER_STORE_URL: ssl_key={given['ssl_key']}: ssl_cert is missing")
        if "ssl_cipher" in given:
            name = "ssl_cipher"
            context.set_ciphers(given[name])
    except ssl.SSLError as error:
        what = "nothing that can be used" if name == "ssl_cipher" else "no PEM file that can be used"
        raise ConfigError(f"METER_STORE_URL: {name}={given[name]}: {what} ({error})") from None
    except OSError as error:
        raise ConfigError(f"METER_STORE_URL: {name}={given[name]}: {error.strerror}") from None
    said = given.get(_CHECK_NAME, "true")
    if said.lower() not in _SAID:
        raise ConfigError(f"METER_STORE_URL: {_CHECK_NAME}={said}: must be true or false")
    context.check_hostname = _SAID[said.lower()]
    return context


def _by_tls(url: URL, _dialect: object, _record: object, _args: object, options: Any) -> None:
    """Gives a new connection the files of now: certificates are renewed."""
    try:
        context = _tls_of(url)
    except ConfigError as error:
        raise StoreUnavailable(str(error)) from None
    if context is not None:
        options["ssl"] = context


def _as_now(read_again: Callable[[], str], _dialect: object, _record: object, _args: object, options: Any) -> None:
    """Gives a new connection the user and the password of now."""
    url = make_url(read_again())
    options.update(user=url.username, password=url.password or "")
