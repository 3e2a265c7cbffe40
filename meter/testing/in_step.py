"""What the worker of a deployment does within a second is done here before a call returns, so that no test waits.

After each call the outbox is flushed to the store: histories, lists, sums and alerts are complete. After the clock has
moved, every job has caught up: what is due has expired, each period that has begun is granted, reminders are made. Only
deliveries wait to be asked for (`await meter.deliver()`, `POST /credits/jobs/deliver`): they leave the machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from meter.app import application_of, parts_of
from meter.config import Settings
from meter.engine.redis import RedisGateway
from meter.http.exchange import Coroutine, Request
from meter.http.rendered import Rendered
from meter.in_process import Meter
from meter.jobs import Jobs
from meter.ledger.flusher import Flusher
from meter.runtime import Runtime
from meter.store.base import Store

CAUGHT_UP = ("expire", "allocate", "pending", "remind")
"""The jobs that follow the clock, in the order in which one makes work for the next."""


class WorkerInStep:
    """A worker that does its work when it is told to."""

    def __init__(self, runtime: Runtime, jobs: Jobs) -> None:
        self._runtime = runtime
        self._jobs = jobs
        self._calls = 0

    @asynccontextmanager
    async def following(self, *, clock_moves: bool) -> AsyncIterator[None]:
        """Starts what nobody has started, and does what the call inside the block has made due."""
        self._calls += 1
        try:
            await self._runtime.start()
            yield
            await self._flush()
            for name in CAUGHT_UP if clock_moves else ():
                if name in self._jobs.names:
                    await self._jobs.until_done(name)
                    await self._flush()
        finally:
            self._calls -= 1
            if not self._calls:
                await self._jobs.close()  # in the event loop of its connections, which may end with the test

    async def _flush(self) -> None:
        runtime = self._runtime
        if runtime.store is None:
            return
        for keys in runtime.engine.partitions:
            flusher = Flusher(runtime.redis, runtime.engine, runtime.store, keys, runtime.settings)
            while await flusher.step():
                pass


class MeterInStep(Meter):
    """A meter whose calls return when a worker would have done what they make due."""

    def __init__(self, settings: Settings, redis: RedisGateway, store: Store | None) -> None:
        super().__init__(settings, redis, store)
        self._worker = WorkerInStep(self._runtime, self._jobs)
        self._coroutines.update({name: self._followed(name, run) for name, run in self._coroutines.items()})

    def _followed(self, name: str, run: Coroutine) -> Coroutine:
        async def followed(request: Request) -> Rendered:
            async with self._worker.following(clock_moves=name == "set_clock"):
                return await run(request)

        return followed


def app_in_step(settings: Settings, redis: RedisGateway, store: Store | None) -> Starlette:
    """The sidecar, each request of which ends when a worker would have done what it makes due."""
    parts = parts_of(Runtime(settings, redis, store, role="sidecar"))
    app = application_of(parts)
    app.add_middleware(_Followed, worker=WorkerInStep(parts.runtime, parts.jobs))
    return app


class _Followed:
    """The ASGI side of it."""

    def __init__(self, app: ASGIApp, worker: WorkerInStep) -> None:
        self._app = app
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with self._worker.following(clock_moves=scope["path"].endswith("/test-clock")):
            await self._app(scope, receive, send)
