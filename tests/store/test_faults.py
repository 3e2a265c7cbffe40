"""Stores whose server dies, hangs or is far away: every call ends in time, and what was acknowledged stays."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meter.store.base import Store, StoreUnavailable
from meter.store.connect import open_store
from tests.store import samples
from tests.store.conftest import SERVER_KINDS, Place, Servers, opened
from tests.store.servers import Proxy, database_name

BATCH = 2_000


async def _works_again(store: Store) -> None:
    """Waits until a store answers; connections of before may fail once each."""
    deadline = time.monotonic() + 60
    while True:
        try:
            await store.ping()
            await store.watermark(0)
        except StoreUnavailable:
            assert time.monotonic() < deadline, "the store did not come back"
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("delay_ms", [0, 1, 3, 8, 20, 50, 120])
async def test_a_cancelled_flush_is_done_or_not_and_its_connection_is_given_back(
    place: Place, store: Store, servers: Servers, delay_ms: int
) -> None:
    servers.need_concurrent_transactions(place.kind)  # the cancelled call still runs when the next one begins
    rows = [samples.transaction(seq, f"user-{seq % 100}") for seq in range(1, BATCH + 1)]
    given = samples.flush(None, rows, accounts=[samples.account(f"user-{n}", last_seq=BATCH) for n in range(100)])

    call = asyncio.create_task(store.apply(given))
    await asyncio.sleep(delay_ms / 1000)
    call.cancel()
    was_cancelled = isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)

    again = await store.apply(given)
    assert again.done or await store.watermark(0) == given.reached
    assert was_cancelled or not again.done
    assert len(await store.scan_accounts(0, "", 1000)) == 100
    assert await store.transaction(f"0-{BATCH}-lane-1") == rows[-1]


async def test_a_cancelled_read_gives_its_connection_back(store: Store) -> None:
    await store.apply(samples.flush(None, [samples.transaction(seq) for seq in range(1, 500)]))

    for _ in range(30):  # more often than there are connections
        call = asyncio.create_task(store.history("user-1", limit=500))
        await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    assert len(await store.history("user-1", limit=500)) == 499


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_killed_server_loses_nothing_and_is_used_again(
    kind: str, servers: Servers, place: Place, store: Store
) -> None:
    server = servers.get(kind)
    if not server.can_restart:
        pytest.skip(f"{kind}: a server at a given URL is not killed")
    first = samples.flush(None, [samples.transaction(seq) for seq in range(1, 501)], accounts=[samples.account()])
    second = samples.flush(first.reached, [samples.transaction(501)])
    async with opened(place.store(timeout_seconds=1)) as hasty:
        assert (await store.apply(first)).done

        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await hasty.apply(second)
            with pytest.raises(StoreUnavailable):
                await hasty.accounts(["user-1"])
        server.start()
        await _works_again(store)

    assert await store.watermark(0) == first.reached
    assert len(await store.history("user-1", limit=5000)) == 500
    assert (await store.apply(second)).done


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_server_that_hangs_costs_no_more_than_the_time_limit(
    kind: str, servers: Servers, place: Place, store: Store
) -> None:
    server = servers.get(kind)
    given = samples.flush(None, [samples.transaction(seq) for seq in range(1, 101)])
    async with (
        Proxy(server.address) as proxy,
        opened(open_store(server.url(_database(place), port=proxy.port), timeout_seconds=2)) as far,
    ):
        await _works_again(far)

        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await far.apply(given)
        with pytest.raises(StoreUnavailable):
            await far.ping()
        assert time.monotonic() - began < 30  # the time to give up the connection included

        proxy.thaw()
        await _works_again(far)
    await store.apply(given)

    assert await store.watermark(0) == given.reached
    assert len(await store.history("user-1", limit=500)) == 100


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_lost_network_is_unavailable_until_it_is_back(
    kind: str, servers: Servers, place: Place, store: Store
) -> None:
    server = servers.get(kind)
    given = samples.flush(None, [samples.transaction(1)])
    async with (
        Proxy(server.address) as proxy,
        opened(open_store(server.url(_database(place), port=proxy.port), timeout_seconds=2)) as far,
    ):
        await _works_again(far)

        await proxy.cut()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await far.apply(given)
        await proxy.restore()
        await _works_again(far)

    assert (await store.apply(given)).done


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_server_that_is_not_there_is_unavailable(kind: str, servers: Servers) -> None:
    server = servers.get(kind)
    async with Proxy(server.address) as proxy:
        port = proxy.port
    store = open_store(server.url(database_name(), port=port), timeout_seconds=1)

    with pytest.raises(StoreUnavailable):
        await store.open({})
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.close()


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_file_that_another_process_writes_is_unavailable_after_the_time_limit(
    place: Place, store: Store
) -> None:
    given = samples.flush(None, [samples.transaction(1)])
    async with opened(place.store(timeout_seconds=0.3)) as hasty:
        other = sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable):
            await hasty.apply(given)
        assert await hasty.watermark(0) is None  # readers do not wait for the writer
        other.execute("ROLLBACK")
        other.close()

    assert (await store.apply(given)).done


_FLUSHER = """
import asyncio, sys
from meter.store.connect import open_store
from tests.store import samples

async def main():
    store = open_store(sys.argv[1])
    await store.open({})
    reached = await store.watermark(0)
    while True:
        seq = reached.seq if reached else 0
        rows = [samples.transaction(n) for n in range(seq + 1, seq + 201)]
        given = samples.flush(reached, rows, accounts=[samples.account(last_seq=seq + 200)])
        assert (await store.apply(given)).done
        reached = given.reached
        print(reached.seq, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_flusher_killed_at_any_moment_leaves_whole_flushes(place: Place, store: Store) -> None:
    root = Path(__file__).parents[2]
    for pause in (0.0, 0.013, 0.029):
        command = [sys.executable, "-c", _FLUSHER, place.url]
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as flusher:
            assert flusher.stdout is not None
            acknowledged = int(flusher.stdout.readline())
            await asyncio.sleep(pause)
            os.kill(flusher.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, flusher.stdout.read().split())])

        reached = await store.watermark(0)
        assert reached is not None
        assert reached.seq >= acknowledged
        assert [row.seq for row in await store.history("user-1", limit=100_000)] == list(range(reached.seq, 0, -1))
        assert (await store.accounts(["user-1"]))["user-1"].last_seq == reached.seq


def _database(place: Place) -> str:
    return place.url.partition("?")[0].rpartition("/")[2]
