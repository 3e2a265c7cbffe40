"""The table of faults: each a row, injected when its block begins and healed when it ends.

Whatever happens, nothing that was acknowledged may be lost, nothing done twice, nothing invented. Where Redis itself
comes back with less than it acknowledged, what the store never had is gone: that has to be noticed before anybody is
served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis.exceptions import RedisError

from tests.faults.deployment import until
from tests.faults.losing import (
    entry_exchanged,
    older_file,
    older_file_without_worker,
    rebuild_killed,
    rebuilt_live,
    rebuilt_twice_at_once,
    redis_emptied,
    snapshots_only,
    stale_replica,
)
from tests.faults.storage import (
    disk_full,
    disk_full_always,
    store_in_a_black_hole,
    store_killed,
    store_locked,
    store_refuses,
    store_replies_reset,
    store_slow,
)
from tests.faults.town import Town

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""Debian's libfaketime, which tells a process another time."""

Needs = Literal["sqlite", "postgres", "disk", "faketime"]
NOTHING = "nothing lost, doubled or invented"
NOTICED = "noticed, refused until mended; only what the store never had is gone"
PERHAPS = "nothing lost; what Redis had held back while its fsync lagged is noticed as above"


@dataclass(frozen=True)
class Fault:
    """A row. `happens` injects, and heals at the end of its block; it lasts `seconds`, or as long as it takes."""

    name: str
    happens: Callable[[Town], AbstractAsyncContextManager[None]]
    expected: str = NOTHING
    seconds: float = 1.5
    needs: tuple[Needs, ...] = ()

    def missing(self, town: Town) -> Needs | None:
        """What this needs and the town has not."""
        has = {
            "sqlite": town.postgres is None,
            "postgres": town.postgres is not None and town.postgres.can_restart,
            "disk": town.disk is not None,
            "faketime": FAKETIME is not None,
        }
        return next((need for need in self.needs if not has[need]), None)


# Processes


@asynccontextmanager
async def worker_killed(town: Town) -> AsyncIterator[None]:
    """Again and again, each time another one is born."""
    over = asyncio.Event()

    async def go_on() -> None:
        while not over.is_set():
            town.deployment.nursery.kill(town.workers[0])
            town.deployment.nursery.bear()
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.35)

    killing = asyncio.create_task(go_on())
    yield
    over.set()
    await killing


@asynccontextmanager
async def worker_frozen(town: Town) -> AsyncIterator[None]:
    with town.stopped(town.workers[0]):
        yield


@asynccontextmanager
async def workers_frozen(town: Town) -> AsyncIterator[None]:
    with town.stopped(*town.workers):
        yield


@asynccontextmanager
async def sidecar_killed(town: Town) -> AsyncIterator[None]:
    town.sidecars[town.urls[0]].kill()
    yield
    town.serve(int(town.urls[0].rpartition(":")[2]))


@asynccontextmanager
async def sidecar_frozen(town: Town) -> AsyncIterator[None]:
    with town.stopped(town.sidecars[town.urls[1]].pid):
        yield


@asynccontextmanager
async def client_killed(town: Town) -> AsyncIterator[None]:
    """Between reserve and commit, and anywhere else; what it left open is asked by its own key at the end."""
    if town.clients:
        town.clients[0].kill()
        town.clients[0].wait()
    yield
    town.begin_client(0)


@asynccontextmanager
async def everything_killed(town: Town) -> AsyncIterator[None]:
    await town.kill_redis_between_fsyncs("everything_killed")
    town.kill_workers()
    for url in town.urls:
        town.sidecars[url].kill()
    yield
    town.start_redis()
    for url in town.urls:
        town.serve(int(url.rpartition(":")[2]))
    town.bear()


# Redis


@asynccontextmanager
async def redis_killed(town: Town) -> AsyncIterator[None]:
    await town.kill_redis_between_fsyncs("redis_killed")
    yield
    town.start_redis()


@asynccontextmanager
async def redis_killed_always(town: Town) -> AsyncIterator[None]:
    """With `appendfsync always`."""
    town.client.config_set("appendfsync", "always")
    await asyncio.sleep(0.5)
    town.kill_redis()
    yield
    town.start_redis()


@asynccontextmanager
async def redis_frozen(town: Town) -> AsyncIterator[None]:
    with town.stopped(town.server.pid):
        yield


@asynccontextmanager
async def redis_paused(town: Town) -> AsyncIterator[None]:
    town.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    yield
    town.client.execute_command("CLIENT", "UNPAUSE")


@asynccontextmanager
async def scripts_flushed(town: Town) -> AsyncIterator[None]:
    async def go_on() -> None:
        while True:
            with suppress(RedisError):
                town.client.script_flush()
            await asyncio.sleep(0.01)

    flushing = asyncio.create_task(go_on())
    yield
    flushing.cancel()


