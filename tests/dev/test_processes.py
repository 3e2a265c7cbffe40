"""The parts of `meter dev`: where state lives, and a worker that is watched over and ends with us."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from redis import Redis

from meter.config import load_settings
from meter.dev.processes import (
    RedisKeeper,
    WorkerProcess,
    embedded_server,
    ledger_file_of,
    store_url_of,
    worker_process,
)
from meter.dev.redis_server import start_time
from meter.errors import ConfigError
from tests.api.sidecar import wait_for
from tests.e2e.processes import environment

STAND_IN = """
import signal, sys, time
print("started", flush=True)
{before}
time.sleep(60)
"""


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str = "") -> WorkerProcess:
    """A worker process that runs a program of this test's own instead of `meter worker`."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n" + STAND_IN.format(before=before))
    program.chmod(0o755)
    monkeypatch.setattr("meter.dev.processes.sys.executable", str(program))
    monkeypatch.setattr("meter.dev.processes.can_end_with_parent", lambda: False)
    monkeypatch.setattr("meter.dev.processes.WORKER_RESTART_PAUSE_SECONDS", 0.01)
    return WorkerProcess(environment(), tmp_path / "worker.log")


def starts(tmp_path: Path) -> int:
    """How often the program was started."""
    log = tmp_path / "worker.log"
    return log.read_text().count("started") if log.exists() else 0


def pid_of(worker: WorkerProcess) -> int:
    assert worker._process is not None
    return worker._process.pid


def test_a_worker_that_dies_is_started_again_and_stop_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = stand_in(tmp_path, monkeypatch)
    worker.start()
    wait_for(lambda: starts(tmp_path) == 1, "the first start")
    os.kill(pid_of(worker), signal.SIGKILL)
    wait_for(lambda: starts(tmp_path) == 2, "the second start")
    last = pid_of(worker)
    worker.stop()
    assert start_time(last) is None
    assert "the worker ended and is started again code=-9 log=" in caplog.text and "worker.log" in caplog.text
    assert starts(tmp_path) == 2


def test_a_worker_that_dies_at_once_each_time_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = stand_in(tmp_path, monkeypatch, "sys.exit(2)")
    worker.start()
    wait_for(lambda: starts(tmp_path) >= 3, "some starts")
    worker.stop()
    assert not worker._watcher.is_alive()
    after = starts(tmp_path)
    assert start_time(pid_of(worker)) is None
    assert starts(tmp_path) == after


def test_a_worker_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.dev.processes.WORKER_STOP_SECONDS", 0.2)
    ignore = 'signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True)'
    worker = stand_in(tmp_path, monkeypatch, ignore)
    worker.start()
    wait_for(lambda: starts(tmp_path) and "deaf" in (tmp_path / "worker.log").read_text(), "the start")
    pid = pid_of(worker)
    worker.stop()
    wait_for(lambda: start_time(pid) is None, "the end of a worker that ignores SIGTERM")


def test_state_lives_in_the_data_folder_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("METER_STORE_URL", "METER_LEDGER_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert store_url_of(tmp_path) == f"sqlite:///{tmp_path}/meter.db"
    assert ledger_file_of(tmp_path) == f"{tmp_path}/credit_ledger.jsonl"
    monkeypatch.setenv("METER_STORE_URL", "none")
    monkeypatch.setenv("METER_LEDGER_FILE", "elsewhere.jsonl")
    assert store_url_of(tmp_path) is None
    assert ledger_file_of(tmp_path) is None


def test_the_worker_gets_the_settings_of_the_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_SWEEP_INTERVAL_SECONDS", "7")
    settings = load_settings(redis_url="redis://127.0.0.1:1/0", store_url="none", ledger_file="x.jsonl")
    found = worker_process(settings, tmp_path)._environment
    assert {name: value for name, value in found.items() if name.startswith("METER_")} == {
        **{name: value for name, value in os.environ.items() if name.startswith("METER_")},
        "METER_REDIS_URL": "redis://127.0.0.1:1/0",
        "METER_STORE_URL": "none",
        "METER_LEDGER_FILE": "x.jsonl",
        "METER_SWEEP_INTERVAL_SECONDS": "7",
    }


def test_the_data_folder_is_made_and_one_that_cannot_be_is_told(tmp_path: Path) -> None:
    embedded_server(tmp_path / "deep" / "er")
    assert (tmp_path / "deep" / "er" / "redis").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"^--data-dir {tmp_path}/file/x: "):
        embedded_server(tmp_path / "file" / "x")


def test_u10_an_embedded_redis_that_is_killed_is_started_again_with_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """U10: under `meter dev` it was away for ever."""
    caplog.set_level("INFO")
    with RedisKeeper(tmp_path) as server, Redis.from_url(server.url) as client:
        client.set("kept", "1")
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "the embedded Redis is back" in caplog.text, "the restart", seconds=60)
        assert (client.get("kept"), client.info("server")["process_id"] != pid) == (b"1", True)
        again = client.info("server")["process_id"]
    assert start_time(again) is None
    assert caplog.text.count("the embedded Redis ended and is started again") == 1
