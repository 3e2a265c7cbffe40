"""X7: Redis and store each know whose ledger they hold; neither is served from by way of another's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest
from redis import Redis

from meter.config import Settings
from meter.engine.operations import deduct, grant
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError, ForeignLedger, MeterError, PartitionRefused, Unavailable
from meter.in_process import Meter
from meter.ledger.history_guard import HistoryLost
from meter.ledger.identity import kept_ledger, ledger_of
from meter.ledger.rebuild import Rebuild
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.rows import DeploymentRow
from tests.faulty_link import FaultyLink
from tests.ledger.ground import Ground, open_at
from tests.partition import Partition, dump
from tests.servers import Server, embedded_server, real_server

OURS, THEIRS = "20270101-aaaaaaaaaaaa", "20270101-bbbbbbbbbbbb"


def test_x7_a_partition_keeps_the_ledger_that_it_was_made_for(server: Server) -> None:
    partition = Partition(server.client)
    assert partition.open(ledger=OURS) == "opened"
    partition.run(grant("u", "g", 5))
    before = dump(partition.client)

    assert partition.open(ledger=OURS) == "present"
    assert partition.open(ledger=THEIRS) == f"foreign {OURS}"
    assert partition.open(how="check") == "present"  # nobody can tell now
    assert partition.open(how="rebuild", watermark=(9, 0, "-"), ledger=THEIRS) == f"foreign {OURS}"
    assert dump(partition.client) == before


@pytest.mark.parametrize("watermark", [(1, 9, "0-9-x-9"), (7, 1, "0-1-x-1")])
def test_x7_a_foreign_store_with_a_watermark_closes_nothing(server: Server, watermark: tuple[int, int, str]) -> None:
    partition = Partition(server.client)
    partition.open(ledger=OURS)
    partition.run(grant("u", "g", 5))
    before = dump(partition.client)

    assert partition.open(ledger=THEIRS, watermark=watermark) == f"foreign {OURS}"
    assert dump(partition.client) == before


def test_x7_a_partition_of_before_gets_the_ledger_of_the_store_that_has_its_history(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id
    partition.client.hset(partition.keys.meta, "flushed", "1")

    assert partition.open(ledger=THEIRS) == "foreign -"  # flushed, and this store has nothing
    assert partition.open(ledger=OURS, watermark=(1, 1, head)) == "present"
    assert partition.client.hget(partition.keys.meta, "ledger") == OURS.encode()


def test_x7_a_partition_that_never_had_a_store_takes_an_empty_one_only(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))

    assert partition.open(ledger=THEIRS, watermark=(3, 7, "0-7-x-1")) == "foreign -"
    assert partition.open(ledger=OURS) == "present"
    assert partition.open(ledger=THEIRS) == f"foreign {OURS}"


async def test_x7_a_store_has_one_id_for_ever_whoever_asks_first(store: Store, gateway: RedisGateway) -> None:
    ids = await asyncio.gather(*(ledger_of(store, gateway, ()) for _ in range(5)))
    assert len(set(ids)) == 1
    await store.open({"decimal_places": "6", "partitions": "1"})
    assert await kept_ledger(store) == ids[0]


@pytest.mark.parametrize("more", [False, True])
async def test_x7_a_dump_of_before_ids_is_known_by_where_it_ends(ground: Ground, more: bool) -> None:
    """Restored after an upgrade: it has no id, and is the store of this Redis all the same."""
    ground.run(grant("u", "g", 100))
    ours = await kept_ledger(ground.store)
    async with _another_store("memory", Path()) as restored:
        await ground.flusher(restored, outbox_retention_seconds=60).step()
        if more:
            ground.run(deduct("u", 1))
        assert await kept_ledger(restored) == ""
        assert await ledger_of(restored, ground.gateway, ground.engine.partitions) == ours
    async with _another_store("memory", Path()) as empty:
        assert await ledger_of(empty, ground.gateway, ground.engine.partitions) != ours
    await ground.drain()


@asynccontextmanager
async def _another_store(kind: str, folder: Path, *, named: str = "") -> AsyncIterator[Store]:
    """An empty store; `named`: somebody else's already."""
    other = await open_at("memory://" if kind == "memory" else f"sqlite:///{folder}/other.db")
    if named:
        await other.insert(DeploymentRow(name="ledger_id", value=named))
    yield other
    await other.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_x7_a_flusher_of_a_foreign_store_changes_nothing(ground: Ground, kind: str, tmp_path: Path) -> None:
    ground.run(grant("u", "g", 100))
    await ground.drain()
    ground.run(deduct("u", 30))
    async with _another_store(kind, tmp_path, named=THEIRS) as other:
        before = dump(ground.client)
        with pytest.raises(ForeignLedger):
            await ground.flusher(other).step()
        assert dump(ground.client) == before
        assert await other.watermark(0) is None
    ground.run(deduct("u", 1))
    await ground.drain()
    await ground.check()


