"""U4: the worker's own probes and metrics, of a real process; what it tells a sidecar, and its goodbye."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from meter.dev.redis_server import EmbeddedServer
from meter.health.presence import Worker
from tests.api.sidecar import wait_for
from tests.e2e.processes import MeterProcess, environment, free_port, run_meter
from tests.partition import Partition
from tests.servers import embedded_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own."""
    with embedded_server(tmp_path / "redis") as server:
        yield server


def told(client: Redis) -> list[Worker]:
    """What workers have told Redis."""
    texts: Any = client.hvals("meter:workers")
    return [Worker.model_validate_json(text) for text in texts]


def test_u4_the_worker_has_probes_and_metrics_and_says_goodbye(redis: EmbeddedServer, tmp_path: Path) -> None:
    port = free_port()
    env = environment(redis_url=redis.url, store_url=f"sqlite:///{tmp_path}/m.db", worker_port=port)
    with (
        Redis.from_url(redis.url) as client,
        MeterProcess("worker", cwd=tmp_path, env=env, name="worker") as process,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
    ):
        partition = Partition(client)
        assert partition.open() in ("opened", "present")
        wait_for(lambda: client.hlen("meter:workers") == 1, "the first beat", seconds=60)
        wait_for(lambda: http.get("/readyz").status_code == 200, "readyz")
        assert http.get("/livez").json() == {"status": "ok"}
        parts = http.get("/readyz").json()["parts"]
        assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(
            ("redis", "partitions", "backlog", "store"), "ok"
        )
        names = [family.name for family in text_string_to_metric_families(http.get("/metrics").text)]
        assert len(names) == len(set(names))
        assert {"meter_job_runs", "meter_deliveries", "meter_outbox_transactions", "meter_part_up"} <= set(names)
        missing = http.get("/credits/balance/u")
        assert (missing.status_code, missing.json()["type"]) == (404, "/problems/not-found")
        assert f"probes=http://127.0.0.1:{port}" in process.log
        (alive,) = told(client)
        assert not alive.stopped
        assert process.stop() == 0
        (gone,) = told(client)
        assert (gone.worker_id, gone.stopped) == (alive.worker_id, True)
    assert "Traceback" not in process.log


def test_u4_a_port_that_is_taken_is_one_line(redis: EmbeddedServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = environment(redis_url=redis.url, store_url="none")
        ended = run_meter("worker", "--port", port, cwd=tmp_path, env=env)
    (line,) = ended.stderr.splitlines()
    place = f"METER_WORKER_HOST=127.0.0.1 METER_WORKER_PORT={port}"
    assert ended.returncode == 2
    assert line.startswith(f"meter: {place}: cannot listen there: Address already in use")
