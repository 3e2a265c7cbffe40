"""X24: a Redis Cluster: each partition at its node, whatever is moved, and no worse for it (real servers)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from meter.config import Settings
from meter.engine.cluster import ClusterGateway
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import balance, deduct, grant
from meter.engine.redis import RedisGateway
from meter.engine.rights import COMMANDS, Who
from meter.errors import ConfigError, PartitionRefused, RedisUnavailable
from meter.health.presence import Presences, Worker
from meter.keys import PartitionKeys
from meter.worker.queue import check_queue, queue_pool
from tests.clusters import ClusterOfNodes, Node, cluster, until
from tests.e2e.processes import environment, run_meter

pytestmark = pytest.mark.slow

PARTITIONS = 8
KEYS = PartitionKeys(0)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfNodes]:
    """Three masters."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(autouse=True)
def _emptied(nodes: ClusterOfNodes) -> None:
    for node in nodes.nodes:
        node.client.flushall()


def settings_of(nodes: ClusterOfNodes, **more: Any) -> Settings:
    given: dict[str, Any] = {"partitions": PARTITIONS, "redis_timeout_ms": 10_000, **more}
    return Settings(redis_url=nodes.url, store_url="none", **given)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[tuple[Engine, RedisGateway]]:
    gateway = connect(settings.redis_url, timeout_seconds=2, connections_max=20)
    engine = Engine(gateway, settings)
    try:
        await engine.start()
        yield engine, gateway
    finally:
        await engine.close()
        await gateway.close()


def user_of(engine: Engine, partition: int) -> str:
    """A user whose account that partition has."""
    return next(f"u{n}" for n in range(1000) if engine.partition_of(f"u{n}") == partition)


def another(nodes: ClusterOfNodes, than: Node) -> Node:
    return next(node for node in nodes.nodes if node is not than)


async def until_served(engine: Engine, user: str) -> str:
    async with asyncio.timeout(30):
        while True:
            try:
                return await engine.run(user, balance(user))
            except RedisUnavailable:
                await asyncio.sleep(0.02)


async def test_x24_partitions_are_spread_by_their_hash_tag_and_each_is_whole(nodes: ClusterOfNodes) -> None:
    async with started(settings_of(nodes)) as (engine, gateway):
        users = [user_of(engine, number) for number in range(PARTITIONS)]
        await asyncio.gather(*(engine.run(user, grant(user, f"g-{user}", 100)) for user in users))
        lines = await asyncio.gather(*(engine.run(user, deduct(user, 1)) for user in users * 5))
        assert {line.split(" ")[1] for line in lines} == {"ok"}
        for number, user in enumerate(users):
            assert (await engine.run(user, balance(user))).endswith(" 95 0 0")
            assert len(await gateway.outbox_entries(engine.partitions[number].outbox, 0, 100)) >= 1
            assert await gateway.account_users(engine.partitions[number].accounts) == [user]
        found = {node.port: {str(key.decode()) for key in node.client.keys("*")} for node in nodes.nodes}
        assert all(found.values())
        homes = [[port for port, keys in found.items() if keys >= set(one.all)] for one in engine.partitions]
        assert [len(home) for home in homes] == [1] * PARTITIONS
        told = Presences(gateway, "meter")
        await told.tell(Worker(worker_id="w", version="1", started_at_ms=1, seen_at_ms=await told.now_ms()))
        assert [one.worker_id for one in await told.seen()] == ["w"]


async def test_x24_a_slot_that_was_moved_is_followed(nodes: ClusterOfNodes) -> None:
    async with started(settings_of(nodes)) as (engine, gateway):
        user = user_of(engine, 0)
        await engine.run(user, grant(user, "g", 100))
        await engine.run(user, deduct(user, 1))
        waiting = asyncio.create_task(gateway.wait_for_outbox(KEYS.outbox, 2, 30.0))
        source = nodes.master_of(KEYS.meta)
        target = another(nodes, source)
        await asyncio.to_thread(move, nodes, source, target)
        assert (await engine.run(user, deduct(user, 1))).endswith(" 98 0 0")
        assert await waiting
        assert await gateway.existing(KEYS.all) == len(KEYS.all)
        assert sum(counts.batches["stored"] for counts in engine.counts) == 0
    assert nodes.master_of(KEYS.meta) is target


