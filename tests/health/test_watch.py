"""U4, U5: what a look finds on each server, and what the log is told, once per change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from structlog.stdlib import BoundLogger

from meter.config import Settings
from meter.engine import operations, upkeep
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.errors import RedisUnavailable, StoreUnavailable
from meter.health import watch as module
from meter.health.presence import FORGOTTEN_AFTER_SECONDS, MISSING_AFTER_SECONDS, JobRuns, Presences, Worker
from meter.health.status import Name, Status
from meter.health.watch import Watch
from meter.log import Changes
from tests.partition import SECOND, T0, Partition
from tests.servers import Server


class Store:
    """A store that answers as it is told."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.hangs = False
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise StoreUnavailable(self.fault)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def watch(
    partition: Partition, gateway: RedisGateway, engine: Engine, settings: Settings, store: Store
) -> AsyncIterator[Watch]:
    """A watch that does not look by itself."""
    found = Watch(engine, gateway, settings, store.ping)
    yield found
    await found.close()


def presence(now_ms: int, name: str = "w", **members: Any) -> Worker:
    return Worker(worker_id=name, version="1", started_at_ms=1, seen_at_ms=now_ms, **members)


def states(status: Status) -> dict[str, str]:
    """What is not well."""
    return {name.value: part.state for name, part in status.parts.items() if part.state != "ok"}


async def test_u4_a_look_finds_worker_backlog_and_store(
    watch: Watch, gateway: RedisGateway, partition: Partition, store: Store
) -> None:
    presences = Presences(gateway, "meter")
    assert states(await watch.look()) == {"worker": "missing"}
    await presences.tell(presence(await presences.now_ms(), jobs={"sweep": JobRuns(done=3, failed=1, error="x")}))
    assert states(await watch.look()) == {}
    partition.run(operations.grant("u", "g", 10))
    partition.freeze(T0 + 2 * SECOND)
    store.fault = "no route"
    status = await watch.look()
    assert (states(status), status.word) == ({"store": "away"}, "degraded")
    assert status.parts[Name.BACKLOG].figures["transactions"] == 1
    assert status.parts[Name.BACKLOG].figures["oldest_seconds"] == 2.0
    assert status.facts.workers[0].jobs["sweep"].failed == 1
    partition.run(upkeep.flushed(1, 0, 1))
    assert (await watch.look()).parts[Name.BACKLOG].figures == {
        "transactions": 0,
        "oldest_seconds": 0.0,
        "limit_per_partition": 1_000_000,
    }


async def test_u4_a_partition_that_is_lost_is_refused(
    watch: Watch, partition: Partition, server: Server, unchecked: None
) -> None:
    server.client.hset(partition.keys.meta, "state", "lost")
    for status in (await watch.look(), await watch.look_and_try()):
        assert (status.word, states(status)["partitions"]) == ("unavailable", "refused")
        assert "partition 0 is not served" in status.faults[0] and "lost" in status.faults[0]
    server.client.flushall()
    assert "missing" in (await watch.look_and_try()).faults[0]


async def test_x3_history_that_was_lost_is_found_by_a_look_though_nobody_calls(
    watch: Watch, engine: Engine, partition: Partition, server: Server, unchecked: None
) -> None:
    before = server.client.hgetall(partition.keys.meta)
    await engine.run("u", operations.configure("u", overdraft_limit=1))
    assert (await watch.look()).word != "unavailable"
    server.client.hset(partition.keys.meta, mapping=before)
    status = await watch.look()
    assert states(status)["partitions"] == "refused"
    assert "was acknowledged" in status.faults[0]
    assert server.client.hget(partition.keys.meta, "state") == b"lost"