async def test_x7_a_store_that_is_swapped_under_a_flusher_closes_nothing(ground: Ground) -> None:
    """The compare-and-set meets another watermark, and the flusher looks who is there before it speaks of a loss."""
    flusher = ground.flusher()
    ground.run(grant("u", "g", 100))
    await ground.drain(flusher)
    async with _another_store("memory", Path(), named=THEIRS) as other:
        flusher._store = other
        ground.run(deduct("u", 30))
        with pytest.raises((ForeignLedger, MeterError)) as raised:
            for _ in range(3):
                await flusher.step()
        assert isinstance(raised.value, ForeignLedger)
        assert not isinstance(raised.value, HistoryLost)
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"
    flusher._store = ground.store
    await ground.drain(flusher)
    await ground.check()


async def test_x7_a_runtime_on_a_foreign_store_refuses_by_itself(ground: Ground) -> None:
    """And whoever has the right store goes on."""
    ground.run(grant("u", "g", 100))
    before = dump(ground.client)
    async with _another_store("memory", Path()) as other:
        wrong = Runtime(ground.settings, ground.gateway, other)
        with pytest.raises(ForeignLedger, match=r"METER_STORE_URL=.*METER_REDIS_URL=.*Nothing was changed"):
            await wrong.start()
        with pytest.raises(MeterError):
            await wrong.engine.run("u", deduct("u", 1))
        await wrong.close()
    assert dump(ground.client) == before
    assert (await ground.ask("u", deduct("u", 1))).status == "ok"
    await ground.drain()


async def test_x7_a_store_that_becomes_another_is_noticed_while_running(ground: Ground) -> None:
    """By the look of each second; no add, no plan's grant and no charge goes on, until the right one is back."""
    runtime = ground.runtime
    ground.run(grant("u", "g", 100))
    await runtime.ping_store()
    ours = runtime.store
    async with _another_store("memory", Path()) as other:
        runtime.store = other
        await runtime.ping_store()
        with pytest.raises(PartitionRefused) as raised:
            await runtime.engine.run("u", deduct("u", 1))
        assert raised.value.reason == "ledger"
    runtime.store = ours
    await until_served(runtime)
    assert (await ground.ask("u", deduct("u", 1))).status == "ok"
    await ground.drain()


async def until_served(runtime: Runtime) -> None:
    """Waits until every partition is served again."""
    async with asyncio.timeout(20):
        while await runtime.engine.faults():
            await asyncio.sleep(0.05)


def test_x7_without_a_store_no_ledger_is_taken(server: Server) -> None:
    """Nor one of before they had ids, of which a store has something; a fresh partition stays nobody's."""
    partition = Partition(server.client)
    assert partition.open(ledger="-") == "opened"
    assert partition.open(ledger="-") == "present"
    assert server.client.hget(partition.keys.meta, "ledger") is None
    server.client.hset(partition.keys.meta, "flushed", "1")
    assert partition.open(ledger="-") == "foreign -"
    server.client.hset(partition.keys.meta, "flushed", "0")
    assert partition.open(ledger=OURS) == "present"
    before = dump(partition.client)
    assert partition.open(ledger="-") == f"foreign {OURS}"
    assert dump(partition.client) == before


async def test_x7_without_a_store_a_redis_with_a_ledger_is_refused(ground: Ground) -> None:
    """At the start, and while running once a store has taken it: what is spent would never be flushed."""
    ground.run(grant("u", "g", 100))
    before = dump(ground.client)
    settings = ground.settings.model_copy(update={"store_url": "none"})
    storeless = Runtime(settings, ground.gateway)
    for begin in (storeless.check, storeless.start):
        with pytest.raises(ForeignLedger, match=r"^METER_STORE_URL=none, .* belongs to ledger .*Nothing was changed"):
            await begin()
    with pytest.raises(MeterError):
        await storeless.engine.run("u", deduct("u", 1))
    await storeless.close()
    assert dump(ground.client) == before
    ledger = ground.client.hget(ground.partition.keys.meta, "ledger")
    ground.client.hdel(ground.partition.keys.meta, "ledger")
    async with Runtime(settings, ground.gateway) as earlier:
        assert (await ground.ask("u", deduct("u", 1))).status == "ok"
        ground.client.hset(ground.partition.keys.meta, "ledger", ledger)  # as the first start with a store does
        await earlier.watch.look()
        with pytest.raises(PartitionRefused) as raised:
            await earlier.engine.run("u", deduct("u", 1))
        assert raised.value.reason == "ledger"


