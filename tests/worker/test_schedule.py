"""arq runs the jobs: which and when, on both servers, with JSON and nothing else in Redis."""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.cron import CronJob
from arq.worker import Worker, create_worker
from fakeredis import FakeAsyncRedis

from meter.config import Settings
from meter.engine import operations, upkeep
from meter.errors import PartitionRefused, RedisUnavailable, StoreUnavailable
from meter.runtime import Runtime
from meter.worker import schedule
from meter.worker.context import Context
from meter.worker.queue import Queue, to_json
from meter.worker.runs import Runs
from tests.partition import SECOND, Partition
from tests.servers import Server

NOW = 1_800_000_000_000


async def nothing(*_: object) -> None:
    """Stands for arq's log_redis_info: fakeredis' INFO is not what that expects."""


@pytest.fixture
def settings_class(server: Server, partition: Partition, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The class that arq reads, for the server of this test; what arq leaves in Redis is removed at the end."""
    settings = Settings(redis_url=server.url or "redis://unused", store_url="none", redis_timeout_ms=10_000)
    if server.url is None:
        pool = FakeAsyncRedis(server=server.fake).connection_pool
        queue = Queue(connection_pool=pool, job_serializer=to_json, job_deserializer=json.loads)
        monkeypatch.setattr(schedule, "queue_pool", lambda _: queue)
        monkeypatch.setattr(schedule, "Runtime", lambda settings, role: Runtime(settings, server.gateway(), role=role))
        monkeypatch.setattr("arq.worker.log_redis_info", nothing)
    yield schedule.worker_settings(settings)
    left = server.client.keys("*arq:*")
    if left:
        server.client.delete(*left)


def burst(settings_class: type) -> Worker:
    """A worker that ends when its queue is empty."""
    return create_worker(settings_class, burst=True, handle_signals=False, poll_delay=0.05)


def crons(settings_class: Any) -> dict[str, CronJob]:
    """The cron jobs by name."""
    return {job.name: job for job in settings_class.cron_jobs}


async def test_the_cron_jobs_run_at_the_start_and_settle_what_is_due(
    settings_class: type, partition: Partition
) -> None:
    partition.batch(
        operations.grant("u", "g", 10),
        operations.reserve("u", "r", 4, SECOND, chosen=True),
        upkeep.clock("advance", SECOND),
    )
    worker = burst(settings_class)
    await worker.async_run()
    await worker.close()
    assert worker.jobs_complete >= len(worker.cron_jobs)  # one whose second comes meanwhile runs again
    assert worker.jobs_failed == 0
    assert partition.kinds() == ["grant", "reserve", "reservation_expired"]


async def test_what_is_not_due_is_not_put_into_the_queue(settings_class: type, partition: Partition) -> None:
    """Idle, a worker writes nothing to Redis that its append-only file would have to keep."""
    worker = burst(settings_class)
    await worker.async_run()
    queue, runs = worker.pool, worker.ctx["runs"]
    before = runs.told(NOW)["expire"]
    assert await queue.enqueue_job("cron:expire") is None
    found = runs.told(NOW)["expire"]
    assert (found.done, found.seconds) == (before.done + 1, before.seconds)
    partition.batch(operations.reserve("u", "r", 0, 10 * SECOND, chosen=True))
    assert await queue.enqueue_job("cron:expire") is None
    soon = datetime.now(UTC) + timedelta(seconds=11)
    assert await queue.enqueue_job("cron:expire", _defer_until=soon) is not None
    assert await queue.enqueue_job("expire", _job_id="by hand") is not None  # whoever asks for a job gets it
    assert await queue.enqueue_job("cron:rotate") is not None  # that looks for itself
    await worker.close()


async def test_a_job_of_which_nobody_can_tell_whether_it_is_due_runs_and_says_why(
    settings_class: type, monkeypatch: pytest.MonkeyPatch, partition: Partition
) -> None:
    worker = burst(settings_class)
    await worker.async_run()

    async def away(*_: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(worker.ctx["jobs"], "is_due", away)
    assert await worker.pool.enqueue_job("cron:expire") is not None
    await worker.close()


async def test_two_workers_share_the_jobs_and_settle_once(settings_class: type, partition: Partition) -> None:
    partition.batch(
        *(operations.reserve(f"user-{n}", f"r{n}", 0, SECOND, chosen=True) for n in range(120)),
        upkeep.clock("advance", SECOND),
    )
    for _ in range(2):
        worker = burst(settings_class)
        await worker.async_run()
        assert worker.jobs_failed == 0
        await worker.close()
    assert partition.kinds().count("reservation_expired") == 120


async def test_a_run_that_still_goes_on_is_not_joined_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fails = [True, False]
    ends = asyncio.Event()

    async def long(_: Context) -> int:
        started.append(1)
        await ends.wait()
        if fails.pop(0):
            raise PartitionRefused("partition", "closed")
        return 7

    monkeypatch.setattr(schedule, "expire", long)
    found: Any = schedule.worker_settings(Settings(store_url="none"))
    job: Any = found.cron_jobs[0].coroutine
    ctx = {"runs": Runs()}
    first = asyncio.create_task(job(ctx))
    await asyncio.sleep(0)
    assert await job(ctx) == 0
    ends.set()
    assert (await first, await job(ctx)) == (0, 7)
    assert len(started) == 2
    told = ctx["runs"].told(1_000_000)["long"]
    assert (told.done, told.failed, told.error) == (1, 1, "PartitionRefused: closed")
    assert 990_000 < told.ended_at_ms <= 1_000_000


async def test_u5_what_fails_is_told_once_without_a_trace_unless_it_is_a_fault_of_ours(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U5: an outage is one line, whatever words it finds; U4: runs and failures are counted."""
    runs = Runs()
    ends: list[Exception | None] = []

    async def job() -> int:
        if (end := ends.pop(0)) is not None:
            raise end
        return 3

    async def run(*these: Exception | None) -> list[str]:
        caplog.clear()
        ends.extend(these)
        for _ in these:
            await runs.run("allocate", job)
        return [record.getMessage() for record in caplog.records]

    caplog.set_level(logging.INFO)
    assert await run(None) == []
    away = [StoreUnavailable("reset"), RedisUnavailable("redis", "refused"), StoreUnavailable("refused")]
    assert await run(*away) == ['the job failed and runs again later job=allocate why="StoreUnavailable: reset"']
    assert "Traceback" not in caplog.text
    assert await run(None, None) == ["the job works again job=allocate"]
    assert await run(ValueError("a bug")) == [
        'the job failed and runs again later job=allocate why="ValueError: a bug"'
    ]
    assert "Traceback" in caplog.text
    monkeypatch.setattr("meter.worker.runs.RUN_SECONDS_MAX", 0.01)
    told = await run_forever(runs)
    assert told == 0 and 'why="took longer than 0.01 s"' in caplog.text
    assert (runs.told(NOW)["allocate"].done, runs.told(NOW)["allocate"].failed) == (3, 4)


async def run_forever(runs: Runs) -> int:
    """A run that does not end by itself."""

    async def job() -> int:
        await asyncio.Event().wait()
        return 1

    return await runs.run("forever", job)


async def test_only_json_is_in_the_queue(settings_class: Any, server: Server) -> None:
    worker = burst(settings_class)
    await worker.pool.enqueue_job("expire", _job_id="later", _defer_by=3600)
    await worker.pool.enqueue_job("no such job", {"deep": [1, "ü"]}, _job_id="wrong")
    ours = "" if server.url is None else "meter:"
    jobs = {name: json.loads(server.client.get(f"{ours}arq:job:{name}")) for name in ("later", "wrong")}
    assert jobs["later"]["f"] == "expire"
    assert jobs["wrong"]["a"] == [{"deep": [1, "ü"]}]
    worker.max_burst_jobs = 1
    await worker.async_run()
    result = json.loads(server.client.get(f"{ours}arq:result:wrong"))
    assert (result["s"], "not found" in result["r"]) == (False, True)
    values = [server.client.get(key) for key in server.client.keys("*arq:*") if server.client.type(key) == b"string"]
    assert values and not any(value.startswith(b"\x80") for value in values)
    await worker.close()


async def test_a_job_that_fails_is_told_and_the_next_one_runs(
    settings_class: type, server: Server, partition: Partition, unchecked: None
) -> None:
    worker = burst(settings_class)
    server.client.hset(partition.keys.meta, "state", "closed")
    await worker.async_run()
    told = worker.ctx["runs"].told(NOW)
    assert {"expire", "rotate"} <= set(told)
    assert told["rotate"].failed and told["rotate"].error.startswith("PartitionRefused")
    assert worker.jobs_complete >= len(worker.cron_jobs)
    await worker.close()


def test_the_sweep_comes_as_often_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(interval: int) -> list[int]:
        settings = Settings(sweep_interval_seconds=interval, store_url="none")
        job = crons(schedule.worker_settings(settings))["cron:expire"]
        found, now = [], datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
        for _ in range(60 // interval):
            job.calculate_next(now)
            assert job.next_run is not None
            now = job.next_run
            found.append(now.second)
        return found

    assert seconds(5) == [*range(5, 60, 5), 0]
    assert seconds(59) == [59]


def test_redis_forgets_no_later_than_a_sixtieth_of_its_window() -> None:
    def minutes(window_seconds: int) -> object:
        settings = Settings(idempotency_window_seconds=window_seconds, store_url="none")
        return crons(schedule.worker_settings(settings))["cron:rotate"].minute

    assert minutes(86_400) == {0, 24, 48}
    assert minutes(60) == minutes(7_199) == set(range(60))
    assert minutes(7_200) == set(range(0, 60, 2))
    assert minutes(30 * 86_400) == {0, 30}


def test_every_cron_job_runs_at_the_start_and_keeps_no_result() -> None:
    jobs = crons(schedule.worker_settings(Settings()))
    in_store = {"cron:allocate", "cron:pending", "cron:remind", "cron:rollup", "cron:runway"}
    assert set(jobs) == {"cron:expire", "cron:rotate", *in_store}
    without_store = crons(schedule.worker_settings(Settings(store_url="none")))
    assert set(without_store) == {"cron:expire", "cron:rotate"}
    for job in jobs.values():
        assert job.run_at_startup and job.unique
        assert job.keep_result_s == 0


def test_the_entry_point_of_arq_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_SWEEP_INTERVAL_SECONDS", "30")
    monkeypatch.setenv("METER_QUEUE_URL", "redis://queue.example:7000/3")
    found = runpy.run_module("workers.settings")["WorkerSettings"]
    assert crons(found)["cron:expire"].second == {0, 30}
    assert found.redis_pool.connection_pool.connection_kwargs["host"] == "queue.example"
    assert found.job_serializer({"x": ValueError("y")}) == b'{"x":"ValueError(\'y\')"}'