async def test_u4_a_redis_that_answers_and_yet_refuses_is_found_by_trying(
    watch: Watch, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> list[str]:
        raise RedisUnavailable("redis", "MISCONF: the disk is full")

    monkeypatch.setattr(engine, "run_many", refuse)
    assert (await watch.look()).word != "unavailable"
    status = await watch.look_and_try()
    assert (status.word, status.parts[Name.REDIS].state, status.faults[0]) == (
        "unavailable",
        "away",
        "MISCONF: the disk is full",
    )


async def test_u4_a_store_that_hangs_is_asked_once_at_a_time(
    watch: Watch, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_SECONDS_MAX", 0.01)
    store.hangs = True
    for _ in range(3):
        assert states(await watch.look())["store"] == "away"
    assert store.pings == 1


async def test_u4_those_who_ended_long_ago_are_forgotten(gateway: RedisGateway, server: Server) -> None:
    presences = Presences(gateway, "other")
    now_ms = await presences.now_ms()
    await presences.tell(presence(now_ms - int(1000 * FORGOTTEN_AFTER_SECONDS) - 1, "old"))
    await presences.tell(presence(now_ms - 1000, "lately", stopped=True))
    server.client.hset("other:workers", "odd", "not ours")
    await presences.tell(presence(now_ms, "now"))
    assert [one.worker_id for one in await presences.seen()] == ["now", "lately"]
    server.client.delete("other:workers")


async def test_u4_a_beat_shows_a_worker_as_it_last_told(gateway: RedisGateway, server: Server) -> None:
    presences = Presences(gateway, "beats")
    now_ms = await presences.now_ms()
    for name in ("long gone", "w"):
        age_ms = int(1000 * FORGOTTEN_AFTER_SECONDS) + 1 if name != "w" else 20_000
        await presences.beat(name, now_ms - age_ms)
        await presences.tell(presence(now_ms - age_ms, name, deliveries={"delivered": 3}))
    await presences.beat("w", now_ms)
    latest = (await presences.seen())[0]
    assert (latest.worker_id, latest.seen_at_ms) == ("w", now_ms)
    await presences.tell(presence(now_ms + 1, "w"))
    assert {name.decode() for name in server.client.hkeys("beats:workers")} == {"w", "w seen"}
    await presences.tell(presence(now_ms + 2, "w", stopped=True))
    assert server.client.hkeys("beats:workers") == [b"w"]
    await presences.beat("nobody", now_ms)  # what no whole telling stands beside is nobody
    assert [one.worker_id for one in await presences.seen()] == ["w"]
    server.client.delete("beats:workers")


class Heard:
    """What this watch says; one of another sidecar in this process may look at the same server, and say it too."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: object) -> None:
        self.events.append(event)

    warning = error = info


async def test_u5_each_change_is_told_once(
    watch: Watch,
    gateway: RedisGateway,
    partition: Partition,
    server: Server,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    unchecked: None,
) -> None:
    """U5: Redis lost and back, store lost and back, partition refused and served, worker seen and missing."""
    heard = Heard()
    watch._changes = Changes(cast(BoundLogger, heard))
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.0)
    presences = Presences(gateway, "meter")
    watch.start()

    async def told() -> list[str]:
        """The first words of the lines of many looks."""
        for _ in range(20):
            await watch.look()
            await asyncio.sleep(0)
        found = [" ".join(event.split()[:4]).rstrip(":") for event in heard.events]
        heard.events.clear()
        return found

    assert await told() == []  # a worker may still come
    monkeypatch.setattr(watch, "_started_at", -MISSING_AFTER_SECONDS - 1e9)
    assert await told() == ["no worker is seen"]
    await presences.tell(presence(await presences.now_ms() + 600_000))  # however slow this machine is
    assert await told() == ["a worker is seen"]
    store.fault = "no route"
    assert await told() == ["the store is away"]
    store.fault = None
    assert await told() == ["the store is back"]
    server.client.hset(partition.keys.meta, "state", "lost")
    assert await told() == ["a partition is refused"]
    server.client.hset(partition.keys.meta, "state", "open")
    assert await told() == ["every partition is served"]

    async def away(*_: object) -> int:
        raise RedisUnavailable("redis", "refused")

    with monkeypatch.context() as patch:
        patch.setattr(gateway, "time_ms", away)
        assert await told() == ["Redis is away: every"]
    assert await told() == ["Redis is back"]


async def test_u4_who_was_too_short_for_the_patience_says_at_the_end_that_nothing_flushes(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """U4: an in-process `Meter` without any worker."""
    watch.start()
    await watch.look()
    await asyncio.sleep(0.01)
    assert caplog.messages == []
    await watch.close()
    await watch.close()
    assert [line.partition(":")[0] for line in caplog.messages] == ["no worker is seen"]


async def test_it_ends_though_a_cancellation_is_lost(
    gateway: RedisGateway, engine: Engine, settings: Settings, store: Store
) -> None:
    """What is awaited may take one for its own, and go on."""
    lost = 0

    async def see(*_: object) -> None:
        nonlocal lost
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost += 1
            if lost > 1:
                raise

    found = Watch(engine, gateway, settings, store.ping, see_partition=see)
    found.start()
    while not found._last:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(found.close(), 10)
    assert lost == 1
