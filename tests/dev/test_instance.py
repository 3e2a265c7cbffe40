"""U7: `server.json` of a data folder: who runs there, and which settings that gives to commands beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from meter import Meter
from meter.config import load_settings
from meter.dev.instance import NAME, forget_instance, running_instance, settings_beside, write_instance


def test_u7_the_running_instance_is_found_and_a_dead_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert running_instance(tmp_path) is None
    settings = load_settings(
        redis_url="redis://127.0.0.1:41234/0",
        store_url="sqlite:///.meter/meter.db",
        partitions=3,
        ledger_file="l.jsonl",
    )
    write_instance(tmp_path, settings, "http://127.0.0.1:8000")
    path = tmp_path / NAME
    assert path.stat().st_mode & 0o777 == 0o600
    found = running_instance(tmp_path)
    assert found is not None and found.url == "http://127.0.0.1:8000"
    beside = settings_beside(tmp_path, {})
    assert beside["redis_url"] == "redis://127.0.0.1:41234/0"
    assert beside["store_url"] == f"sqlite:///{tmp_path}/.meter/meter.db"
    assert (beside["partitions"], beside["ledger_file"]) == (3, f"{tmp_path}/l.jsonl")
    assert load_settings(**beside).partitions == 3
    (tmp_path / ".meter").mkdir()
    write_instance(tmp_path / ".meter", settings, "http://127.0.0.1:8000")
    monkeypatch.delenv("METER_REDIS_URL", raising=False)
    monkeypatch.delenv("METER_STORE_URL", raising=False)
    for made, url, partitions in (
        (Meter.connect(), "redis://127.0.0.1:41234/0", 3),
        (Meter.connect(batch_max=7), "redis://127.0.0.1:41234/0", 3),
        (Meter.connect("redis://127.0.0.1:1/0"), "redis://127.0.0.1:1/0", 1),
    ):
        assert (made._settings.redis_url, made._settings.partitions) == (url, partitions)
    assert "partitions" not in settings_beside(tmp_path, {"METER_PARTITIONS": "5"})
    assert settings_beside(tmp_path, {"METER_REDIS_URL": "redis://h"}) == {}
    assert settings_beside(tmp_path, {"METER_STORE_URL": "none"}) == {}
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "before"}))
    assert running_instance(tmp_path) is None
    path.write_text("{")
    assert settings_beside(tmp_path, {}) == {}


def test_what_is_forgotten_is_gone_whether_or_not_it_was_there(tmp_path: Path) -> None:
    write_instance(tmp_path, load_settings(), "http://127.0.0.1:8000")
    for _ in range(2):
        forget_instance(tmp_path)
        assert running_instance(tmp_path) is None
        assert not (tmp_path / NAME).exists()


def test_a_second_sigterm_does_not_cut_off_the_end(tmp_path: Path) -> None:
    """It left `server.json` and the worker behind."""
    program = """
import os, signal
from meter.cli.starting import end_on_sigterm
end_on_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("ended", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