async def test_x24_while_a_slot_is_moved_it_is_served_but_for_the_moment_between_two_keys(
    nodes: ClusterOfNodes,
) -> None:
    async with started(settings_of(nodes)) as (engine, gateway):
        user = user_of(engine, 0)
        await engine.run(user, grant(user, "g", 100))
        source = nodes.master_of(KEYS.meta)
        target = another(nodes, source)
        nodes.begin_to_move(KEYS.meta, target)
        assert (await engine.run(user, deduct(user, 1))).endswith(" 99 0 0")

        nodes.move_keys(source, target, *KEYS.all[:5])
        spending = asyncio.create_task(engine.run(user, deduct(user, 1)))
        await asyncio.sleep(0.2)
        assert not spending.done()  # TRYAGAIN, again and again
        with pytest.raises(RedisUnavailable):
            await gateway.existing(KEYS.all)
        state = await gateway.partition_state(KEYS.meta)  # ASK
        assert state is not None and state.seq == 2

        nodes.move_keys(source, target, *KEYS.all[5:])
        assert (await spending).endswith(" 98 0 0")
        assert (await engine.run(user, deduct(user, 1))).endswith(" 97 0 0")
        assert len(await gateway.outbox_entries(KEYS.outbox, 0, 10)) == 4
        assert await gateway.wait_for_outbox(KEYS.outbox, 3, 5.0)
        assert await gateway.account_users(KEYS.accounts) == [user]
        nodes.end_move(KEYS.meta, source, target)
        assert (await engine.run(user, deduct(user, 1))).endswith(" 96 0 0")


async def test_x24_a_budget_that_ends_while_keys_are_apart_leaves_nothing_done(nodes: ClusterOfNodes) -> None:
    async with started(settings_of(nodes, redis_timeout_ms=300)) as (engine, _):
        user = user_of(engine, 0)
        await until_served(engine, user)
        await engine.run(user, grant(user, "g", 100))
        source = nodes.master_of(KEYS.meta)
        target = another(nodes, source)
        nodes.begin_to_move(KEYS.meta, target)
        nodes.move_keys(source, target, *KEYS.all[:5])
        with pytest.raises(RedisUnavailable):
            await engine.run(user, deduct(user, 1))
        nodes.move_keys(source, target, *KEYS.all[5:])
        nodes.end_move(KEYS.meta, source, target)
        assert (await until_served(engine, user)).endswith(" 100 0 0")


@pytest.mark.parametrize("is_found_before", [False, True], ids=["by the batch", "by a command before"])
async def test_x24_x3_who_serves_a_partition_next_is_looked_at_first(
    nodes: ClusterOfNodes, *, is_found_before: bool
) -> None:
    """A node that takes over with an older history, and that others have spent on since: the one that knows better is
    not served, however far the others are.
    """
    async with started(settings_of(nodes)) as (engine, gateway):
        user = user_of(engine, 0)
        await engine.run(user, grant(user, "g", 100))
        source = nodes.master_of(KEYS.meta)
        older = {key: source.client.dump(key) for key in KEYS.all}
        for _ in range(3):
            await engine.run(user, deduct(user, 1))
        target = another(nodes, source)
        await asyncio.to_thread(move, nodes, source, target)
        for key, text in older.items():
            target.client.restore(key, 0, text, replace=True)
        async with started(settings_of(nodes)) as (other, _):
            for _ in range(5):
                await other.run(user, deduct(user, 1))
            if is_found_before:
                assert await gateway.partition_state(KEYS.meta)
            with pytest.raises(PartitionRefused, match="though seq 4 of epoch 1 was acknowledged"):
                await engine.run(user, deduct(user, 1))
            with pytest.raises(PartitionRefused, match="lost"):
                await other.run(user, deduct(user, 1))


async def test_x24_cancelled_callers_leak_no_connection(nodes: ClusterOfNodes) -> None:
    async with started(settings_of(nodes)) as (engine, gateway):
        users = [user_of(engine, number) for number in range(PARTITIONS)]
        for round_ in range(20):
            calls: list[asyncio.Task[object]] = []
            calls += [asyncio.create_task(engine.run(user, deduct(user, 0))) for user in users * 3]
            calls += [asyncio.create_task(gateway.partition_state(keys.meta)) for keys in engine.partitions]
            await asyncio.sleep(0.0005 * round_)
            for call in calls[::2]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert await gateway.partition_state(KEYS.meta)
        assert max(connections(nodes)) <= 2 * PARTITIONS + 20
    assert isinstance(gateway, ClusterGateway)
    await asyncio.to_thread(until, lambda: connections(nodes) == [1, 1, 1], "every connection is closed")


