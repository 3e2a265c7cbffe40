"""A deployment for tests of plans: a sidecar in process and one over HTTP, on one Redis and one store, and the jobs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from fakeredis import FakeServer

from meter import Credits, Meter, MeterClient, Refusal
from meter.contract import answers, plans
from meter.engine.engine import Engine
from meter.jobs import Jobs
from meter.ledger.flusher import Flusher
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.memory.store import open_memory
from meter.testing import fake_app, fake_redis, fake_settings
from meter.worker.context import Context
from meter.worker.jobs import allocate, expire
from tests.api.sidecar import serving

T = TypeVar("T")


def done(answer: T | Refusal) -> T:
    """An answer that must not be a refusal."""
    assert not isinstance(answer, Refusal), answer
    return answer


def refusal(answer: object) -> Refusal:
    """An answer that must be a refusal."""
    assert isinstance(answer, Refusal), answer
    return answer


def pointers(answer: object) -> set[str]:
    """Where a refused body is wrong."""
    members = refusal(answer).model_dump()
    assert members["status"] == 422, members
    return {str(error["pointer"]) for error in members["errors"]}


@dataclass
class Town:
    """`meter` is what is called; jobs run on `runtime`, as in a worker."""

    meter: Credits
    runtime: Runtime
    store: Store
    server: FakeServer

    @property
    def engine(self) -> Engine:
        return self.runtime.engine

    @property
    def context(self) -> Context:
        """What jobs get."""
        return Context(runtime=self.runtime, jobs=Jobs(self.runtime), ledger=None, supervisor=None, loops=[])

    async def set_time(self, now: datetime) -> None:
        """Moves the test clock forward to that time."""
        done(await self.meter._call("set_clock", answers.Clock, body={"now": now}))

    async def allocate(self) -> int:
        """The allocation, as the worker runs it."""
        return await allocate(self.context)

    async def sweep(self) -> int:
        """The sweep of what is due, as the worker runs it."""
        return await expire(self.context)

    async def flush(self) -> None:
        """The store has everything that Redis has."""
        settings = self.runtime.settings
        for keys in self.engine.partitions:
            flusher = Flusher(self.runtime.redis, self.engine, self.store, keys, settings)
            while await flusher.step():
                pass

    async def available(self, user_id: str = "u") -> Decimal:
        return done(await self.meter.balance(user_id)).available

    async def plan(self, plan_id: str, limit: int = 100, period: plans.BillingPeriod = "monthly") -> None:
        """A plan with that limit."""
        done(await self.meter.create_plan(plan_id.title(), limit, 10, period, plan_id=plan_id))

    async def kinds(self, user_id: str = "u") -> list[tuple[str, Decimal | int]]:
        """(kind, amount) of each transaction, oldest first."""
        items = done(await self.meter.history(user_id, limit=500)).items
        return [(item.kind, item.amount) for item in reversed(items)]


@asynccontextmanager
async def town(
    now: datetime, *, http: bool = False, store: Store | None = None, **settings: object
) -> AsyncIterator[Town]:
    """A town whose clock stands at `now`."""
    server, url = FakeServer(), f"memory://{uuid.uuid4()}"
    chosen = store or open_memory(url, timeout_seconds=1)
    async with (
        Runtime(fake_settings(), fake_redis(server), chosen) as runtime,
        Meter(fake_settings(store_url=url, **settings), fake_redis(server), chosen) as meter,
    ):
        found = Town(meter, runtime, chosen, server)
        await found.set_time(now)
        if http:
            with serving(fake_app(server, store_url=url, **settings)) as base:
                async with MeterClient(base) as client:
                    found.meter = client
                    yield found
        else:
            yield found


def days(number: float) -> timedelta:
    return timedelta(days=number)
