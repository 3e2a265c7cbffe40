"""P14: where the test clock moves, a worker does what became due without waiting for the real clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from meter.clock import NEVER_MS, milliseconds
from meter.config import Settings
from meter.engine import operations
from meter.jobs import Jobs
from meter.runtime import Runtime
from meter.store.rows import GrantRow
from meter.worker.clock_watch import QUIET_ROUNDS, ClockWatch
from meter.worker.context import Context, close_context, open_context
from meter.worker.runs import Runs
from tests.alerts.conftest import START
from tests.alerts.post import Post, post
from tests.partition import SECOND, Partition
from tests.plans.town import days, done
from tests.servers import Server

REMINDER_OF_U = ("expiring_credits", "u")


@pytest.fixture
async def office() -> AsyncIterator[Post]:
    """A post whose clock stands at START."""
    async with post(START) as found:
        yield found


async def test_everything_that_became_due_is_done_when_the_clock_moves(office: Post) -> None:
    """Expiry, allocation, reminders; and what one makes is there for the next, once it is flushed."""
    town, jobs = office.town, Jobs(office.town.runtime)
    watch = ClockWatch(town.engine, jobs, Runs())
    await town.plan("day", 5, "daily")
    done(await town.meter.subscribe("s", "day"))
    done(await town.meter.add("u", 10, expires_at=START + days(20)))
    done(await town.meter.hold("u", 1, ttl_seconds=60))
    for at in (13.5, 19.1):
        await town.set_time(START + days(at))
        for _ in range(3):
            await watch.step()
            await town.flush()
    (row,) = done(await town.meter.subscriptions("s")).items
    assert row.period == 19
    assert await town.available("s") == 5
    reminders = [alert.payload for alert in await office.alerts() if (alert.kind, alert.user_id) == REMINDER_OF_U]
    assert sorted(str(payload["days"]) for payload in reminders if isinstance(payload, dict)) == ["1", "7"]
    assert "reservation_expired" in [kind for kind, _ in await town.kinds()]
    await jobs.close()


async def test_a_job_is_due_only_where_it_would_find_something(office: Post) -> None:
    """What the worker asks by reading before it puts a job into its queue."""
    town, jobs = office.town, Jobs(office.town.runtime)

    async def due(ahead_ms: int = 0) -> list[str]:
        return [name for name in ("expire", "allocate", "pending") if await jobs.is_due(name, ahead_ms)]

    await town.plan("day", 5, "daily")
    done(await town.meter.subscribe("s", "day"))
    done(await town.meter.hold("u", 0, ttl_seconds=60))
    await town.flush()
    assert await due() == []
    assert await due(60_000) == ["expire"]
    await town.set_time(START + days(1.5))
    assert await due() == ["expire", "allocate"]
    for name in ("expire", "allocate"):
        await jobs.until_done(name)
    await town.flush()
    assert await due() == []
    await town.store.add_pending_grant(promised(START, "plan:day"))
    assert await due() == ["allocate", "pending"]
    await jobs.until_done("allocate")
    await town.flush()
    assert await due() == []
    await jobs.close()


def promised(at: datetime, source: str) -> GrantRow:
    """A grant that is durable, and of which Redis was not told."""
    at_ms = milliseconds(at)
    return GrantRow(
        user_id="p",
        grant_id="g",
        partition=0,
        amount=1,
        remaining=0,
        effective_at_ms=at_ms,
        expires_at_ms=NEVER_MS,
        created_at_ms=at_ms,
        source=source,
        pending=True,
    )


async def test_it_rests_when_nothing_is_due_and_the_clock_stands(office: Post) -> None:
    runs: list[str] = []
    jobs = Jobs(office.town.runtime)
    watch = ClockWatch(office.town.engine, jobs, Runs())

    async def nothing(name: str, *_: object) -> int:
        runs.append(name)
        return 0

    jobs.until_done = nothing  # type: ignore[method-assign,assignment]
    for _ in range(QUIET_ROUNDS + 3):
        await watch.step()
    assert runs == ["expire", "allocate", "pending", "remind", "rotate", "rollup", "runway"] * QUIET_ROUNDS
    await office.advance(0.001)
    await watch.step()
    assert len(runs) == 7 * (QUIET_ROUNDS + 1)


async def test_a_clock_that_runs_is_left_to_the_schedule(ctx: Context) -> None:
    """Without a test clock nothing is asked for every half second."""
    assert await ctx["runtime"].engine.clock_stands_at() is not None  # the partitions of these tests stand
    assert ctx["loops"] == []


async def test_a_worker_watches_where_the_test_clock_is_allowed(server: Server, partitions: list[Partition]) -> None:
    gateway = server.gateway()
    context: Context = {}
    settings = Settings(store_url="none", redis_timeout_ms=10_000, partitions=len(partitions), test_clock=True)
    await open_context(context, Runtime(settings, gateway))
    try:
        for partition in partitions:
            hold = operations.reserve(f"user-{partition.number}", f"r{partition.number}", 0, SECOND, chosen=True)
            partition.run(hold)
            partition.advance(2 * SECOND)
        async with asyncio.timeout(30):
            while not all("reservation_expired" in partition.kinds() for partition in partitions):
                await asyncio.sleep(0.05)
    finally:
        await close_context(context)
        await gateway.close()
