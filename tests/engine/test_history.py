"""What a process remembers, and what it does when Redis comes back with less: real servers, killed and set back."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from meter.config import Settings
from meter.dev.redis_server import EmbeddedServer
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.history import LOOK_SECONDS, NOWHERE, Memory, Place, why_refused
from meter.engine.operations import balance, deduct, grant
from meter.engine.redis import RedisGateway
from meter.errors import PartitionRefused
from meter.keys import PartitionKeys
from tests.engine.test_engine import until_served
from tests.servers import Server, embedded_server

KEYS = PartitionKeys(0)


class Disk:
    """A real server with an append-only file that can be set back to what it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: EmbeddedServer = embedded_server(folder / "redis", persist=True)
        self.server.start()
        self.url = self.server.url
        with Redis.from_url(self.url) as client:
            client.config_set("appendfsync", "always")  # else writes are put off while an earlier sync takes its time

    @property
    def files(self) -> Path:
        return self.folder / "redis" / "appendonlydir"

    def keep(self) -> None:
        """Copies the file, which has everything that was answered."""
        shutil.copytree(self.files, self.folder / "kept", dirs_exist_ok=True)

    def set_back(self) -> None:
        """The server is killed and comes back, at the same place, with the file that was kept."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()
        shutil.rmtree(self.files)
        shutil.copytree(self.folder / "kept", self.files)
        self.server = embedded_server(self.folder / "redis", persist=True, port=urlsplit(self.url).port or 0)
        self.server.start()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path)
    yield found
    found.server.stop()


@pytest.fixture
def link(disk: Disk) -> RedisGateway:
    return connect(disk.url, timeout_seconds=1, connections_max=10)


async def spend(engine: Engine, times: int) -> None:
    for _ in range(times):
        await engine.run("u", deduct("u", 1))


async def test_an_older_file_is_found_by_the_first_batch(disk: Disk, link: RedisGateway) -> None:
    """X3: the same process lives on; Redis comes back with seq 11 where 31 were acknowledged."""
    async with Engine(link, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        await spend(engine, 10)
        disk.keep()
        await spend(engine, 20)
        disk.set_back()

        with pytest.raises(PartitionRefused, match="Redis is at seq 11 of epoch 1, though seq 31 of epoch 1 was"):
            await engine.run("u", deduct("u", 1))

        (fault,) = await engine.faults()
        assert "partition 0 is not served: lost" in fault and "meter rebuild" in fault
    with Redis.from_url(disk.url) as client:
        assert client.hmget(KEYS.meta, "seq", "state", "acknowledged") == [b"11", b"lost", b"31"]
    await link.close()


async def test_a_read_finds_it_too(disk: Disk, link: RedisGateway) -> None:
    """X3: an older balance is not shown to anybody."""
    async with Engine(link, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        disk.keep()
        await spend(engine, 1)
        disk.set_back()

        with pytest.raises(PartitionRefused):
            await engine.run("u", balance("u"))
    await link.close()


async def test_a_file_with_everything_is_served_on(disk: Disk, link: RedisGateway) -> None:
    async with Engine(link, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        await spend(engine, 9)
        disk.keep()
        disk.set_back()

        assert (await until_served(engine, deduct("u", 1))).endswith(" 90 0 0")
    await link.close()


async def test_another_process_that_went_on_from_the_older_file_is_found_out(disk: Disk, link: RedisGateway) -> None:
    """X3: one that was started anew knows nothing, and books beyond what the older one was told."""
    async with Engine(link, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        disk.keep()
        await spend(engine, 5)
        disk.set_back()
        other = connect(disk.url, timeout_seconds=1, connections_max=10)
        async with Engine(other, Settings(redis_timeout_ms=10_000)) as fresh:
            await spend(fresh, 9)
            assert (await fresh.run("u", balance("u"))).endswith(" 91 0 0")

            with pytest.raises(PartitionRefused, match="seq 6 of epoch 1 was acknowledged"):
                await engine.run("u", balance("u"))
            with pytest.raises(PartitionRefused):
                await fresh.run("u", balance("u"))
        await other.close()
    await link.close()


async def test_the_stores_watermark_is_what_a_new_process_knows(server: Server, unchecked: None) -> None:
    """X3: nothing is remembered across a restart, but the store knows how far Redis has been."""

    async def watermark(_: int) -> Place:
        return (1, 1, head)

    gateway = server.gateway()
    async with Engine(gateway, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        head = server.client.hget(KEYS.meta, "head").decode()
    async with Engine(gateway, Settings(redis_timeout_ms=10_000), watermark) as engine:
        server.client.hset(KEYS.meta, "seq", 0)

        with pytest.raises(PartitionRefused, match="Redis is at seq 0 of epoch 1, though seq 1"):
            await engine.run("u", balance("u"))
    await gateway.close()


async def test_two_processes_are_never_ahead_of_each_other(server: Server) -> None:
    """X3: each is behind most of the time, and nobody is refused for it."""
    gateways = [server.gateway(), server.gateway()]
    settings = Settings(redis_timeout_ms=10_000, senders=3, batch_max=2)
    async with Engine(gateways[0], settings) as one, Engine(gateways[1], settings) as other:
        await one.run("u", grant("u", "g", 1_000))
        for n in range(30):
            for engine in (one, other):
                await engine.run("u", deduct("u", 1 + n % 2))
        assert (await one.run("u", balance("u"))).endswith(" 910 0 0")
    for gateway in gateways:
        await gateway.close()


# The memory


def test_a_later_place_is_remembered_and_an_earlier_one_is_not() -> None:
    memory = Memory()
    assert memory.last == NOWHERE

    for told, last in [
        ((1, 5, "a"), (1, 5, "a")),
        ((1, 3, "b"), (1, 5, "a")),
        ((1, 5, "a"), (1, 5, "a")),
        ((2, 4, "c"), (2, 4, "c")),
        ((1, 9, "d"), (2, 4, "c")),
    ]:
        memory.remember(told)
        assert memory.last == last


def test_it_looks_at_first_now_and_then_and_after_a_doubt() -> None:
    memory = Memory()
    assert [memory.looks(at) for at in (0.0, 0.1, LOOK_SECONDS - 0.1, LOOK_SECONDS, LOOK_SECONDS + 0.1)] == [
        1,
        0,
        0,
        1,
        0,
    ]
    memory.doubt()
    assert [memory.looks(LOOK_SECONDS + at) for at in (0.2, 0.3)] == [1, 0]


@pytest.mark.parametrize(
    ("head", "rest", "words"),
    [
        ("refused", "missing meta", ["lost, missing meter:{p0}:meta", "meter rebuild"]),
        ("refused", "lost missing accounts holds", ["missing meter:{p0}:accounts, meter:{p0}:holds", "meter rebuild"]),
        (
            "refused",
            "lost behind 1 31 a, at 1 11 b",
            ["at seq 11 of epoch 1, though seq 31 of epoch 1", "meter rebuild"],
        ),
        ("refused", "lost behind 2 3 a in the store, at 1 11 b", ["though seq 3 of epoch 2", "meter rebuild"]),
        ("refused", "lost seq 3 follows x, not y", ["lost, seq 3 follows x, not y", "meter rebuild"]),
        ("refused", "lost", ["lost;", "meter rebuild"]),
        ("refused", "rebuilding", ["not served: rebuilding"]),
        ("refused", "closed", ["not served: closed"]),
        ("refused", "schema", ["another version of meter"]),
        ("stale", "", ["not served: stale"]),
    ],
)
def test_a_refusal_says_why_and_what_to_do(head: str, rest: str, words: list[str]) -> None:
    text = why_refused(KEYS, head, rest)

    assert text.startswith("partition 0 is not served: ")
    assert [word for word in words if word not in text] == []
