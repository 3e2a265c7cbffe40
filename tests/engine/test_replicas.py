"""X26: METER_WAIT_REPLICAS: who is told that a change is done loses it with no master that dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from meter.config import Settings
from meter.contract.answers import Added, Deducted, Pending, Refunded
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import Asked, balance, deduct, grant, reserve
from meter.errors import ConfigError, MeterError, NotReplicated, Unavailable, Undecided
from meter.in_process import Meter
from tests.clusters import Node, until

pytestmark = pytest.mark.slow


class Pair:
    """A master and its replica."""

    def __init__(self, master: Node, replica: Node) -> None:
        self.master, self.replica = master, replica
        self.url = f"redis://127.0.0.1:{master.port}/0"
        until(self._is_followed, "the replica follows")

    def _is_followed(self) -> bool:
        """A replica that calls its link up is sent nothing before its next REPLCONF ACK, up to a second later."""
        self.master.client.set("first", 1)
        return bool(self.master.client.wait(1, 1_000))

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """The replica hears nothing."""
        os.kill(self.replica.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.replica.process.pid, signal.SIGCONT)

    def sent(self, name: str) -> int:
        """How often a command was run, by scripts too."""
        return int(self.master.client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    master = Node(folder)
    replica = Node(folder, "--replicaof", "127.0.0.1", str(master.port))
    yield Pair(master, replica)
    replica.close()
    master.close()


@pytest.fixture(autouse=True)
def _emptied(pair: Pair) -> None:
    pair.master.client.flushall()
    pair.master.client.config_resetstat()


def settings_of(pair: Pair, **more: Any) -> Settings:
    return Settings(
        **{"redis_url": pair.url, "store_url": "none", "redis_timeout_ms": 2_000, "wait_replicas": 1, **more}
    )


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Engine]:
    gateway = connect(settings.redis_url, timeout_seconds=1, connections_max=4)
    engine = Engine(gateway, settings)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
        await gateway.close()


async def test_x26_grants_wait_and_spending_does_not(pair: Pair) -> None:
    async with started(settings_of(pair)) as engine:
        assert (await engine.run("u", grant("u", "g", 100))).startswith("0 ok")
        assert (await engine.run("u", deduct("u", 10))).startswith("0 ok")
        assert pair.sent("wait") == 1
        with pair.stalled():
            assert (await engine.run("u", deduct("u", 10))).startswith("0 ok")
            with pytest.raises(NotReplicated, match=r"0 of 1 replicas.*same Idempotency-Key"):
                await engine.run("u", grant("u", "h", 100))
            assert (await engine.run("u", balance("u"))).endswith(" 180 0 0")


async def test_x26_the_same_key_waits_anew_and_does_it_once(pair: Pair) -> None:
    once = grant("u", "g", 100, asked=Asked("k"))
    async with started(settings_of(pair)) as engine, started(settings_of(pair)) as another:
        with pair.stalled():
            for sidecar in (engine, engine, another):  # whose connection has written nothing
                with pytest.raises(NotReplicated):
                    await sidecar.run("u", once)
            mine, other = engine.run("u", once), engine.run("v", deduct("v", 0))
            told, beside = await asyncio.gather(mine, other, return_exceptions=True)
            assert isinstance(told, NotReplicated) and isinstance(beside, str)  # in one batch, and each its own
        line = await engine.run("u", once)
        assert line.startswith("1 ok") and line.endswith(" 100 0 0")
        assert pair.replica.client.hget("meter:{p0}:meta", "seq") == b"1"
        assert sum(counts.batches["done"] for counts in engine.counts) == 4


async def test_x26_all_waits_for_every_change_and_for_nothing_else(pair: Pair) -> None:
    async with started(settings_of(pair, wait_replicas_for="all")) as engine:
        await engine.run("u", grant("u", "g", 100))
        await engine.run("u", balance("u"))
        assert pair.sent("wait") == 1
        with pair.stalled():
            assert (await engine.run("u", deduct("u", 1000))).split(" ")[1] == "insufficient"  # nothing was done
            for one in (deduct("u", 1), reserve("u", "r", 1, 60_000, chosen=True)):
                with pytest.raises(NotReplicated):
                    await engine.run("u", one)
            with pytest.raises(NotReplicated):
                await engine.run_many(0, (deduct("u", 1), deduct("u", 1)), "atomic")
            lines = await engine.run_many(0, (deduct("u", 1), deduct("u", 1000)), "atomic")
            assert [line.split(" ")[1] for line in lines] == ["ok", "insufficient"]
            assert (await engine.run("u", balance("u"))).endswith(" 96 1 0")


async def test_x26_who_must_know_is_told_what_was_done_to_take_it_back(pair: Pair) -> None:
    async with started(settings_of(pair, wait_replicas_for="all")) as engine:
        await engine.run("u", grant("u", "g", 100))
        told: asyncio.Future[str | MeterError] = asyncio.get_running_loop().create_future()
        with pair.stalled():
            engine.submit("u", deduct("u", 1), told.set_result, asyncio.get_running_loop().time() + 1)
            error = await told
        assert isinstance(error, Undecided)
        (line,) = error.outcome.result()  # type: ignore[misc]
        assert line.startswith("0 ok u ")


async def test_x26_nothing_of_it_is_sent_where_nobody_waits(pair: Pair) -> None:
    async with started(settings_of(pair, wait_replicas=0, wait_replicas_for="all")) as engine:
        await engine.run("u", grant("u", "g", 100))
        await engine.run("u", deduct("u", 1))
        assert pair.sent("wait") == 0
        assert not pair.master.client.hexists("meter:{p0}:meta", "waited")


async def test_x26_an_add_is_pending_until_replicas_have_it(pair: Pair, tmp_path: Path) -> None:
    settings = settings_of(pair, store_url=f"sqlite:///{tmp_path}/m.db")
    async with Meter(settings) as meter:
        with pair.stalled():
            assert isinstance(await meter.add("u", 10, idempotency_key="k"), Pending)
        added = await meter.add("u", 10, idempotency_key="k")
        assert isinstance(added, Added) and added.available == 10
        charged = await meter.deduct("u", 4)
        assert isinstance(charged, Deducted) and charged.transaction_id
        waited = pair.sent("wait")
        with pair.stalled(), pytest.raises(Unavailable, match="0 of 1 replicas"):
            await meter.refund("u", charged.transaction_id, 1, idempotency_key="r")
        refunded = await meter.refund("u", charged.transaction_id, 1, idempotency_key="r")
        assert isinstance(refunded, Refunded) and refunded.available == 7
        assert pair.sent("wait") == waited + 2


async def test_x26_x8_the_right_to_wait_is_asked_for(pair: Pair) -> None:
    pair.master.ask("ACL", "SETUSER", "m", "reset", "on", ">pw", "~*", "+@all", "-wait")
    url = pair.url.replace("://", "://m:pw@")
    async with started(settings_of(pair, redis_url=url, wait_replicas=0)) as engine:
        assert await engine.run("u", balance("u"))
    with pytest.raises(ConfigError, match="WAIT"):
        async with started(settings_of(pair, redis_url=url)):
            pass
