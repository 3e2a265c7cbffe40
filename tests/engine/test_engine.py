"""The engine: partitions, lost ones, settings that do not fit, lost replies, Redis going away and coming back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from redis import Redis

from meter.config import Settings
from meter.dev.redis_server import EmbeddedServer
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import (
    Operation,
    balance,
    commit,
    configure,
    deduct,
    grant,
    release,
    reservation,
    reserve,
)
from meter.engine.programs import open_program
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError, MeterError, PartitionRefused, RedisUnavailable, Unavailable
from meter.keys import partition_of
from tests.faulty_link import FaultyLink
from tests.partition import HOUR, Partition, dump
from tests.servers import Server, embedded_server, real_server

DEADLINE_SECONDS = 20.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition; the deadline is a net for what never comes."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


async def until_served(engine: Engine, one: Operation) -> str:
    """The answer of the first try that is decided."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with suppress(Unavailable):
                return await engine.run("u", one)
            await asyncio.sleep(0.02)


# Partitions


async def test_users_are_spread_over_partitions_and_teams_stay_together(gateway: RedisGateway, server: Server) -> None:
    users = [f"user-{n}" for n in range(40)]
    async with Engine(gateway, Settings(partitions=4, redis_timeout_ms=10_000)) as engine:
        await asyncio.gather(*(engine.run(user, grant(user, "g", 5)) for user in users))
        await engine.run("team/a/key", grant("team/a/key", "g", 5))

        places = {user: engine.partition_of(user) for user in users}
        assert set(places.values()) == {0, 1, 2, 3}
        assert engine.partition_of("team/a/key") == engine.partition_of("team/b") == engine.partition_of("team")

    for user, number in places.items():
        assert server.client.hexists(f"meter:{{p{number}}}:accounts", user)


def test_the_partition_of_a_user_never_changes() -> None:
    """Other numbers would strand every account of a running deployment."""
    assert [partition_of(user, 16) for user in ("u", "user-1", "org/team", "a@b.c")] == [14, 4, 0, 13]
    assert partition_of("anything", 1) == 0


async def test_a_reservation_is_found_whatever_its_id_tells(gateway: RedisGateway) -> None:
    async with Engine(gateway, Settings(partitions=4, redis_timeout_ms=10_000)) as engine:
        for user in ("user-0", "user-1", "user-2", "user-3", "user-5"):
            ours = engine.new_reservation_id(user)
            assert ours.startswith(f"r{engine.partition_of(user)}_")
            await engine.run(user, grant(user, "g", 50))
            await engine.run(user, reserve(user, ours, 10, HOUR, chosen=False))
            for chosen in (f"order:{user}", f"r9_{'x' * 22}-{user}"):
                await engine.run(user, reserve(user, chosen, 10, HOUR, chosen=True))
                assert await engine.partition_of_reservation(chosen) == engine.partition_of(user)
                line = await engine.run_for_reservation(chosen, commit(chosen, 4))
                assert line.startswith(f"0 ok {user} {chosen} ")
            line = await engine.run_for_reservation(ours, release(ours))
            assert line.startswith(f"0 ok {user} {ours} ")
            assert (await engine.run(user, balance(user))).endswith(" 42 0 0")


@pytest.mark.parametrize("unknown", ["nothing", f"r1_{'x' * 22}", f"r99_{'x' * 22}"])
async def test_an_unknown_reservation_is_found_nowhere(gateway: RedisGateway, unknown: str) -> None:
    async with Engine(gateway, Settings(partitions=4, redis_timeout_ms=10_000)) as engine:
        assert await engine.run_for_reservation(unknown, commit(unknown)) == "0 not_found"
        assert await engine.partition_of_reservation(unknown) is None


