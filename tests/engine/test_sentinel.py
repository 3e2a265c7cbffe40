"""X25: the master that Sentinels know: found at each connection, and found again when it is another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from meter.config import Settings
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import balance, deduct, grant
from meter.engine.redis_url import NO_TLS_FILES
from meter.engine.rights import COMMANDS, Who
from meter.engine.sentinel import Sentinels
from meter.errors import ConfigError, RedisUnavailable
from meter.redis_urls import place_of
from meter.worker.queue import check_queue, queue_pool
from tests.clusters import Watched, until, watched
from tests.engine.test_engine import until_served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master, its replica and three Sentinels."""
    with watched(tmp_path_factory.mktemp("watched")) as found:
        yield found


def settings_of(url: str) -> Settings:
    return Settings(redis_url=url, store_url="none", redis_timeout_ms=10_000)


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Engine]:
    gateway = connect(url, timeout_seconds=2, connections_max=10)
    engine = Engine(gateway, settings_of(url))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
        await gateway.close()


def swap(servers: Watched) -> None:
    """Makes the replica the master, and the master a replica; both live."""
    before = servers.master()
    servers.sentinels[0].ask("SENTINEL FAILOVER", servers.SERVICE)
    until(lambda: servers.master() is not before and before.client.role()[0] == b"slave", "the roles are swapped")
    until(lambda: before.client.info()["master_link_status"] == "up", "the replica follows")


async def test_x25_the_master_is_found_again_when_the_roles_are_swapped(servers: Watched) -> None:
    async with started(servers.url) as engine:
        await until_served(engine, grant("u", "g", 100))
        assert (await engine.run("u", deduct("u", 1))).endswith(" 99 0 0")
        pool = queue_pool(settings_of(servers.url))
        await pool.set("meter:q", b"1")

        await asyncio.to_thread(swap, servers)

        assert (await until_served(engine, balance("u"))).endswith(" 99 0 0")
        assert (await engine.run("u", deduct("u", 1))).endswith(" 98 0 0")
        with suppress(RedisConnectionError):  # the one that was closed, which redis-py 8 does not look at first
            await pool.get("meter:q")
        assert await pool.get("meter:q") == b"1"
        await pool.set("meter:q", b"2")
        await pool.aclose(close_connection_pool=True)
        await check_queue(settings_of(servers.url))
        assert servers.master().client.hget("meter:{p0}:meta", "seq") == b"3"


async def test_x25_one_sentinel_that_is_right_is_enough_and_one_behind_is_outvoted(servers: Watched) -> None:
    """Of those that answer, the one that saw the latest failover is believed."""
    master = ("127.0.0.1", servers.master().port)
    place = place_of(servers.url)
    assert await Sentinels(place, NO_TLS_FILES).master() == master
    right = servers.sentinels[2].port
    for hosts in (f"127.0.0.1:1,127.0.0.1:{right}", f"127.0.0.1:{right},no-such-host.invalid"):
        found = Sentinels(place_of(f"redis+sentinel://{hosts}/{servers.SERVICE}"), NO_TLS_FILES)
        assert await found.master() == master
    behind = servers.sentinels[0]
    other = next(one for one in servers.servers if one is not servers.master())
    behind.ask("SENTINEL", "MONITOR", "old", "127.0.0.1", other.port, 3)
    with pytest.raises(RedisUnavailable, match="is no master any more"):
        gateway = connect(f"redis+sentinel://127.0.0.1:{behind.port}/old", timeout_seconds=2, connections_max=1)
        try:
            await gateway.partition_state("meter:{p0}:meta")
        finally:
            await gateway.close()
    behind.ask("SENTINEL", "REMOVE", "old")


async def test_x25_what_sentinels_do_not_know_is_told(servers: Watched) -> None:
    with pytest.raises(ConfigError, match=r"^METER_REDIS_URL: the Sentinels know no master of that name"):
        async with started(servers.url.replace("/main/", "/other/")):
            pass
    gateway = connect("redis+sentinel://127.0.0.1:1/main", timeout_seconds=2, connections_max=1)
    with pytest.raises(RedisUnavailable, match="no Sentinel named the master of 'main'"):
        await gateway.ping()
    await gateway.close()


async def test_x25_sentinels_have_a_password_of_their_own(servers: Watched) -> None:
    for sentinel in servers.sentinels:
        sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">watch")
    try:
        with pytest.raises(ConfigError, match=r"METER_REDIS_URL: .*a Sentinel .*sentinel_password="):
            async with started(servers.url):
                pass
        async with started(servers.url + "?sentinel_password=watch") as engine:
            assert (await engine.run("u", balance("u"))).startswith("0 ok")
    finally:
        for sentinel in servers.sentinels:
            sentinel.ask("ACL", "SETUSER", "default", "nopass")


async def test_x25_x8_the_right_to_ask_for_the_role_is_declared(servers: Watched) -> None:
    who = (Who.SCRIPT, Who.PROCESS, Who.LED)
    rules = ["~meter:*", "-@all", *(f"+{name.lower()}" for one in who for name in COMMANDS[one])]
    url = servers.url.replace("://", "://m:pw@")
    servers.master().ask("ACL", "SETUSER", "m", "reset", "on", ">pw", *rules)
    async with started(url) as engine:
        assert (await engine.run("u", balance("u"))).startswith("0 ok")
    servers.master().ask("ACL", "SETUSER", "m", "-role")
    with pytest.raises(ConfigError, match=r"^METER_REDIS_URL: Redis refuses its user: .*role.*docs/redis.md"):
        async with started(url):
            pass
