"""The benchmark as a whole, for fractions of a second: it runs, counts no errors and writes what it found."""

from __future__ import annotations

import json
import shutil
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

CASES_HERE = (
    *("echo", "deduct", "pairs", "batch", "authorize", "lone", "evalsha", "evalsha1"),
    *("upstream", "proxy"),
)
PARTS_HERE = ("latency", "worker", "script")
QUICK: dict[str, Any] = {
    "rounds": 1,
    "seconds": 0.3,
    "connections": 4,
    "users": 20,
    "generator": "own",
    "idle_seconds": 0.5,
}


def _written(folder: Path) -> Any:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_quick_run_answers_every_case_without_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_bench(BenchOptions(**QUICK, cases=(*CASES_HERE, *PARTS_HERE), out=tmp_path, as_json=True))

    found = _written(tmp_path)
    assert code == 0
    assert json.loads(capsys.readouterr().out) == found
    assert list(found["cases"]) == list(CASES_HERE)
    assert all(case["errors"] == 0 and case["requests_per_second"]["median"] > 0 for case in found["cases"].values())
    assert set(found["cases"]["deduct"]["cpu_us_per_operation"]) == {"server", "redis", "worker", "together"}
    assert found["cases"]["deduct"]["cpu_us_per_operation"]["worker"]["least"] > 0
    assert found["cases"]["deduct"]["append_only_bytes_per_operation"]["least"] > 0
    assert list(found["cases"]["echo"]["cpu_us_per_operation"]) == ["server", "together"]
    assert found["latency"]["deduct"][0]["errors"] == 0
    assert found["worker"]["slow"]["cpu_us"]["worker"] > 0
    assert found["script"]["call_us"]["least"] > 0
    assert found["script"]["outbox_bytes"] > 0
    goals = {goal["what"] for goal in found["goals"]}
    assert goals >= {"M: sidecar + Redis + worker CPU / echo CPU", "meter proxy µs per request"}
    assert found["machine"]["append_only"] == "everysec"


@pytest.mark.slow
def test_wrk_and_the_c_floor_where_they_are_there(tmp_path: Path) -> None:
    """They are in the development image; elsewhere the run says that they are left out."""
    has_both = shutil.which("wrk") is not None and shutil.which("cc") is not None
    options = {**QUICK, "generator": "auto"}

    code = run_bench(BenchOptions(**options, cases=("floor", "pairs"), out=tmp_path))

    found = _written(tmp_path)
    assert code == 0
    assert "pairs" in found["cases"]
    assert ("floor" in found["cases"] and found["options"]["generator"] == "wrk") == has_both


@pytest.mark.slow
def test_refusals_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of refusals is no rate."""
    poor = Case("deduct", "too much", "sidecar", (Template("POST", "/credits/deduct", '{"user_id":"x","amount":1}'),))
    echo = next(case for case in CASES if case.name == "echo")
    monkeypatch.setattr("meter.bench.cases.CASES", (echo, poor))

    code = run_bench(BenchOptions(**QUICK, cases=("echo", "deduct"), out=tmp_path))

    found = _written(tmp_path)
    assert code == 1
    assert found["cases"]["echo"]["errors"] == 0
    assert found["cases"]["deduct"]["errors"] == found["cases"]["deduct"]["rounds"][0]["requests"] > 0
    assert "402" in found["cases"]["deduct"]["rounds"][0]["faults"][0]


@pytest.mark.slow
def test_a_ratelimit_that_is_not_there_fails_its_case_alone(tmp_path: Path) -> None:
    options = {**QUICK, "ratelimit": str(tmp_path / "absent")}

    code = run_bench(BenchOptions(**options, cases=("echo", "ratelimit"), out=tmp_path))

    found = _written(tmp_path)
    assert code == 1
    assert found["cases"]["echo"]["errors"] == 0
    assert "there is no such file" in found["cases"]["ratelimit"]["rounds"][0]["faults"][0]


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