@asynccontextmanager
async def redis_out_of_memory(town: Town) -> AsyncIterator[None]:
    town.client.config_set("maxmemory", town.client.info("memory")["used_memory"] // 2)
    yield
    town.client.config_set("maxmemory", 0)


# The way to Redis


@asynccontextmanager
async def replies_reset(town: Town) -> AsyncIterator[None]:
    town.link.loses = (0.2, "reset")
    yield
    town.link.loses = (0.0, "reset")


@asynccontextmanager
async def half_open(town: Town) -> AsyncIterator[None]:
    town.link.loses = (0.1, "silence")
    yield
    town.link.loses = (0.0, "reset")


@asynccontextmanager
async def redis_slow(town: Town) -> AsyncIterator[None]:
    town.link.delay_seconds = 0.15
    yield
    town.link.delay_seconds = 0.0


@asynccontextmanager
async def redis_refuses(town: Town) -> AsyncIterator[None]:
    await town.link.cut()
    yield
    await town.link.restore()


@asynccontextmanager
async def redis_in_a_black_hole(town: Town) -> AsyncIterator[None]:
    town.link.freeze()
    yield
    town.link.thaw()


# Callers


@asynccontextmanager
async def callers_too_many(town: Town) -> AsyncIterator[None]:
    """400 at once while Redis is slow: more than the pool, the lanes and the batches carry."""
    town.link.delay_seconds = 0.3
    town.begin_client(99, concurrency=400, operations=800, **{"pause-ms": 0})
    yield
    town.link.delay_seconds = 0.0
    burst = town.clients.pop(99)
    await until(lambda: burst.poll() is not None, "the burst ends")


def _skewed(seconds: str) -> Callable[[Town], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def clock_skewed(town: Town) -> AsyncIterator[None]:
        told = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": seconds, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        town.restart_sidecar(town.urls[1], **told)
        await town.recovered()
        await asyncio.sleep(1.0)
        yield
        town.restart_sidecar(town.urls[1])

    return clock_skewed


TABLE: dict[str, tuple[Fault, ...]] = {
    "processes": (
        Fault("worker killed", worker_killed),
        Fault("worker frozen", worker_frozen),
        Fault("both workers frozen", workers_frozen),
        Fault("sidecar killed", sidecar_killed),
        Fault("sidecar frozen", sidecar_frozen, seconds=3.0),
        Fault("client killed", client_killed),
        Fault("everything killed", everything_killed, PERHAPS, seconds=0.2),
    ),
    "Redis": (
        Fault("Redis killed, everysec", redis_killed, PERHAPS, seconds=0.5),
        Fault("Redis killed, always", redis_killed_always, seconds=0.5),
        Fault("Redis frozen", redis_frozen),
        Fault("Redis paused", redis_paused),
        Fault("scripts flushed", scripts_flushed),
        Fault("Redis out of memory", redis_out_of_memory),
    ),
    "lost history": (
        Fault("older file", older_file, NOTICED),
        Fault("older file, no worker", older_file_without_worker, NOTICED),
        Fault("snapshots only", snapshots_only, NOTICED),
        Fault("Redis emptied", redis_emptied, NOTICED, seconds=0.2),
        Fault("stale replica", stale_replica, NOTICED),
        Fault("entry exchanged", entry_exchanged, NOTICED),
    ),
    "links": (
        Fault("replies reset", replies_reset),
        Fault("half-open", half_open),
        Fault("Redis slow", redis_slow),
        Fault("Redis refuses", redis_refuses),
        Fault("Redis in a black hole", redis_in_a_black_hole, seconds=2.5),
        Fault("too many callers", callers_too_many),
    ),
    "store": (
        Fault("disk full", disk_full, seconds=2.5, needs=("disk",)),
        Fault("disk full, always", disk_full_always, needs=("disk",)),
        Fault("store locked", store_locked, seconds=2.5, needs=("sqlite",)),
        Fault("store slow", store_slow, seconds=2.5),
        Fault("store killed", store_killed, needs=("postgres",)),
        Fault("store refuses", store_refuses, needs=("postgres",)),
        Fault("store in a black hole", store_in_a_black_hole, seconds=2.5, needs=("postgres",)),
        Fault("store replies reset", store_replies_reset, needs=("postgres",)),
    ),
    "clocks and rebuilds": (
        Fault("clock an hour ahead", _skewed("+3600s"), seconds=0.5, needs=("faketime",)),
        Fault("clock an hour behind", _skewed("-3600s"), seconds=0.5, needs=("faketime",)),
        Fault("rebuilt live", rebuilt_live, NOTICED, seconds=0.2),
        Fault("rebuilt twice at once", rebuilt_twice_at_once, NOTICED, seconds=0.2),
        Fault("rebuild killed", rebuild_killed, NOTICED, seconds=0.2),
    ),
}
"""Every fault, by what it happens to. Always on: clients that leave in the middle of a call, calls made twice, and keys
with another body.
"""
