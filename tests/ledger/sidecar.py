"""A sidecar above a store whose worker flushes when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from meter.config import Settings
from meter.ledger.flusher import Flusher
from meter.runtime import Runtime
from meter.store.connect import open_store
from tests.api.sidecar import Api
from tests.servers import Server

URL = "/history/u"


class Sidecar(Api):
    """The HTTP API above a store, and a worker that flushes when it is told to."""

    def __init__(self, http: httpx2.Client, server: Server, store_url: str) -> None:
        super().__init__(http, server.client)
        self._server = server
        self._store_url = store_url

    def flush(self, flush_max: int = 5_000) -> int:
        """One step of a worker that keeps nothing in Redis once the store has it."""
        return asyncio.run(self._flush(flush_max))

    async def _flush(self, flush_max: int) -> int:
        settings = Settings(flush_max=flush_max, outbox_retention_seconds=0, redis_timeout_ms=10_000)
        gateway, store = self._server.gateway(), open_store(self._store_url)
        try:
            async with Runtime(settings, gateway, store) as runtime:
                keys = runtime.engine.partitions[0]
                return await Flusher(gateway, runtime.engine, store, keys, settings).step()
        finally:
            await store.close()
            await gateway.close()

    def rows(self, query: str = "") -> list[dict[str, Any]]:
        """A page of user u's history."""
        items: list[dict[str, Any]] = self.get(URL + query)["items"]
        return items

    def all_pages(self, query: str, limit: int) -> list[int]:
        """The seqs of every page."""
        seen: list[int] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.get(f"{URL}?limit={limit}&cursor={cursor}{query}")
            assert len(page["items"]) <= limit
            seen += [row["seq"] for row in page["items"]]
            cursor = page["next_cursor"]
        return seen
