"""One part of a deployment goes away, or comes back with nothing; the others go on as far as they rightly can."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from meter.replay.report import ReplayReport
from meter.store.base import Store
from tests.faults.conftest import SECONDS
from tests.faults.deployment import (
    DEADLINE_SECONDS,
    META,
    Deployment,
    Figures,
    deployed,
    opened,
    prove,
    replayed,
    until,
    write_trace,
)
from tests.servers import embedded_server
from tests.store.servers import Postgres, database_name

pytestmark = pytest.mark.slow

SPENDERS = 8


async def stored_beyond(store: Store, seq: int) -> None:
    """The store has so much of the traffic."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (reached := await store.watermark(0)) is None or reached.seq <= seq:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def under_load(deployment: Deployment, trace: Path) -> AsyncIterator[asyncio.Task[ReplayReport]]:
    """Traffic goes on; the block begins when some of it was answered."""
    task = asyncio.create_task(replayed(deployment, trace))
    await until(lambda: int(deployment.client.hget(META, "seq") or 0) > 100 or task.done(), "traffic")
    try:
        yield task
    finally:
        await asyncio.gather(task, return_exceptions=True)


async def reservations(store: Store) -> dict[str, int]:
    """What each open reservation of the store holds."""
    users = [row.user_id for row in await store.scan_accounts(0, "", 1_000)]
    return {row.reservation_id: row.amount for row in await store.open_reservations(users)}


@pytest.mark.parametrize("auto", [False, True], ids=["meter rebuild", "METER_AUTO_REPAIR"])
async def test_a_redis_that_was_emptied_is_refused_until_it_is_rebuilt(tmp_path: Path, auto: bool) -> None:
    trace = write_trace(tmp_path / "trace.csv", 500)
    url = f"sqlite:///{tmp_path}/meter.db"
    async with deployed(tmp_path, url, auto_repair=int(auto)) as deployment, opened(url) as store:
        assert await deployment.status("POST", "/credits/add", {"user_id": "kept", "amount": 90}) == 200
        body = {"user_id": "kept", "amount": 40, "reservation_id": "kept-hold"}
        assert await deployment.status("POST", "/credits/reservations", body) == 201
        await deployment.drained(store)
        async with under_load(deployment, trace):
            await stored_beyond(store, 20)
            seq, _ = deployment.client.pipeline(transaction=True).hget(META, "seq").flushall().execute()
            watermark = await store.watermark(0)
            assert watermark is not None
            if not auto:
                answer = await deployment.call("GET", "/readyz")
                assert answer[0] == 503 and "missing" in json.dumps(answer[1])
                for path, body in (
                    ("/credits/add", {"user_id": "kept", "amount": 1}),
                    ("/credits/deduct", {"user_id": "kept", "amount": 1}),
                    ("/credits/reservations", {"user_id": "nobody", "amount": 0}),
                ):
                    assert await deployment.status("POST", path, body) == 503
                assert await deployment.status("GET", "/credits/balance/kept") == 503
                done = deployment.command("rebuild", "--json")
                assert done.returncode == 0, done.stderr
                (report,) = json.loads(done.stdout)
                assert report["seq"] <= int(seq) and "was never in the store" in report["unknown"]
                assert report["accounts"] > 1 and report["reservations"] >= 1
            await deployment.ready()
        await deployment.drained(store)
        figures = await prove(deployment, store)
        assert figures.lost <= int(seq) - watermark.seq + 1, "more was lost than was never flushed"
        assert (figures.doubled, figures.gaps) == (0, 0)
        assert "kept-hold" in await reservations(store)
        status, answer_body = await deployment.call("POST", "/credits/reservations/kept-hold/commit", {"amount": 30})
        assert (status, answer_body["charged"], answer_body["available"]) == (200, 30, 60)


@pytest.mark.postgres
async def test_spending_goes_on_while_postgres_is_gone(tmp_path: Path, postgres: Postgres) -> None:
    if not postgres.can_restart:
        pytest.skip("a server at a URL cannot be stopped")
    name = database_name()
    await postgres.create(name)
    url = postgres.url(name)

    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        postgres.kill()
        yield
        postgres.start()

    await _store_away(tmp_path, url, away, refused=(503,))
    await postgres.drop(name)


