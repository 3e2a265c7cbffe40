"""`meter rebuild`, `meter reconcile` and `meter jobs`: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from typer.testing import CliRunner

from meter.cli.jobs import JOBS
from meter.cli.serve import app
from meter.config import Settings, load_settings
from meter.engine import operations
from meter.jobs import COUNTED
from meter.ledger.flusher import Flusher
from meter.ledger.serving import claim
from meter.runtime import Runtime
from meter.store.connect import open_store
from tests.ledger.ground import open_at
from tests.partition import Partition
from tests.servers import Server

runner = CliRunner()


@pytest.fixture
def server(redis_url: str) -> Server:
    """The real one: a command connects by itself."""
    client = Redis.from_url(redis_url)
    client.flushall()
    return Server("redis", client, redis_url)


@pytest.fixture
def deployment(server: Server, partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Partition:
    """A partition with a few accounts, and the environment of the commands."""
    partition.client.hdel(partition.keys.meta, "clock_ms")
    for name, value in {
        "REDIS_URL": str(server.url),
        "STORE_URL": f"sqlite:///{tmp_path}/meter.db",
        "REDIS_TIMEOUT_MS": "10000",
    }.items():
        monkeypatch.setenv(f"METER_{name}", value)
    partition.run(operations.grant("u", "g", 5_000_000))
    partition.run(operations.reserve("u", "r", 1_500_000, 3_600_000, chosen=True))
    return partition


def flush() -> None:
    async def step() -> None:
        async with Runtime(Settings()) as runtime:
            assert runtime.store is not None
            keys = runtime.engine.partitions[0]
            await Flusher(runtime.redis, runtime.engine, runtime.store, keys, runtime.settings).step()

    asyncio.run(step())


def ran(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def as_json(*arguments: str, code: int = 0) -> Any:
    (report,) = orjson.loads(ran(*arguments, "--json", code=code))
    return report


def test_reconcile_says_that_all_is_well(deployment: Partition) -> None:
    flush()
    assert "1 accounts, 0 drifts" in ran("reconcile")
    assert as_json("reconcile") == {"accounts": 1, "drifts": [], "unsettled": []}


def test_reconcile_shows_each_drift_and_fails(deployment: Partition, unchecked: None) -> None:
    flush()
    text = deployment.client.hget(deployment.keys.accounts, "u").decode()
    deployment.client.hset(deployment.keys.accounts, "u", "3600000" + text[text.index(" ") :])
    (drift,) = as_json("reconcile", code=1)["drifts"]
    assert (drift["user_id"], drift["redis"]["available"], drift["store"]["available"]) == ("u", 3.6, 3.5)
    shown = ran("reconcile", code=1)
    assert "1 drifts" in shown
    words = [word for word in shown.split() if word in ("u", "available", "3.6", "3.5")]
    assert words[:4] == ["u", "available", "3.6", "3.5"]


def test_rebuild_brings_back_a_lost_redis(deployment: Partition) -> None:
    flush()
    deployment.client.flushall()
    assert ran("reconcile", code=3) == ""
    report = as_json("rebuild")
    assert (report["accounts"], report["grants"], report["reservations"]) == (1, 1, 1)
    assert (report["epoch"], report["seq"], report["available"], report["lost"]) == (2, 2, 3.5, [])
    assert "after seq 2" in report["unknown"]
    deployment.sender = "after"
    assert deployment.run(operations.commit("r")).balances == (3_500_000, 0, 0)
    flush()
    ran("reconcile")
    shown = ran("rebuild", "--user", "u")
    assert "3.5" in shown and "lost:" not in shown


def test_a_rebuild_by_hand_is_in_the_ledger_log_as_the_workers_is(
    deployment: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush()
    deployment.client.flushall()
    monkeypatch.setenv("METER_LEDGER_FILE", str(tmp_path / "logs" / "ledger.jsonl"))
    ran("rebuild", "--actor", "ada")
    (line,) = (tmp_path / "logs" / "ledger.jsonl").read_text().splitlines()
    assert (orjson.loads(line)["kind"], "partition 0 was rebuilt" in line) == ("system", True)


async def test_u9_a_rebuild_by_hand_says_who(deployment: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(flush)
    monkeypatch.setenv("LOGNAME", "jürgen x")
    for arguments in (["--actor", "ada"], []):
        await asyncio.to_thread(ran, "rebuild", *arguments)
    store = await open_at(load_settings().store_url)
    found = await store.events(kind="system", limit=9)
    await store.close()
    assert [one.detail["actor"] for one in found if isinstance(one.detail, dict)] == ["cli:j_rgen_x", "ada"]
    assert (await asyncio.to_thread(runner.invoke, app, ["rebuild", "--actor", "a b"])).exit_code == 2


def test_a_ledger_log_that_cannot_be_written_is_one_line(
    deployment: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush()
    monkeypatch.setenv("METER_LEDGER_FILE", str(tmp_path))
    result = runner.invoke(app, ["rebuild"])
    assert (result.exit_code, result.stderr) == (2, f"meter: METER_LEDGER_FILE={tmp_path}: Is a directory\n")


def test_u7_a_rebuild_on_another_redis_names_both_and_changes_nothing_unless_it_is_told_to(
    deployment: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U7: with any Redis there, `meter rebuild` took the running instance's ledger away."""
    flush()
    served = Settings().store_url

    async def serve_elsewhere() -> int | None:
        store = open_store(served)
        await store.open({"partitions": "1", "decimal_places": "6"})
        await claim(store, "redis://:secret@127.0.0.1:1/0", 1_800_000_000_000)
        found = await store.watermark(0)
        await store.close()
        return found.epoch if found else None

    epoch = asyncio.run(serve_elsewhere())
    before = deployment.client.hgetall(deployment.keys.meta)
    result = runner.invoke(app, ["rebuild"])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "127.0.0.1:1/0" in line and "--yes" in line and "secret" not in line
    assert deployment.client.hgetall(deployment.keys.meta) == before
    assert asyncio.run(serve_elsewhere()) == epoch
    ran("rebuild", "--yes")
    ran("rebuild")  # it is this one now


