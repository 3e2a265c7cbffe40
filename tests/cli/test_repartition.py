"""`meter repartition`: what it asks, prints and ends with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from meter import Meter
from meter.cli.serve import app
from meter.config import load_settings
from meter.health.presence import Sidecar, Worker

runner = CliRunner()


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty Redis and store, and the environment of the commands."""
    client = Redis.from_url(redis_url)
    client.flushall()
    for name, value in {
        "REDIS_URL": redis_url,
        "STORE_URL": f"sqlite:///{tmp_path}/meter.db",
        "REDIS_TIMEOUT_MS": "10000",
    }.items():
        monkeypatch.setenv(f"METER_{name}", value)
    yield client
    client.flushall()


def ran(*arguments: str, code: int = 0) -> Result:
    result = runner.invoke(app, ["repartition", *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def served(**settings: object) -> None:
    async def serve() -> None:
        async with Meter(load_settings(**settings)) as meter:
            await meter.add("u", 5)
            await meter.hold("u", 2, ttl_seconds=3600)

    asyncio.run(serve())


def test_it_asks_moves_and_says_what_to_set(redis: Any) -> None:
    served()
    refused = ran("4", code=2).stderr
    assert "from 1 to 4 partitions" in refused and "Nothing was changed; --yes does it" in refused
    assert ran("1").stdout == "there are 1 partitions already: METER_PARTITIONS=1\n"
    told = ran("4", "--yes").stdout
    assert "1 accounts, 1 grants, 1 open reservations" in told and "3 available, 2 reserved" in told
    assert "there were 1 partitions, now 4: set METER_PARTITIONS=4 for every process" in told
    served(partitions=4)
    found = orjson.loads(ran("2", "--yes", "--json", "--actor", "ada").stdout)
    assert (found["partitions_before"], found["partitions"], found["set"]) == (4, 2, "METER_PARTITIONS=2")
    assert (found["available"], found["reserved"], found["drifts"], found["lost"]) == (6, 4, 0, [])
    assert sorted(redis.keys("meter:{p*}:meta")) == [b"meter:{p0}:meta", b"meter:{p1}:meta"]


def test_it_refuses_while_a_worker_or_a_sidecar_is_seen(redis: Any) -> None:
    served()
    seconds, _ = redis.time()
    told = Worker(worker_id="w1", version="1", started_at_ms=1, seen_at_ms=1000 * int(seconds))
    redis.hset("meter:workers", "w1", told.model_dump_json())
    for name, ms in (("s1", 1000 * int(seconds)), ("long-gone", 1)):
        sidecar = Sidecar(sidecar_id=name, version="1", started_at_ms=1, seen_at_ms=ms)
        redis.hset("meter:workers", name, sidecar.model_dump_json())
    why = ran("4", "--yes", code=1).stderr.replace("\n", " ")
    assert "stop every process of the deployment first; there is the worker w1 (seen " in why
    assert "the sidecar s1 (seen " in why and "long-gone" not in why
    redis.hdel("meter:workers", "w1", "s1")
    ran("4", "--yes")


def test_what_cannot_be_is_told_in_a_line(redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there may be 1 to 1024" in ran("0", "--yes", code=2).stderr
    assert "nothing was ever served with this store" in ran("4", "--yes", code=2).stderr
    monkeypatch.setenv("METER_STORE_URL", "none")
    assert "without a store there is nothing that could be moved" in ran("4", "--yes", code=2).stderr
