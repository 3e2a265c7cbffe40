"""Where anything names a user: every row of a store and every key of a server, read as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from meter.ledger.flusher import Flusher
from meter.store.base import Store
from meter.store.memory.store import MemoryStore
from meter.store.row import Row
from meter.store.rows import ROWS


async def rows_of(store: Store) -> list[Row]:
    """Every row."""
    if isinstance(store, MemoryStore):
        tables = store._tables
        own: list[dict[Any, Any]] = [tables.watermarks, tables.transactions, tables.accounts, tables.reservations]
        found: list[Row] = [row for table in [*own, *tables.catalog.values()] for row in table.values()]
        return found + [row for rows in tables.by_user.values() for row in rows]
    return [row for model in ROWS for row in await store.find(model, {}, order_by=model.KEY[0], limit=100_000)]


async def rows_naming(store: Store, name: str) -> list[Row]:
    """The rows that have the name in any column, and lists that the store keeps by it."""
    kept = [repr(key) for key in store._tables.by_user] if isinstance(store, MemoryStore) else []
    assert name.casefold() not in repr(kept).casefold()
    return [row for row in await rows_of(store) if name.casefold() in repr(row).casefold()]


def keys_naming(client: Any, name: str) -> list[str]:
    """The keys of a server that have the name in any member, field or value."""
    readers = {
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1),
        "stream": client.xrange,
    }
    found = []
    for key in client.keys("*"):
        text = repr((key, readers[client.type(key).decode()](key)))
        if name.casefold() in text.casefold():
            found.append(text)
    return found


@asynccontextmanager
async def working(flusher: Flusher) -> AsyncIterator[None]:
    """A worker that flushes meanwhile."""

    is_done = False

    async def on_and_on() -> None:
        while not is_done:
            await flusher.step()
            await asyncio.sleep(0.001)

    task = asyncio.create_task(on_and_on())
    try:
        yield
    finally:
        is_done = True
        await task
