"""PostgreSQL behind a pooler that gives out a server for a transaction at a time (PgBouncer's transaction mode, say).

What a session has is then anybody's: a statement that was prepared in one transaction is gone in the next, or another
client's. So statements have no name and live within a transaction, reads are transactions too, and nothing is set for a
session. That costs three round trips for a read instead of one; a connection without a pooler is used as before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from meter.store.records import to_json

_DURABLE = "SET LOCAL synchronous_commit TO on"

Connect = Callable[..., Awaitable[Any]]
"""A new connection of asyncpg's. Raises `StoreUnavailable`."""


async def look(connect: Connect) -> tuple[bool, bool]:
    """Whether another process answers than the one that was connected to, and whether commits do not wait for the disk
    there.
    """
    connection = await connect(statement_cache_size=0)
    try:
        async with connection.transaction():
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            commit = await connection.fetchval("SELECT current_setting('synchronous_commit')")
        return pid != connection.get_server_pid(), commit == "off"
    finally:
        connection.terminate()


def pooled(connect: Connect, timeout_seconds: float, connections_max: int, *, is_lax: bool) -> AsyncEngine:
    """An engine that leaves nothing in a session."""

    async def connected() -> Any:
        return await connect(statement_cache_size=0)

    def create() -> Any:
        # As SQLAlchemy's own `async_creator` does it, which takes no options of its adapter.
        driver: Any = engine.sync_engine.dialect.dbapi
        return driver.connect(
            async_creator_fn=connected, prepared_statement_cache_size=0, prepared_statement_name_func=lambda: ""
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        creator=create,
        json_serializer=to_json,
        json_deserializer=orjson.loads,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=timeout_seconds,
    )
    dialect: Any = engine.sync_engine.dialect
    # They ask the server what JSON is, each in two steps.
    dialect.setup_asyncpg_json_codec = _in_a_transaction(dialect.setup_asyncpg_json_codec)
    dialect.setup_asyncpg_jsonb_codec = _in_a_transaction(dialect.setup_asyncpg_jsonb_codec)
    if is_lax:
        event.listen(engine.sync_engine, "begin", _wait_for_the_disk)
    return engine


def _in_a_transaction(ask: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def asked(connection: Any) -> None:
        async with connection.driver_connection.transaction():
            await ask(connection)

    return asked


def _wait_for_the_disk(connection: Connection) -> None:
    connection.exec_driver_sql(_DURABLE)
