"""A Redis Cluster: the keys of a partition share a slot, and each call goes to the node that serves it.

The map of slots is read from any node, and again when something contradicts it: MOVED, a node that is lost, a cluster
that is down. redis-py's own cluster client is not used: before 8.0.1 each call that is cancelled costs it a connection.

A batch that is answered MOVED was not applied. It is not sent on from here: who serves its partition now may have an
older history (a replica that took over), so its sender is to look first, as after a lost connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from math import inf
from typing import Any, TypeVar

from redis import exceptions
from redis.crc import key_slot

from meter.engine.connections import NotApplied, redirection_of
from meter.engine.redis import RedisGateway
from meter.engine.redis_faults import fault_of
from meter.errors import RedisDenied, RedisUnavailable
from meter.redis_urls import Address

SLOTS = 16384
READ_AGAIN_SECONDS = 0.1
"""How often the map is read at most, while a cluster is without one of its masters."""
REDIRECTIONS_MAX = 5
_DOWN = ("CLUSTERDOWN", "MASTERDOWN", "READONLY", "TRYAGAIN", "LOADING")

_Reply = TypeVar("_Reply")


class ClusterGateway(RedisGateway):
    """The gateway to all masters, each of which has one of its own."""

    def __init__(self, seeds: Sequence[Address], gateway_to: Callable[[Address], RedisGateway]) -> None:
        """`seeds` are nodes that the cluster is asked at first; `gateway_to` makes what one node is spoken to with."""
        super().__init__(None)
        self._seeds = tuple(seeds)
        self._gateway_to = gateway_to
        self._nodes: dict[Address, RedisGateway] = {}
        self._masters: list[RedisGateway] = []
        self._replicas: tuple[Address, ...] = ()
        self._served_by: list[Address | None] = [None] * SLOTS
        self._sent_to: dict[int, Address] = {}
        self._ledgers: dict[str, str] = {}
        self._doubted: set[Address] = set()
        self._is_stale = True
        self._read_at = -inf
        self._reading: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def patience_seconds(self) -> float:
        """That of the masters; nobody knows where one has to be connected, or the map to be read."""
        return inf if self._is_stale else max([node.patience_seconds for node in self._masters], default=inf)

    async def call(self, *arguments: str | int) -> object:
        """As a single server does it, at the node that has the key. Raises `NotApplied` for a script that is."""
        is_script = arguments[0] in ("EVALSHA", "EVAL")
        key = str(arguments[3] if is_script else arguments[1])

        def send(node: RedisGateway, *, asking: bool) -> Awaitable[object]:
            return node.call_asking(*arguments) if asking else node.call(*arguments)

        return await self._at_its_node(key, send, follows=not is_script)

    async def call_waiting(self, wait: tuple[int, int], *arguments: str | int) -> tuple[object, int]:
        """The same. While a slot is moved, nobody can say who has what."""

        async def send(node: RedisGateway, *, asking: bool) -> tuple[object, int]:
            return (await node.call_asking(*arguments), 0) if asking else await node.call_waiting(wait, *arguments)

        return await self._at_its_node(str(arguments[3]), send, follows=False)

    async def command(self, *arguments: str | int | bytes) -> Any:
        """The same. One without a key, such as TIME, is for whoever has the first slot."""

        def send(node: RedisGateway, *, asking: bool) -> Awaitable[Any]:
            return node.command_asking(*arguments) if asking else node.command(*arguments)

        return await self._at_its_node(str(arguments[1]) if len(arguments) > 1 else None, send)

    async def wait_for_entry(self, outbox_key: str, after_seq: int, seconds: float, *, asking: bool = False) -> bool:
        """The same."""

        def send(node: RedisGateway, *, asking: bool) -> Awaitable[bool]:
            return node.wait_for_entry(outbox_key, after_seq, seconds, asking=asking)

        return await self._at_its_node(outbox_key, send)

    async def servers(self) -> Sequence[RedisGateway]:
        """Every master, and the replicas that answer: each may be a master tomorrow."""
        try:
            await self._read()
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        found = list(self._masters)
        for address in self._replicas:
            try:
                await self._node(address).info()
            except RedisDenied:
                pass  # it answers; the same question is put again, and told
            except RedisUnavailable:
                continue
            found.append(self._node(address))
        return found

    async def check_scheme(self) -> None:
        """Asks the nodes of the URL."""
        for address in self._seeds:
            await self._node(address).check_scheme()

    def keep_to(self, meta_key: str, ledger: str) -> None:
        """No program is run on a node whose partition there belongs to another ledger."""
        self._ledgers[meta_key] = ledger
        address = self._served_by[_slot(meta_key)]
        if address is not None:
            self._node(address).keep_to(meta_key, ledger)

    async def close(self) -> None:
        """Closes every connection to every node."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await asyncio.gather(*self._closing, *(node.close() for node in self._nodes.values()), return_exceptions=True)

    async def _at_its_node(
        self, key: str | None, send: Callable[..., Awaitable[_Reply]], *, follows: bool = True
    ) -> _Reply:
        """Sends a call to the node that serves a key, and on to where that one says that it is."""
        slot = 0 if key is None else _slot(key)
        address, asking = await self._address(slot), False
        if not follows and self._sent_to.setdefault(slot, address) != address:
            raise self._elsewhere(slot, address)
        for _ in range(REDIRECTIONS_MAX):
            try:
                return await send(self._node(address), asking=asking)
            except exceptions.ResponseError as error:
                word, text = redirection_of(error)
                if not word:
                    self._doubt(address, error)
                    raise
                address, asking = _place_told(text, address), word == "ASK"
                self._is_stale = True
                if word == "MOVED":
                    self._served_by[slot] = address
                    if not follows:
                        raise self._elsewhere(slot, address) from None
            except (exceptions.RedisError, OSError, asyncio.CancelledError) as error:
                self._doubt(address, error)
                raise
        raise NotApplied(f"slot {slot} is sent from node to node")

    def _elsewhere(self, slot: int, address: Address) -> NotApplied:
        """Whoever sends a batch to another node than the last one is to look first, however it was found."""
        self._sent_to[slot] = address
        return NotApplied("its partition is served by {}:{} now".format(*address))

    def _doubt(self, address: Address, error: BaseException) -> None:
        """A node that was lost, or that says it cannot serve, may have been replaced."""
        if not isinstance(error, exceptions.ResponseError) or _is_down(error):
            self._is_stale = True
            self._doubted.add(address)

    async def _address(self, slot: int) -> Address:
        if self._is_stale and time.monotonic() - self._read_at >= READ_AGAIN_SECONDS:
            await self._read()
        address = self._served_by[slot]
        if address is None:
            self._is_stale = True
            raise NotApplied(f"nobody serves slot {slot}")
        return address

    async def _read(self) -> None:
        """Reads the map; callers at the same time share one reading, which no cancelled one ends."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_map(), name="meter-cluster-map")
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._reading)

    async def _read_map(self) -> None:
        """Asks one node after the other, those that gave cause for doubt last."""
        self._read_at = time.monotonic()
        known = dict.fromkeys((*filter(None, self._served_by), *self._replicas, *self._seeds))
        failed: Exception | None = None
        for address in sorted(known, key=lambda one: one in self._doubted):
            try:
                told = await self._node(address).command("CLUSTER", "SLOTS")
            except (exceptions.RedisError, OSError) as error:
                failed = error
                continue
            if told:
                self._take(told, address)
                return
        raise failed or NotApplied("no node knows who serves what")

    def _take(self, told: list[Any], asked: Address) -> None:
        served_by: list[Address | None] = [None] * SLOTS
        replicas: dict[Address, None] = {}
        for first, last, master, *others in told:
            served_by[first : last + 1] = [_address(master, asked)] * (last - first + 1)
            replicas.update(dict.fromkeys(_address(one, asked) for one in others))
        self._served_by, self._replicas = served_by, tuple(replicas)
        self._masters = [self._node(one) for one in dict.fromkeys(served_by) if one is not None]
        self._is_stale = False
        self._doubted.clear()
        for address in [one for one in self._nodes if one not in replicas and one not in served_by]:
            self._closing.add(task := asyncio.create_task(self._nodes.pop(address).close(), name="meter-cluster-close"))
            task.add_done_callback(self._closing.discard)
        for meta_key, ledger in self._ledgers.items():
            self.keep_to(meta_key, ledger)

    def _node(self, address: Address) -> RedisGateway:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._gateway_to(address)
        return node


@lru_cache(4096)
def _slot(key: str) -> int:
    return int(key_slot(key.encode()))


def _is_down(error: exceptions.ResponseError) -> bool:
    kinds = (
        exceptions.ClusterDownError,
        exceptions.MasterDownError,
        exceptions.ReadOnlyError,
        exceptions.TryAgainError,
    )
    return isinstance(error, kinds) or str(error).startswith(_DOWN)


def _place_told(text: str, asked: Address) -> Address:
    """Where "866 10.0.0.1:6379" sends to; its host may be empty: that of whoever said it."""
    host, _, port = text.rpartition(" ")[2].rpartition(":")
    return host.strip("[]") or asked[0], int(port)


def _address(told: list[Any], asked: Address) -> Address:
    host = told[0].decode() if told[0] else ""
    return (asked[0] if host in ("", "?") else host), int(told[1])