async def test_a_search_that_could_not_ask_everywhere_decides_nothing(
    gateway: RedisGateway, server: Server, unchecked: None
) -> None:
    async with Engine(gateway, Settings(partitions=2, redis_timeout_ms=10_000)) as engine:
        await engine.run("user-0", grant("user-0", "g", 50))
        await engine.run("user-0", reserve("user-0", "mine", 5, HOUR, chosen=True))
        server.client.delete(engine.partitions[1 - engine.partition_of("user-0")].meta)

        with pytest.raises(PartitionRefused):
            await engine.run_for_reservation("nothing", release("nothing"))
        assert (await engine.run_for_reservation("mine", release("mine"))).startswith("0 ok")


# Lost partitions and settings that do not fit


async def test_a_partition_that_vanishes_is_lost_and_not_empty(engine: Engine, server: Server, unchecked: None) -> None:
    await engine.run("u", grant("u", "g", 50))
    server.client.flushall()

    for one in (balance("u"), deduct("u", 0), grant("u", "h", 5), reservation("r")):
        with pytest.raises(PartitionRefused, match="missing") as refused:
            await engine.run("u", one)
    assert refused.value.reason == "partition"
    assert len(await engine.faults()) == 1
    assert server.client.keys() == []


async def test_a_lost_partition_does_not_take_the_others_with_it(
    gateway: RedisGateway, server: Server, unchecked: None
) -> None:
    settings = Settings(partitions=3, redis_timeout_ms=10_000)
    async with Engine(gateway, settings) as engine:
        places = {engine.partition_of(user): user for user in map(str, range(20))}
        for user in places.values():
            await engine.run(user, grant(user, "g", 50))
    server.client.delete("meter:{p0}:meta")

    async with Engine(gateway, settings) as engine:
        with pytest.raises(PartitionRefused):
            await engine.run(places[0], balance(places[0]))
        for number in (1, 2):
            assert (await engine.run(places[number], balance(places[number]))).endswith(" 50 0 0")
        assert len(await engine.faults()) == 1


@pytest.mark.parametrize(
    ("other", "named"),
    [(Settings(decimal_places=2), "METER_DECIMAL_PLACES=6"), (Settings(partitions=2), "METER_PARTITIONS=1")],
)
async def test_other_settings_refuse_to_start(
    gateway: RedisGateway, server: Server, other: Settings, named: str
) -> None:
    async with Engine(gateway, Settings()) as engine:
        await engine.run("u", grant("u", "g", 50))
    before = dump(server.client)

    with pytest.raises(ConfigError, match=named):
        await Engine(gateway, other).start()

    assert {key: value for key, value in dump(server.client).items() if "{p0}" in key} == before
    await until(lambda: not _senders_at_work(), "no sender is left running")


