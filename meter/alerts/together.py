"""What attempts ask of the store, many in one transaction: what comes while one is under way goes with the next.

A transaction costs some 2 ms of processor, whatever is in it, and an attempt has two of them and a read: with 290
targets that hang and 8 that do not, that was two thirds of all work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from meter.alerts.passing_on import enabled_webhooks
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.rows import DeliveryRow, WebhookRow

SWAPS_AT_ONCE = 500


class Swaps:
    """Replaces delivery rows by compare-and-set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[DeliveryRow, asyncio.Future[bool]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def swap(self, row: DeliveryRow) -> bool:
        """Whether no other process was first. Raises `Unavailable`."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        await asyncio.sleep(0)  # for the others of this turn
        while self._waiting:
            some, self._waiting = self._waiting[:SWAPS_AT_ONCE], self._waiting[SWAPS_AT_ONCE:]
            try:
                found: Sequence[bool | Exception] = await self._swapped([row for row, _ in some])
            except Exception as error:  # each caller's
                found = [error] * len(some)
            for (_, done), outcome in zip(some, found, strict=True):
                if done.done():
                    continue
                if isinstance(outcome, Exception):
                    done.set_exception(outcome)
                else:
                    done.set_result(outcome)
        self._writer = None

    async def _swapped(self, rows: Sequence[DeliveryRow]) -> list[bool]:
        """All at once; one by one where another process was first with one of them."""
        if len(rows) > 1 and await self._store.commit(Change(rows)):
            return [True] * len(rows)
        return [await self._store.swap(row) for row in rows]


class Webhooks:
    """Reads webhooks as they are after it was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: set[str] = set()
        self._reader: asyncio.Task[Mapping[str, WebhookRow]] | None = None

    async def enabled(self, webhook_id: str) -> WebhookRow | None:
        """A webhook that is enabled. Raises `StoreUnavailable`."""
        self._asked.add(webhook_id)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        return (await asyncio.shield(self._reader)).get(webhook_id)

    async def _read(self) -> Mapping[str, WebhookRow]:
        await asyncio.sleep(0)  # for the others of this turn
        asked, self._asked, self._reader = self._asked, set(), None  # who asks from now on wants to know what is now
        if len(asked) > 1:
            return {row.webhook_id: row for row in await enabled_webhooks(self._store)}
        rows = [await self._store.get(WebhookRow, one) for one in asked]
        return {row.webhook_id: row for row in rows if row is not None and row.state == "enabled"}