async def test_x7_a_rebuild_takes_another_ledgers_place_only_when_told(ground: Ground) -> None:
    ground.run(grant("theirs", "g", 100))
    theirs = await kept_ledger(ground.store)
    async with _another_store("memory", Path()) as other:
        wrong = Runtime(ground.settings, ground.gateway, other)
        with pytest.raises(ForeignLedger):
            await wrong.start()
        rebuild = Rebuild(wrong.engine, wrong.redis, other, 1000)
        before = dump(ground.client)
        with pytest.raises(ForeignLedger):
            await rebuild.partition(0)
        assert dump(ground.client) == before
        report = await rebuild.partition(0, replaces=True)
        assert theirs in report.unknown
        assert report.reapplied == 0
        assert ground.client.hget(ground.partition.keys.meta, "ledger").decode() == await kept_ledger(other)
        assert await other.accounts(["theirs"]) == {}
        await wrong.close()


async def test_x7_a_rebuild_into_an_empty_redis_writes_the_stores_id(ground: Ground) -> None:
    ground.run(grant("u", "g", 100))
    await ground.drain()
    ground.lose_everything()
    await Rebuild(ground.engine, ground.gateway, ground.store, 1000).partition(0)
    assert ground.client.hget(ground.partition.keys.meta, "ledger").decode() == await kept_ledger(ground.store)


@pytest.fixture
def real(redis_url: str) -> Server:
    """The real server, emptied."""
    return real_server(redis_url)


def _command(
    folder: Path, redis_url: str, *arguments: str, store_url: str = "sqlite:///wrong.db"
) -> subprocess.CompletedProcess[str]:
    environment = {"METER_REDIS_URL": redis_url, "METER_STORE_URL": store_url, "METER_REDIS_UNSAFE": "1"}
    environment |= {"PATH": "/usr/bin:/bin", "METER_REDIS_TIMEOUT_MS": "10000"}
    command = [sys.executable, "-m", "meter", *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def _kept(server: Server) -> dict[str, object]:
    """What Redis has, but for when processes were seen."""
    return {name: value for name, value in dump(server.client).items() if name != "meter:workers"}


async def test_x7_every_command_says_so_in_one_line(real: Server, redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, store_url=f"sqlite:///{tmp_path}/right.db", redis_timeout_ms=10_000)
    async with Meter(settings) as right:
        await right.add("u", 100)
        before = _kept(real)
        for arguments in (("serve", "--port", "0"), ("worker",), ("jobs", "all")):
            run = await asyncio.to_thread(_command, tmp_path, redis_url, *arguments, store_url="none")
            assert run.returncode == 2, (arguments, run.stderr)
            (line,) = [line for line in run.stderr.splitlines() if "ledger" in line]
            assert "METER_STORE_URL=none" in line and "Nothing was changed" in line
            assert "Traceback" not in run.stderr
        for arguments in (("serve", "--port", "0"), ("worker",), ("jobs", "all"), ("reconcile",), ("rebuild",)):
            run = await asyncio.to_thread(_command, tmp_path, redis_url, *arguments)
            assert run.returncode == 2, (arguments, run.stderr)
            (line,) = [line for line in run.stderr.splitlines() if "ledger" in line]
            assert "wrong.db" in line and "Nothing was changed" in line, arguments
            assert "Traceback" not in run.stderr
        assert _kept(real) == before
        with pytest.raises(ConfigError):
            await Meter(settings.model_copy(update={"store_url": f"sqlite:///{tmp_path}/wrong.db"})).__aenter__()
        assert await right.deduct("u", 1)
    run = await asyncio.to_thread(_command, tmp_path, redis_url, "rebuild", "--yes", "--json")
    assert run.returncode == 0, run.stderr
    assert "dropped" in run.stderr or "gone" in json.loads(run.stdout)[0]["unknown"]


async def test_x7_another_redis_at_the_same_address_is_left_alone(real: Server, redis_url: str, tmp_path: Path) -> None:
    """An address that moves: the batch that finds another history would close what is another deployment's."""
    (tmp_path / "other").mkdir()
    with embedded_server(tmp_path / "other") as other, Redis.from_url(other.url) as client:
        async with FaultyLink(redis_url) as link:
            settings = Settings(redis_url=link.url, store_url="memory://here", redis_timeout_ms=10_000)
            theirs = settings.model_copy(update={"redis_url": other.url, "store_url": "memory://there"})
            async with Meter(theirs) as meter:
                await meter.add("theirs", 1)
            before = dump(client)
            async with Meter(settings) as meter:
                for _ in range(5):
                    await meter.add("u", 1)
                here = link._address
                for address, is_right in ((urlsplit(other.url), False), (here, True)):
                    link._address = (address.hostname, address.port) if isinstance(address, SplitResult) else address
                    for writer in link._writers:
                        writer.close()
                    if not is_right:
                        with pytest.raises(Unavailable):
                            await meter.deduct("u", 1)
                        with pytest.raises(Unavailable):
                            await meter.create_webhook("https://example.com/hook")
                        assert dump(client) == before
                await until_served(meter._runtime)
                assert await meter.deduct("u", 1)
            assert real.client.hget("meter:{p0}:meta", "state") == b"open"
