"""X24, X25: masters that are killed under load, behind a Redis Cluster and behind Sentinels, by real processes.

What the store has is never lost, what it had not yet may be (replication is asynchronous), and then it is found before
anything more is spent of it, repaired, and told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clusters import ClusterOfNodes, Node, cluster, watched
from tests.clusters import until as wait_until
from tests.e2e.processes import run_meter
from tests.faults.deployment import until
from tests.faults.fleet import Fleet, Proof, fleet
from tests.servers import embedded_server

pytestmark = pytest.mark.slow

PARTITIONS = 12
STALLED_SECONDS = 0.5
"""How long the replica is cut off before its master is killed: less than a node's patience."""


def seq_of(transaction_id: str) -> int:
    return int(transaction_id.split("-")[1])


async def test_x24_a_cluster_is_resharded_and_loses_a_master_under_load(tmp_path: Path) -> None:
    with cluster(tmp_path / "nodes", replicas=1) as nodes, embedded_server(tmp_path / "queue") as queue:
        async with fleet(tmp_path, nodes.url, partitions=PARTITIONS, queue_url=queue.url) as found:
            found.spend()
            await found.goes_on()
            idle = [len(node.client.client_list(_type="normal")) for node in nodes.nodes]

            await asyncio.to_thread(reshard, nodes)
            await found.goes_on()
            assert not [why for one in found.spenders for why in one.refused if "lost" in why or "behind" in why]
            print("\nresharded: slowest call", max(one.slowest_seconds for one in found.spenders))  # noqa: T201

            victim = nodes.master_of("meter:{p0}:meta")
            homes = {number: nodes.master_of(f"meter:{{p{number}}}:meta") for number in range(PARTITIONS)}
            watermarks = await kill(found, victim, replica_of(nodes, victim))
            new = await asyncio.to_thread(seconds_until, lambda: nodes.master_of("meter:{p0}:meta") is not victim)
            served = time.monotonic()
            await found.goes_on()
            print(f"\nmaster after {new:.1f} s, all served {time.monotonic() - served:.1f} s later")  # noqa: T201
            victim.start()
            await found.goes_on(1.0)
            await found.stop_spending()
            proof = await found.prove()
            check(found, proof, watermarks)
            assert {number for number in proof.missing if homes[number] is not victim} == set()
            left = [len(node.client.client_list(_type="normal")) for node in nodes.nodes]
            assert max(left) <= max(idle) + 3 * PARTITIONS, (idle, left)


async def test_x24_u1_a_key_that_is_gone_from_a_node_closes_its_partition_until_it_is_rebuilt(tmp_path: Path) -> None:
    """The commands work on a cluster: rebuild makes the partition again at the node that has its slot."""
    with cluster(tmp_path / "nodes") as nodes, embedded_server(tmp_path / "queue") as queue:
        settings = {"queue_url": queue.url, "auto_repair": 0}
        async with fleet(tmp_path, nodes.url, partitions=3, **settings) as found:
            found.spend()
            await found.goes_on()
            await found.stop_spending()
            await until(found.reconciled, "0 drifts")
            nodes.master_of("meter:{p1}:accounts").client.delete("meter:{p1}:accounts")
            key = next(one for one in found.spenders if one.acknowledged[0].startswith("1-"))
            found.resume()
            await until(lambda: any("missing meter:{p1}:accounts" in why for why in key.refused), "it is refused")
            other = next(one for one in found.spenders if one.acknowledged[0].startswith("2-"))
            before = len(other.acknowledged)
            await until(lambda: len(other.acknowledged) > before, "the others go on")
            run = await asyncio.to_thread(run_meter, "rebuild", "--yes", "--json", cwd=tmp_path, env=found.env)
            assert run.returncode == 0, run.stderr
            await found.goes_on()
            await found.stop_spending()
            proof = await found.prove()
            assert proof.missing == {}


async def test_x25_the_master_of_sentinels_is_killed_under_load(tmp_path: Path) -> None:
    with watched(tmp_path / "servers") as servers:
        async with fleet(tmp_path, servers.url, partitions=2) as found:
            found.spend()
            await found.goes_on()
            victim = servers.master()
            watermarks = await kill(found, victim, next(one for one in servers.servers if one is not victim))
            new = await asyncio.to_thread(seconds_until, lambda: servers.master() is not victim)
            served = time.monotonic()
            await found.goes_on()
            print(f"\nmaster after {new:.1f} s, all served {time.monotonic() - served:.1f} s later")  # noqa: T201
            victim.start()  # the Sentinels make it a replica
            await asyncio.to_thread(seconds_until, lambda: victim.client.role()[0] == b"slave")
            await found.goes_on(1.0)
            await found.stop_spending()
            check(found, await found.prove(), watermarks)


def seconds_until(condition: Callable[[], object]) -> float:
    """How long it took until there was another master."""
    began = time.monotonic()
    wait_until(condition, "another master")
    return time.monotonic() - began


async def kill(found: Fleet, master: Node, replica: Node) -> dict[int, int]:
    """Kills a master whose replica has not heard of the last calls; how far the store was by then."""
    os.kill(replica.process.pid, signal.SIGSTOP)  # what it was sent waits in its socket
    await asyncio.sleep(STALLED_SECONDS / 5)
    master.client.client_kill_filter(_type="slave")
    await asyncio.sleep(STALLED_SECONDS)
    watermarks = await found.watermarks()
    master.kill()
    os.kill(replica.process.pid, signal.SIGCONT)
    return watermarks


def check(found: Fleet, proof: Proof, watermarks: dict[int, int]) -> None:
    """Nothing is lost that the store had, and whatever is lost was told by its partition."""
    lost = sum(map(len, proof.missing.values()))
    said = {
        number for number in range(found.partitions) if any(f"partition {number}: " in e.message for e in proof.events)
    }
    print(  # noqa: T201
        f"\n{proof.acknowledged} acknowledged, {lost} of them never flushed and gone from partitions "
        f"{sorted(proof.missing)}, told of {sorted(said)}; slowest call "
        f"{max(one.slowest_seconds for one in found.spenders):.1f} s, {sum(one.tries for one in found.spenders)} tries"
    )
    for number, transactions in proof.missing.items():
        assert min(map(seq_of, transactions)) > watermarks[number], "what the store had is lost"
    assert set(proof.missing) <= said, "a loss that nobody was told of"


def replica_of(nodes: ClusterOfNodes, master: Node) -> Node:
    (line,) = master.ask("CLUSTER", "REPLICAS", master.id)
    text = line.decode() if isinstance(line, bytes) else str(line)
    return next(node for node in nodes.nodes if f":{node.port}@" in text)


def reshard(nodes: ClusterOfNodes) -> None:
    """Moves the slots of three partitions by hand, their keys one after the other, and some more by redis-cli."""
    for number in range(3):
        key = f"meter:{{p{number}}}:meta"
        source = nodes.master_of(key)
        target = next(node for node in nodes.masters() if node is not source)
        nodes.begin_to_move(key, target)
        for name in sorted(source.client.scan_iter(f"meter:{{p{number}}}:*")):
            nodes.move_keys(source, target, name)
        nodes.end_move(key, source, target)
    nodes.agreed()
    first, second, *_ = nodes.masters()
    told = ("--cluster-from", first.id, "--cluster-to", second.id, "--cluster-slots", "40", "--cluster-yes")
    nodes.cli("--cluster", "reshard", f"127.0.0.1:{first.port}", *told, "--cluster-pipeline", "100")
