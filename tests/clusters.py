"""Real Redis Clusters, and masters with Sentinels, on loopback: slots can be moved, and servers killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.e2e.processes import free_port
from tests.servers import BINARY_VARIABLE

SERVER = os.environ.get(BINARY_VARIABLE) or shutil.which("redis-server") or ""
CLI = shutil.which("redis-cli") or ""
NODE_TIMEOUT_MS = 1000
SECONDS_MAX = 60.0


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS_MAX) -> None:
    """Returns when the condition holds; what Redis cannot answer yet counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(RedisError, StopIteration):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Node:
    """One server."""

    def __init__(self, folder: Path, *options: str, config: Path | None = None) -> None:
        """With `config` it is a Sentinel."""
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        place = ("--port", str(self.port), "--dir", str(self.folder))
        kept = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        self._command = (
            [SERVER, *place, *kept, *options] if config is None else [SERVER, str(config), *place, "--sentinel"]
        )
        self.client: Any = Redis(port=self.port, socket_timeout=5)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self.client.ping, "a node is there")

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID").decode())

    def ask(self, *call: object) -> Any:
        return self.client.execute_command(*call)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.client.close()


class ClusterOfNodes:
    """Masters, and as many replicas of each."""

    def __init__(self, nodes: list[Node], replicas: int) -> None:
        self.nodes = nodes
        where = [f"127.0.0.1:{node.port}" for node in nodes]
        self.url = f"redis+cluster://{','.join(where)}"
        self.cli("--cluster", "create", *where, "--cluster-replicas", str(replicas), "--cluster-yes")
        until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes), "the cluster is up")
        until(lambda: all(self._knows_all(node) for node in nodes), "every node knows the replicas")

    def _knows_all(self, node: Node) -> bool:
        ports = {end[1] for _, _, *ends in node.ask("CLUSTER", "SLOTS") for end in ends}
        return len(ports) == len(self.nodes)

    @staticmethod
    def cli(*arguments: str) -> str:
        run = subprocess.run([CLI, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def master_of(self, key: str) -> Node:
        """The node that serves a key, as the others see it."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            with suppress(RedisError):
                for first, last, master, *_ in node.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.nodes if one.port == master[1])
        raise AssertionError(f"nobody serves slot {slot}")

    def agreed(self) -> None:
        """Returns when every node tells the same of the slots; before that redis-cli moves none."""

        def views() -> set[tuple[Any, ...]]:
            told = [node.ask("CLUSTER", "SLOTS") for node in self.nodes]
            return {tuple(sorted((first, last, master[1]) for first, last, master, *_ in one)) for one in told}

        until(lambda: len(views()) == 1, "the nodes agree")

    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.client.role()[0] == b"master"]

    def begin_to_move(self, key: str, to: Node) -> Node:
        """Opens the slot of a key for a move; the node that has it."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return source

    @staticmethod
    def move_keys(source: Node, to: Node, *keys: str) -> None:
        source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, key: str, source: Node, to: Node) -> None:
        """The slot belongs to the other node from now on."""
        for node in (to, source, *self.nodes):
            with suppress(RedisError):  # a replica takes none
                node.ask("CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", to.id)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@contextmanager
def cluster(folder: Path, *options: str, masters: int = 3, replicas: int = 0) -> Iterator[ClusterOfNodes]:
    """A cluster that is up."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(masters * (1 + replicas)):
            of_cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
            nodes.append(Node(folder, *of_cluster, "--cluster-port", str(free_port()), *options))
            stack.callback(nodes[-1].close)
        yield ClusterOfNodes(nodes, replicas)


class Watched:
    """A master with a replica, and three Sentinels that make the other one master when it is gone."""

    SERVICE = "main"

    def __init__(self, folder: Path, servers: list[Node], sentinels: list[Node]) -> None:
        self.folder, self.servers, self.sentinels = folder, servers, sentinels
        where = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        self.url = f"redis+sentinel://{where}/{self.SERVICE}/0"
        until(lambda: all(self._knows_all(one) for one in sentinels), "the Sentinels know each other and the replica")

    def _knows_all(self, sentinel: Node) -> bool:
        told = sentinel.client.sentinel_master(self.SERVICE)
        return bool(told["num-slaves"] == 1 and told["num-other-sentinels"] == len(self.sentinels) - 1)

    def master(self) -> Node:
        """The master, as the first Sentinel says."""
        _, port = self.sentinels[0].client.sentinel_get_master_addr_by_name(self.SERVICE)
        return next(one for one in self.servers if one.port == port)


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """A master, its replica and their Sentinels."""
    with ExitStack() as stack:

        def started(*options: str) -> Node:
            node = Node(folder, *options)
            stack.callback(node.close)
            return node

        master = started()
        replica = started("--replicaof", "127.0.0.1", str(master.port))
        sentinels = []
        for number in range(3):
            file = folder / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor {Watched.SERVICE} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {Watched.SERVICE} {NODE_TIMEOUT_MS}\n"
                f"sentinel failover-timeout {Watched.SERVICE} 4000\n"
            )
            sentinels.append(Node(folder, config=file))
            stack.callback(sentinels[-1].close)
        yield Watched(folder, [master, replica], sentinels)
