"""What the worker of a deployment does within a second is done here before a call returns, so that no test waits.

After each call the outbox is flushed to the store: histories, lists, sums and alerts are complete. After the clock has
moved, every job has caught up: what is due has expired, each period that has begun is granted, reminders are made. Only
deliveries wait to be asked for (`await meter.deliver()`, `POST /credits/jobs/deliver`): they leave the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Generic, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

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
        self.runtime = runtime
        self.jobs = jobs
        self._calls = 0

    @asynccontextmanager
    async def following(self, *, clock_moves: bool, waits: bool = False) -> AsyncIterator[None]:
        """Starts what nobody has started, and does what the call inside the block has made due; or while it `waits`."""
        self._calls += 1
        try:
            await self.runtime.start()
            async with self._flushing() if waits else nullcontext():
                yield
            await self._flush()
            for name in CAUGHT_UP if clock_moves else ():
                if name in self.jobs.names:
                    await self.jobs.until_done(name)
                    await self._flush()
        finally:
            self._calls -= 1
            if not self._calls:
                await self.jobs.close()  # in the event loop of its connections, which may end with the test

    @asynccontextmanager
    async def _flushing(self) -> AsyncIterator[None]:
        """Flushes again and again, as a worker does."""

        is_done = False

        async def on_and_on() -> None:
            while not is_done:
                await self._flush()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(on_and_on())
        try:
            yield
        finally:
            is_done = True
            await task

    async def _flush(self) -> None:
        runtime = self.runtime
        if runtime.store is None:
            return
        for keys in runtime.engine.partitions:
            flusher = Flusher(runtime.redis, runtime.engine, runtime.store, keys, runtime.settings)
            while await flusher.step():
                pass


class MeterInStep(Meter):
    """A meter whose calls return when a worker would have done what they make due, in whatever event loop they are
    made: `asyncio.run` makes a new one each time, and so does a `TestClient` outside of its block.
    """

    def __init__(self, settings: Settings, redis: Callable[[], RedisGateway], store: Store | None) -> None:
        super().__init__(settings, redis(), store)
        self._direct = None  # each call goes by a handler, which is followed
        first = dict(self._coroutines), dict(self._served), WorkerInStep(self._runtime, self._jobs)
        self._loops = _OfEachLoop(first, lambda: _parts_of(Meter(settings, redis(), store)))
        self._coroutines.update({name: self._followed(name, 0) for name in first[0]})
        self._served.update({name: self._followed(name, 1) for name in first[1]})

    async def __aenter__(self) -> Self:
        await self._loops.here()[2].runtime.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        worker = self._loops.here()[2]
        await worker.jobs.close()
        await worker.runtime.close()

    def _followed(self, name: str, which: Literal[0, 1]) -> Coroutine:
        """A call by its name, of our own (0) or as others make it over HTTP (1)."""

        async def followed(request: Request) -> Rendered:
            parts = self._loops.here()
            async with parts[2].following(clock_moves=name == "set_clock", waits=name == "anonymise"):
                return await parts[which][name](request)

        return followed


def _parts_of(meter: Meter) -> tuple[dict[str, Coroutine], dict[str, Coroutine], WorkerInStep]:
    return meter._coroutines, meter._served, WorkerInStep(meter._runtime, meter._jobs)


def sidecar_in_step(settings: Settings, redis: Callable[[], RedisGateway], store: Store | None) -> Starlette:
    """The sidecar, each request of which ends when a worker would have done what it makes due; the same in whatever
    event loop it is asked.
    """

    def made() -> tuple[Starlette, WorkerInStep]:
        parts = parts_of(Runtime(settings, redis(), store, role="sidecar"))
        return application_of(parts), WorkerInStep(parts.runtime, parts.jobs)

    app, worker = made()
    app.add_middleware(_Followed, worker=worker, make=made)
    return app


class _Followed:
    """The ASGI side of it, in front of the application of the first event loop."""

    def __init__(self, app: ASGIApp, worker: WorkerInStep, make: Callable[[], tuple[ASGIApp, WorkerInStep]]) -> None:
        self._loops = _OfEachLoop((app, worker), make)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, worker = self._loops.here()
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = scope["path"]
        async with worker.following(clock_moves=path.endswith("/test-clock"), waits=path.endswith("/anonymise")):
            await app(scope, receive, send)


_T = TypeVar("_T")


class _OfEachLoop(Generic[_T]):
    """One for each event loop, made when it is first asked for there; `first` is that of the first loop."""

    def __init__(self, first: _T, make: Callable[[], _T]) -> None:
        self._first: _T | None = first
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, _T] = WeakKeyDictionary()

    def here(self) -> _T:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._make() if self._first is None else self._first
            self._first = None
        return self._made[loop]
