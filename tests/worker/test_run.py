"""`meter worker`: it outlives a Redis restart, ends when it is told to, and refuses bad settings in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from meter.dev.redis_server import EmbeddedServer
from meter.engine import operations
from tests import invariants
from tests.api.sidecar import wait_for
from tests.e2e.processes import MeterProcess, environment, run_meter
from tests.partition import WINDOW, Partition
from tests.servers import embedded_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, with its append-only file."""
    with embedded_server(tmp_path / "redis", persist=True) as server:
        yield server


def worker(tmp_path: Path, url: str, **settings: object) -> MeterProcess:
    """A `meter worker` that sweeps each second."""
    env = environment(redis_url=url, store_url="none", sweep_interval_seconds=1, **settings)
    return MeterProcess("worker", cwd=tmp_path, env=env, name="worker")


def hold_briefly(partition: Partition, name: str) -> None:
    """Makes a reservation that nobody touches and that ends at once."""
    assert partition.run(operations.reserve(f"user-{name}", name, 0, 1, chosen=True)).status == "ok"


def is_swept(partition: Partition, name: str) -> bool:
    """Whether the ledger has the end of that reservation."""
    return any(e.detail.get("reservation_id") == name and e.kind == "reservation_expired" for e in partition.entries())


def test_the_worker_gives_way_as_far_as_it_is_told(redis: EmbeddedServer, tmp_path: Path) -> None:
    with Redis.from_url(redis.url) as client, worker(tmp_path, redis.url, worker_nice=7) as process:
        partition = Partition(client)
        assert partition.open() in ("opened", "present")
        hold_briefly(partition, "first")
        wait_for(lambda: is_swept(partition, "first"), "the sweep")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7
        assert process.stop() == 0


def test_the_worker_sweeps_before_and_after_a_restart_of_redis(redis: EmbeddedServer, tmp_path: Path) -> None:
    port = int(redis.url.split(":")[-1].split("/")[0])
    with Redis.from_url(redis.url) as client, worker(tmp_path, redis.url) as process:
        partition = Partition(client)
        assert partition.open() in ("opened", "present")
        hold_briefly(partition, "before")
        wait_for(lambda: is_swept(partition, "before"), "the sweep")
        queued = [client.get(key) for key in client.keys("meter:arq:*") if client.type(key) == b"string"]
        assert not any(value and value.startswith(b"\x80") for value in queued), "pickle in Redis"
        redis.stop()
        wait_for(lambda: "Redis is away" in process.log and "jobs wait" in process.log, "the worker notices")
        with embedded_server(tmp_path / "redis", persist=True, port=port):
            hold_briefly(partition, "after")
            wait_for(lambda: is_swept(partition, "after"), "the sweep after the restart")
            assert process.stop() == 0
            client.delete(*client.keys("meter:arq:*"))
            invariants.check(client, window_ms=WINDOW)
    assert "Traceback" not in process.log


def test_arq_itself_runs_the_jobs_by_their_entry_point(redis: EmbeddedServer, tmp_path: Path) -> None:
    with Redis.from_url(redis.url) as client:
        partition = Partition(client)
        assert partition.open() == "opened"
        hold_briefly(partition, "once")
        ended = subprocess.run(
            [sys.executable, "-m", "arq", "workers.settings.WorkerSettings", "--burst"],
            cwd=tmp_path,
            env=environment(redis_url=redis.url, store_url="none"),
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert is_swept(partition, "once")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_ends_at_a_signal_even_while_redis_is_away(tmp_path: Path, number: signal.Signals) -> None:
    with embedded_server(tmp_path / "redis") as server:
        url = server.url
    with worker(tmp_path, url) as process:
        wait_for(lambda: "Redis is away" in process.log and "jobs wait" in process.log, "the worker notices")
        assert process.stop(number) == 0
    assert "Traceback" not in process.log


def test_a_worker_with_other_decimal_places_is_refused_in_one_line(redis: EmbeddedServer, tmp_path: Path) -> None:
    with Redis.from_url(redis.url) as client:
        assert Partition(client).open(decimal_places=2) == "opened"
    ended = run_meter("worker", cwd=tmp_path, env=environment(redis_url=redis.url, store_url="none"))
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "METER_DECIMAL_PLACES=2" in line
