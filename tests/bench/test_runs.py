"""The benchmark as a whole, for fractions of a second: it runs, counts no errors and writes what it found."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from meter.bench import (
    BenchOptions,
    FlushBenchOptions,
    JobsBenchOptions,
    ProxyBenchOptions,
    run_bench,
    run_flush_bench,
    run_jobs_bench,
    run_proxy_bench,
)
from meter.bench.cases import CASES, Case
from meter.bench.traffic import Template

CASES_HERE = ("echo", "deduct", "pairs", "batch", "authorize", "logs", "explain", "evalsha")
QUICK: dict[str, object] = {"rounds": 1, "seconds": 0.3, "connections": 4, "users": 20, "generator": "own"}


def _written(folder: Path) -> Any:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_quick_run_answers_every_case_without_errors(tmp_path: Path) -> None:
    code = run_bench(BenchOptions.quick(**QUICK, cases=CASES_HERE, half_rate=True, out=tmp_path))

    found = _written(tmp_path)
    assert code == 0
    assert list(found["cases"]) == list(CASES_HERE)
    assert all(case["errors"] == 0 and case["requests_per_second"]["median"] > 0 for case in found["cases"].values())
    assert found["cases"]["deduct"]["redis_us_per_operation"] > 0
    assert found["half_rate"]["errors"] == 0
    assert {goal["what"] for goal in found["goals"]} >= {"deduct / echo", "pair requests / echo"}
    assert found["machine"]["append_only"] == "everysec"
    (drawn,) = tmp_path.glob("*.svg")
    ET.parse(drawn)


@pytest.mark.slow
def test_refusals_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of refusals is no rate."""
    poor = Case("deduct", "too much", "sidecar", (Template("POST", "/credits/deduct", '{"user_id":"x","amount":1}'),))
    monkeypatch.setattr("meter.bench.rounds.CASES", (CASES[0], poor))

    code = run_bench(BenchOptions.quick(**QUICK, out=tmp_path))

    found = _written(tmp_path)
    assert code == 1
    assert found["cases"]["echo"]["errors"] == 0
    assert found["cases"]["deduct"]["errors"] == found["cases"]["deduct"]["rounds"][0]["requests"] > 0
    assert "402" in found["cases"]["deduct"]["rounds"][0]["faults"][0]


@pytest.mark.slow
def test_a_quick_flush_run_measures_every_part(tmp_path: Path) -> None:
    code = run_flush_bench(
        FlushBenchOptions(transactions=300, lag_rate=200, lag_seconds=0.3, rebuild_accounts=50, users=20, out=tmp_path)
    )

    found = _written(tmp_path)["flush"]
    assert code == 0
    assert found["transactions"] == 300
    assert found["flush_per_second"] > 0
    assert found["lag_p99_seconds"] > 0
    assert found["rebuilt_accounts"] == 70
    assert found["plain_per_second"] is None


@pytest.mark.slow
def test_a_quick_proxy_run_reads_every_stream_both_ways(tmp_path: Path) -> None:
    code = run_proxy_bench(ProxyBenchOptions(rounds=1, seconds=0.4, users=20, out=tmp_path))

    kinds = _written(tmp_path)["proxy"]
    assert code == 0
    assert [kind["connections"] for kind in kinds] == [1, 1, 16]
    for kind in kinds:
        for way in (kind["direct"], kind["proxy"]):
            assert way["streams"] > 0
            assert way["faults"] == []
        assert kind["proxy"]["first_ms"]["p50"] > 0


@pytest.mark.slow
def test_a_quick_jobs_run_measures_every_job_and_misses_no_credit(tmp_path: Path) -> None:
    options = JobsBenchOptions(subscriptions=60, grants=40, rate=50, idle_seconds=0.5, users=20, out=tmp_path)

    code = run_jobs_bench(options)

    found = _written(tmp_path)
    assert code == 0
    assert [(job["name"], job["count"], job["fault"]) for job in found["jobs"]] == [
        ("allocation", 60, ""),
        ("sweep of grants", 40, ""),
        ("sweep of holds", 40, ""),
    ]
    for job in found["jobs"]:
        assert job["stored_seconds"] >= job["seconds"] > 0
        assert job["idle"]["requests"] > 0 < job["during"]["requests"]
        assert job["idle"]["errors"] == job["during"]["errors"] == 0
    assert len(found["goals"]) == 6