def test_rebuild_names_what_is_lost_and_fails(deployment: Partition) -> None:
    flush()
    copy = {key: deployment.client.dump(key) for key in deployment.client.keys("*")}
    deployment.run(operations.deduct("u", 3_000_000))
    flush()
    deployment.client.flushall()
    for key, text in copy.items():
        deployment.client.restore(key, 0, text)
    deployment.sender = "after"
    deployment.run(operations.reserve("u", "other", 2_000_000, 3_600_000, chosen=True))
    report = as_json("rebuild", code=1)
    assert [line.split(":")[0].split(" ")[1:] for line in report["lost"]] == [["reserve", "u", "2000000"]]
    flush()
    ran("reconcile")


def test_a_partition_that_is_not_there_is_a_wrong_option(deployment: Partition) -> None:
    assert ran("rebuild", "--partition", "1", code=2) == ""


def test_without_a_store_there_is_nothing_to_compare(deployment: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_STORE_URL", "none")
    assert ran("reconcile", code=2) == ran("rebuild", code=2) == ""


def test_a_redis_that_is_away_is_told(deployment: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("METER_REDIS_TIMEOUT_MS", "50")
    assert ran("reconcile", code=3) == ""


def test_what_is_due_ends_by_hand(deployment: Partition) -> None:
    assert ran("jobs", "expire") == "0 transactions\n"
    deployment.run(operations.reserve("u", "short", 100, 1, chosen=True))
    time.sleep(0.005)
    assert orjson.loads(ran("jobs", "expire", "--json")) == {"transactions": 1}
    assert ran("jobs", "expire") == "0 transactions\n"


def test_periods_are_granted_by_hand(deployment: Partition) -> None:
    assert orjson.loads(ran("jobs", "allocate", "--json")) == {"allocated": 0}


def test_a_job_without_a_store_says_so(deployment: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_STORE_URL", "none")
    assert ran("jobs", "allocate", code=3) == ""


def test_every_job_is_done_by_hand(deployment: Partition) -> None:
    """P14: each says how much was done; `all` does them in the order in which one makes work for the next."""
    assert list(JOBS) == list(COUNTED)
    for job, counted in COUNTED.items():
        assert set(orjson.loads(ran("jobs", job, "--json"))) == {counted}
        assert job in ran("jobs", "--help").split()
    deployment.run(operations.reserve("u", "short", 100, 1, chosen=True))
    time.sleep(0.005)
    assert orjson.loads(ran("jobs", "all", "--json")) == {**dict.fromkeys(COUNTED.values(), 0), "transactions": 1}