async def test_a_server_that_cuts_amounts_off_is_refused(
    gateway: RedisGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program as a 32-bit build runs it: its %d writes the lower half."""
    narrow = open_program()
    source = "local string = { format = function() return '-1' end, match = string.match, sub = string.sub }\n"
    monkeypatch.setattr(
        "meter.engine.opening.open_program",
        lambda: replace(narrow, source=source + narrow.source, sha=sha1((source + narrow.source).encode()).hexdigest()),
    )

    with pytest.raises(ConfigError, match="32-bit"):
        await Engine(gateway, Settings()).start()


async def test_starting_twice_is_starting_once(gateway: RedisGateway) -> None:
    engine = Engine(gateway, Settings(lanes=3, redis_timeout_ms=10_000))
    await asyncio.gather(engine.start(), engine.start())
    await engine.start()

    assert len(_senders_at_work()) == 3
    await engine.close()
    assert _senders_at_work() == []


def _senders_at_work() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("meter-sender")]


# A link that loses replies; a server that goes away


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[FaultyLink]:
    """A link to the emptied real server."""
    real_server(redis_url).client.close()
    async with FaultyLink(redis_url) as link:
        yield link


@pytest.mark.parametrize("then", ["reset", "silence"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_lost_reply_is_applied_once(link: FaultyLink, then: Literal["reset", "silence"], times: int) -> None:
    gateway = connect(link.url, timeout_seconds=0.2, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=10_000)) as engine:
        await engine.run("u", grant("u", "g", 100))
        link.lose_replies(b"EVALSHA", times, then)

        line = await engine.run("u", deduct("u", 10))

        assert line.startswith("0 ok u ")
        assert line.endswith(" 10 10 0 90 0 0")
        assert (await engine.run("u", balance("u"))).endswith(" 90 0 0")
        assert link.lost >= times
        assert sum(counts.batches["stored"] for counts in engine.counts) == 1
    await gateway.close()


async def test_a_storm_of_lost_replies(link: FaultyLink, redis_url: str) -> None:
    before = _connections(redis_url)
    gateway = connect(link.url, timeout_seconds=0.2, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=10_000, batch_max=3)) as engine:
        await engine.run("u", grant("u", "g", 100))
        for _ in range(10):
            link.lose_replies(b"EVALSHA", 2, "reset")
            lines = await asyncio.gather(*(engine.run("u", deduct("u", 1)) for _ in range(12)))
            assert {line.split(" ")[1] for line in lines} <= {"ok", "insufficient"}

        assert (await engine.run("u", balance("u"))).endswith(" 0 0 0")
    await gateway.close()
    await _no_connection_left(redis_url, before)


async def test_a_request_that_arrives_too_late_is_never_applied(link: FaultyLink) -> None:
    """Given up, and overtaken by the sender's next batch: the number says that it is stale."""
    gateway = connect(link.url, timeout_seconds=0.1, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=150, lanes=1)) as engine:
        await until_served(engine, grant("u", "g", 100))
        link.keep_back(b"EVALSHA")
        with suppress(RedisUnavailable):
            await engine.run("u", deduct("u", 10))
        assert len(link.kept) == 1
        left = int((await until_served(engine, deduct("u", 1))).split(" ")[-3])

        await link.pass_on()

        assert (await until_served(engine, balance("u"))).endswith(f" {left} 0 0")
        assert (await until_served(engine, deduct("u", 0))).endswith(f" {left} 0 0")
    await gateway.close()


@pytest.fixture
def own_server(tmp_path: Path) -> EmbeddedServer:
    """A real server of the test's own, started, with its data on disk; `_restart` brings it back at the same place."""
    server = embedded_server(tmp_path, persist=True)
    server.start()
    return server


def _restart(server: EmbeddedServer, folder: Path, url: str) -> EmbeddedServer:
    again = embedded_server(folder, persist=True, port=urlsplit(url).port or 0)
    again.start()
    return again


