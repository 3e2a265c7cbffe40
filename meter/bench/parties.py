"""The servers of a run, each started when a case first needs it, and whose CPU time is whose."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from meter.bench import ratelimit
from meter.bench.cases import REDIS, SERVER, WORKER, Case
from meter.bench.cpu import snapshot
from meter.bench.floor import floor
from meter.bench.ground import Ground
from meter.bench.options import BenchOptions
from meter.bench.processes import (
    ServerFailed,
    ServerProcess,
    WorkerProcess,
    peer,
    sidecar,
    stream_proxy,
    stream_upstream,
    worker,
)
from meter.dev.redis_server import EmbeddedServer
from meter.store.base import Store
from meter.store.connect import open_store

DRAIN_DEADLINE_SECONDS = 120.0
DRAIN_POLL_SECONDS = 0.05
RETENTION_SECONDS = 1
"""The default is ten minutes: what is trimmed would be trimmed after the run, and would count for nothing."""


class Parties:
    """Opened with `async with`. The worker and its SQLite file are there from the first case on that is metered."""

    def __init__(self, options: BenchOptions, redis: EmbeddedServer, ground: Ground, folder: Path) -> None:
        self._options = options
        self._redis = redis
        self._ground = ground
        self._folder = folder
        self._store_url = f"sqlite:///{folder / 'meter.db'}"
        self._stack = ExitStack()
        self._servers: dict[str, ServerProcess] = {}
        self._worker: WorkerProcess | None = None
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()
        if self._store is not None:
            await self._store.close()

    async def start(self, case: Case) -> ServerProcess:
        """The server of a case, and the worker when it is metered. Raises `ServerFailed`."""
        if WORKER in case.parties:
            await self.start_worker()
        return self._server(case.server, min(self._options.users, case.users_max or self._options.users))

    async def start_worker(self) -> None:
        """`meter worker` on SQLite, once, with everything flushed that is there already."""
        if self._worker is not None:
            return
        url = self._store_url
        settings = self._ground.settings
        self._store = open_store(url)
        await self._store.open({"decimal_places": str(settings.decimal_places), "partitions": str(settings.partitions)})
        self._worker = self._stack.enter_context(
            worker(self._redis.url, url, self._folder, retention_seconds=RETENTION_SECONDS)
        )
        await self.drained()

    def port(self, case: Case) -> int:
        """Where a case that was started is served."""
        return self._servers[case.server].port

    def cpu(self, case: Case) -> dict[str, int]:
        """CPU nanoseconds of a case's parties so far."""
        pids = {SERVER: self._servers[case.server].pid, **self._behind()}
        return snapshot({party: pids[party] for party in case.parties if party in pids})

    def background(self) -> dict[str, int]:
        """CPU nanoseconds of Redis and the worker so far."""
        return snapshot(self._behind())

    async def drained(self) -> None:
        """Returns when the store has everything. Raises `ServerFailed` when the worker ended, or takes too long."""
        if self._worker is None or self._store is None:
            return
        state = await self._ground.gateway.partition_state(self._ground.keys.meta)
        wanted, deadline = state.seq if state else 0, time.monotonic() + DRAIN_DEADLINE_SECONDS
        while True:
            watermark = await self._store.watermark(0)
            if watermark is not None and watermark.seq >= wanted:
                return
            self._worker.check()
            if time.monotonic() > deadline:
                raise ServerFailed(f"the worker has not flushed everything after {DRAIN_DEADLINE_SECONDS:g} s")
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    def _behind(self) -> dict[str, int]:
        found = {REDIS: self._redis.pid}
        return found if self._worker is None else {**found, WORKER: self._worker.pid}

    def _server(self, name: str, users: int) -> ServerProcess:
        if name not in self._servers:
            self._servers[name] = self._started(name, users)
        return self._servers[name]

    def _started(self, name: str, users: int) -> ServerProcess:
        url, folder = self._redis.url, self._folder
        match name:
            case "floor":
                opening = floor(folder)
            case "sidecar":
                opening = sidecar(url, folder, self._store_url)
            case "upstream":
                opening = stream_upstream(folder)
            case "proxy":
                opening = stream_proxy(url, self._server("upstream", users).port, folder, self._store_url)
            case "ratelimit":
                opening = ratelimit.served(self._options.ratelimit or "", url, folder)
            case _:
                opening = peer(name, url, users, folder)
        return self._stack.enter_context(opening)