@pytest.mark.parametrize(("name", "value"), [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")])
async def test_x24_u1_one_node_that_may_lose_balances_is_enough_to_refuse(
    nodes: ClusterOfNodes, name: str, value: str
) -> None:
    node, before = nodes.nodes[2], nodes.nodes[2].client.config_get(name)[name]
    node.client.config_set("maxmemory", "500mb")
    node.client.config_set(name, value)
    try:
        with pytest.raises(ConfigError, match=rf"the node 127.0.0.1:{node.port} must not hold balances: .*{value}"):
            async with started(settings_of(nodes, redis_unsafe=False)):
                pass
    finally:
        node.client.config_set(name, before)
        node.client.config_set("maxmemory", "0")


async def test_x24_x8_the_rights_are_asked_for_at_every_node(nodes: ClusterOfNodes) -> None:
    who = (Who.SCRIPT, Who.PROCESS, Who.NODE)
    rules = ["~meter:*", "-@all", *(f"+{name.lower()}" for one in who for name in COMMANDS[one])]
    rules = [rule.replace("+cluster", "+cluster|slots") for rule in rules]
    for node in nodes.nodes:
        node.ask("ACL", "SETUSER", "m", "reset", "on", ">pw", *rules)
    url = nodes.url.replace("://", "://m:pw@")
    settings = settings_of(nodes).model_copy(update={"redis_url": url})
    async with started(settings) as (engine, _):
        assert (await engine.run("u", grant("u", "g", 1))).startswith("0 ok")
    for missing in ("xadd", "asking", "cluster"):
        nodes.nodes[1].ask("ACL", "SETUSER", "m", f"-{missing}")
        with pytest.raises(ConfigError, match=rf"node 127.0.0.1:{nodes.nodes[1].port}.*{missing.upper()}"):
            async with started(settings):
                pass
        nodes.nodes[1].ask("ACL", "SETUSER", "m", *rules)


async def test_x24_a_cluster_behind_a_plain_url_and_the_other_way_round(nodes: ClusterOfNodes, redis_url: str) -> None:
    port = next(node for node in nodes.nodes if node is not nodes.master_of(KEYS.meta)).port
    for url, words in (
        (f"redis://127.0.0.1:{port}/0", r"Redis Cluster: redis\+cluster://"),
        (redis_url.replace("redis://", "redis+cluster://"), "no Redis Cluster: redis://"),
    ):
        with pytest.raises(ConfigError, match=f"^METER_REDIS_URL: .*{words}"):
            async with started(settings_of(nodes, partitions=1).model_copy(update={"redis_url": url})):
                pass


async def test_x24_arq_has_a_redis_of_its_own(nodes: ClusterOfNodes, redis_url: str, tmp_path: Path) -> None:
    settings = settings_of(nodes)
    for asked in (check_queue(settings), asyncio.to_thread(queue_pool, settings)):
        with pytest.raises(ConfigError, match=r"^METER_QUEUE_URL: METER_REDIS_URL is a Redis Cluster"):
            await asked
    await check_queue(settings.model_copy(update={"queue_url": redis_url}))
    env = environment(redis_url=nodes.url, store_url="none", redis_timeout_ms=10_000)
    run = await asyncio.to_thread(run_meter, "worker", cwd=tmp_path, env=env)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1 and "METER_QUEUE_URL" in run.stderr


def connections(nodes: ClusterOfNodes) -> list[int]:
    """Open connections of each node, our own among them, without those that a MIGRATE keeps for the next."""
    found = [node.client.client_list(_type="normal") for node in nodes.nodes]
    return [sum(not one["cmd"].startswith("restore") for one in clients) for clients in found]


def move(nodes: ClusterOfNodes, source: Node, target: Node) -> None:
    """Moves partition 0 as `redis-cli --cluster reshard` does."""
    nodes.begin_to_move(KEYS.meta, target)
    nodes.move_keys(source, target, *source.ask("CLUSTER", "GETKEYSINSLOT", key_slot(KEYS.meta.encode()), 100))
    nodes.end_move(KEYS.meta, source, target)