async def test_redis_away_is_unavailable_and_back_is_served_again(own_server: EmbeddedServer, tmp_path: Path) -> None:
    url = own_server.url
    gateway = connect(url, timeout_seconds=0.2, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=400)) as engine:
        await until_served(engine, grant("u", "g", 100))
        own_server.stop()

        outcomes = await asyncio.gather(*(engine.run("u", deduct("u", 1)) for _ in range(50)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {RedisUnavailable}
        assert len(await engine.faults()) == 1

        again = _restart(own_server, tmp_path, url)
        assert (await until_served(engine, balance("u"))).endswith(" 100 0 0")
        assert (await until_served(engine, deduct("u", 1))).endswith(" 99 0 0")
    await gateway.close()
    await _no_connection_left(url, set())
    again.stop()


async def test_redis_away_at_the_start(own_server: EmbeddedServer, tmp_path: Path) -> None:
    url = own_server.url
    own_server.stop()
    gateway = connect(url, timeout_seconds=0.2, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=400)) as engine:
        with pytest.raises(RedisUnavailable):
            await engine.run("u", balance("u"))

        again = _restart(own_server, tmp_path, url)

        assert (await until_served(engine, grant("u", "g", 5))).endswith(" 5 0 0")
    await gateway.close()
    again.stop()


async def test_redis_away_at_the_start_and_back_with_other_settings(own_server: EmbeddedServer, tmp_path: Path) -> None:
    """Amounts of another scale must not be mixed, not even for a moment."""
    url = own_server.url
    with Redis.from_url(url) as client:
        partition = Partition(client)
        partition.open(decimal_places=2)
        partition.run(grant("u", "g", 100))
        before = dump(client)
    own_server.stop()
    gateway = connect(url, timeout_seconds=0.2, connections_max=10)
    async with Engine(gateway, Settings(redis_timeout_ms=400)) as engine:
        again = _restart(own_server, tmp_path, url)

        reasons: list[str] = []
        while "settings" not in reasons:
            with pytest.raises(Unavailable) as refused:
                await engine.run("u", deduct("u", 1))
            reasons.append(refused.value.reason)
            await asyncio.sleep(0.02)

        assert set(reasons) <= {"redis", "settings"}
        assert "METER_DECIMAL_PLACES=2" in str(refused.value)
    await gateway.close()
    with Redis.from_url(url) as client:
        assert dump(client) == before
    again.stop()


async def test_cancelled_callers_leak_no_connection(redis_url: str) -> None:
    real_server(redis_url).client.close()
    before = _connections(redis_url)
    gateway = connect(redis_url, timeout_seconds=5, connections_max=4)
    async with Engine(gateway, Settings(redis_timeout_ms=10_000, lanes=3, batch_max=5)) as engine:
        await engine.run("u", grant("u", "g", 10_000))
        for _ in range(20):
            tasks = [asyncio.create_task(engine.run("u", deduct("u", 1))) for _ in range(40)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        assert (await engine.run("u", balance("u"))).endswith(" 9200 0 0")
        assert engine.waiting == 0
    await gateway.close()
    await _no_connection_left(redis_url, before)


async def test_a_caller_that_went_away_is_no_fault(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    await engine.run("u", grant("u", "g", 100))
    for run in (engine.run("u", deduct("u", 10)), engine.run_many(0, (deduct("u", 10),))):
        caller = asyncio.create_task(run)
        await asyncio.sleep(0)
        caller.cancel()

    assert (await engine.run("u", balance("u"))).endswith(" 80 0 0")
    assert caplog.records == []


async def test_an_overdraft_limit_holds_under_concurrency(engine: Engine) -> None:
    await engine.run("u", configure("u", overdraft_limit=7))

    lines = await asyncio.gather(*(engine.run("u", deduct("u", 1, "overdraft")) for _ in range(20)))

    assert sorted(line.split(" ")[1] for line in lines) == ["insufficient"] * 13 + ["ok"] * 7


async def test_reserve_and_release_in_parallel_lose_nothing(engine: Engine) -> None:
    await engine.run("u", grant("u", "g", 20))

    async def once(n: int) -> int:
        name = f"r{n}"
        line = await engine.run("u", reserve("u", name, 1, HOUR, chosen=True))
        if line.split(" ")[1] != "ok":
            return 0
        end = commit(name) if n % 2 else release(name)
        return int((await engine.run_for_reservation(name, end)).split(" ")[1] == "ok" and n % 2)

    spent = sum(await asyncio.gather(*(once(n) for n in range(60))))

    assert (await engine.run("u", balance("u"))).endswith(f" {20 - spent} 0 0")
    assert await engine.faults() == []


def _connections(url: str) -> set[str]:
    """Those of this session's other fixtures included; not the one that asks."""
    with Redis.from_url(url) as client:
        return {found["id"] for found in client.client_list()} - {str(client.client_id())}


async def _no_connection_left(url: str, before: set[str]) -> None:
    await until(lambda: _connections(url) <= before, "connections were left open")


def test_every_failure_to_decide_is_an_unavailable() -> None:
    assert issubclass(RedisUnavailable, Unavailable) and issubclass(Unavailable, MeterError)