async def test_spending_goes_on_while_sqlite_is_locked(tmp_path: Path) -> None:
    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        other = sqlite3.connect(tmp_path / "meter.db", isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()

    await _store_away(tmp_path, f"sqlite:///{tmp_path}/meter.db", away, refused=(503, 0))  # it waits for its turn


async def _store_away(tmp_path: Path, url: str, away: Callable[[], Any], *, refused: tuple[int, ...]) -> None:
    trace = write_trace(tmp_path / "trace.csv", 400)
    async with deployed(tmp_path, url) as deployment:
        assert await deployment.status("POST", "/credits/add", {"user_id": "u", "amount": 10**6}) == 200
        report = await replayed(deployment, trace)
        assert report.conserved
        async with opened(url) as store:
            await deployment.drained(store)
        before = int(deployment.client.hget(META, "seq"))
        async with away():
            deadline = asyncio.get_running_loop().time() + SECONDS / 2
            adding = asyncio.create_task(deployment.status("POST", "/credits/add", {"user_id": "u", "amount": 1}))
            spent = sum(await asyncio.gather(*(_spend(deployment, deadline) for _ in range(SPENDERS))))
            assert await deployment.status("GET", "/readyz") == 200
            assert await adding in refused
            assert int(deployment.client.hget(META, "seq")) >= before + spent
            assert int(deployment.client.hget(META, "flushed")) <= before
        await until(lambda: _adds(deployment), "adding works again")
        async with opened(url) as store:
            await deployment.drained(store)
            figures = await prove(deployment, store)
            assert (figures.lost, figures.doubled, figures.gaps) == (0, 0, 0)
            (row,) = (await store.accounts(["u"])).values()
            assert row.spent == spent * 10**6
            if SECONDS >= 60:
                print(f"\n{url.partition(':')[0]}: {spent} spent while it was away, {figures}")  # noqa: T201
        assert deployment.command("reconcile").returncode == 0


async def _spend(deployment: Deployment, deadline: float) -> int:
    """Spends one credit at a time, and each must be answered."""
    spent = 0
    while spent < 10 or asyncio.get_running_loop().time() < deadline:
        status = await deployment.status("POST", "/credits/deduct", {"user_id": "u", "amount": 1})
        assert status == 200, "spending waits for the store"
        spent += 1
    return spent


async def _adds(deployment: Deployment) -> bool:
    return await deployment.status("POST", "/credits/add", {"user_id": "u", "amount": 1}) == 200


async def test_a_redis_that_was_killed_comes_back_with_everything(tmp_path: Path) -> None:
    """Neither the sidecar nor the workers are started again."""
    trace = write_trace(tmp_path / "trace.csv", 500)
    url = f"sqlite:///{tmp_path}/meter.db"
    async with deployed(tmp_path, url) as deployment:
        sidecar, workers = deployment.sidecar, list(deployment.nursery.workers)
        async with under_load(deployment, trace) as traffic:
            os.kill(deployment.server.pid, signal.SIGKILL)
            deployment.server.stop()
            assert await deployment.status("GET", "/readyz") == 503
            with embedded_server(tmp_path / "redis", persist=True, port=deployment.redis_port):
                await deployment.ready()
                report = await traffic
                assert report.conserved, report.differences
                await _prove_sound(deployment, url)
        assert sidecar is not None and sidecar.running
        assert all(deployment.nursery.is_alive(pid) for pid in workers)


async def _prove_sound(deployment: Deployment, url: str) -> Figures:
    async with opened(url) as store:
        await deployment.drained(store)
        figures = await prove(deployment, store)
    assert (figures.lost, figures.doubled, figures.gaps) == (0, 0, 0), figures
    assert deployment.command("reconcile").returncode == 0
    return figures


async def test_a_sidecar_that_froze_goes_on_where_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/meter.db"
    async with deployed(tmp_path, url) as deployment:
        assert deployment.sidecar is not None
        async with under_load(deployment, write_trace(tmp_path / "trace.csv", 300)) as traffic:
            deployment.sidecar.send(signal.SIGSTOP)
            await asyncio.sleep(2.5)  # longer than the budget of a batch
            deployment.sidecar.send(signal.SIGCONT)
            await deployment.ready()
            report = await traffic
        assert report.conserved, report.differences
        await _prove_sound(deployment, url)


async def test_a_worker_that_froze_is_fenced(tmp_path: Path) -> None:
    """Another one takes over; nothing of what the sleeper holds in its hands is written when it wakes.

    One that falls asleep with SQLite's lock in its hand is waited for, by everyone: there is no taking over then.
    """
    url = f"sqlite:///{tmp_path}/meter.db"
    async with deployed(tmp_path, url, outbox_retention_seconds=0) as deployment, opened(url) as store:
        taken_over = 0

        async def is_beyond(seq: int) -> bool:
            watermark = await store.watermark(0)
            return watermark is not None and watermark.seq > seq

        async with under_load(deployment, write_trace(tmp_path / "trace.csv", 9_000)) as traffic:
            for attempt in range(40):
                if taken_over == 3 or traffic.done():
                    break
                sleeper = deployment.nursery.workers[attempt % 2]
                os.kill(sleeper, signal.SIGSTOP)
                seq = int(deployment.client.hget(META, "seq"))
                with suppress(AssertionError):
                    await until(lambda seq=seq: is_beyond(seq), "the other one flushes", seconds=1.5)  # type: ignore[misc]
                    taken_over += 1
                os.kill(sleeper, signal.SIGCONT)
            report = await traffic
        assert taken_over >= 1
        assert report.conserved, report.differences
        assert deployment.client.hget(META, "state") == b"open"
        await _prove_sound(deployment, url)
