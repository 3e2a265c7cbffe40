"""What the benchmark makes of what it is told: percentiles, what wrk and redis-benchmark print, goals, the picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from meter.bench import CASE_NAMES, BenchOptions, FlushBenchOptions, JobsBenchOptions, OptionError
from meter.bench.cases import CASES
from meter.bench.generator import requests_of
from meter.bench.goals import goals_of
from meter.bench.jobs import JobResult
from meter.bench.machine import machine
from meter.bench.picture import picture
from meter.bench.probes import FlatCost, Weight
from meter.bench.redis_benchmark import RedisBenchmarkFailed, parse_redis_benchmark
from meter.bench.samples import CaseResult, Sample, percentile, spread
from meter.bench.traffic import Load, Template
from meter.bench.wrk import WrkFailed, parse_wrk, script_of

LOAD = Load(8000, (Template("POST", "/x", '{"user_id":"%U"}'),), 4, 1.0, 1000, "run")

_SEEN = {"requests": 1500, "status": 2, "connect": 0, "read": 1, "write": 0, "timeout": 0}
WRK = f"""Running 1s test @ http://127.0.0.1:8000
  1 threads and 64 connections
METER {json.dumps({**_SEEN, "microseconds": 2_000_000, "latency_us": [900, 1800, 4000]})}
Requests/sec:    750.00
"""

REDIS = """====== EVALSHA ======
  1000 requests completed in 1.25 seconds

Summary:
  throughput summary: 800.00 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        2.100     0.900     2.000     3.000     4.000     9.000
"""


def _result(name: str, rate: float, operations: int = 1, redis_us: float | None = None) -> CaseResult:
    sample = Sample(int(rate * 2), 0, 2.0, (1.0, 2.0, 5.0), redis_us=redis_us)
    return CaseResult(name, f"{name} <&>", operations, [sample, replace(sample, seconds=4.0), sample])


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (90, 9), (99, 10), (100, 10), (1, 1), (0, 1)], ids=str)
def test_a_percentile_is_one_of_the_numbers(percent: float, expected: int) -> None:
    assert percentile(range(1, 11), percent) == expected


def test_there_is_nothing_in_no_numbers() -> None:
    assert percentile([], 99) == 0
    assert spread([]).median == 0


def test_rounds_become_median_and_spread() -> None:
    rate = _result("deduct", 100).rate

    assert (rate.median, rate.least, rate.most) == (100, 50, 100)


def test_the_output_of_wrk_is_read() -> None:
    sample = parse_wrk(WRK)

    assert (sample.rate, sample.errors, sample.latency_ms) == (750, 3, (0.9, 1.8, 4.0))
    assert sample.faults == ("2 status errors", "1 read errors")


def test_silence_of_wrk_is_an_error() -> None:
    with pytest.raises(WrkFailed, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1")


def test_the_script_for_wrk_quotes_what_it_sends() -> None:
    script = script_of(LOAD)

    assert r'"{\"user_id\":\"%U\"}"' in script
    assert "u%012d" in script
    assert script.count("{") == script.count("}")


def test_the_output_of_redis_benchmark_is_read() -> None:
    sample = parse_redis_benchmark(REDIS, 1000, 9.0)

    assert (sample.rate, sample.latency_ms) == (800, (2.0, 3.0, 4.0))


def test_an_error_of_redis_benchmark_is_one() -> None:
    with pytest.raises(RedisBenchmarkFailed, match="NOSCRIPT"):
        parse_redis_benchmark("Error from server: NOSCRIPT", 1, 1.0)


def test_a_load_survives_its_way_to_the_generator() -> None:
    load = replace(LOAD, templates=(*LOAD.templates, Template("GET", "/y", headers=(("X-User-Id", "%U"),))), rate=5.0)

    assert Load.from_json(load.to_json()) == load


def test_a_pair_has_one_id_and_the_next_pair_another() -> None:
    templates = (Template("POST", "/r", '{"id":"%R"}'), Template("POST", "/r/%R/commit"))
    requests = requests_of(replace(LOAD, templates=templates), 3)

    first, second, third = next(requests), next(requests), next(requests)

    assert first.endswith(b'{"id":"run-3-1"}')
    assert second.startswith(b"POST /r/run-3-1/commit HTTP/1.1\r\n")
    assert third.endswith(b'{"id":"run-3-2"}')


def test_users_are_drawn_by_lot() -> None:
    requests = requests_of(LOAD, 0)

    assert len({next(requests) for _ in range(200)}) > 50


def test_goals_are_told_for_what_was_measured() -> None:
    results = {
        "echo": _result("echo", 1000),
        "deduct": _result("deduct", 3000, redis_us=9.0),
        "pairs": _result("pairs", 1100),
        "batch": _result("batch", 100, operations=100),
        "redis": _result("redis", 200, operations=100),
    }
    costs = [FlatCost("accounts", 1, 1000, 10.0, 12.0)]
    goals = {
        goal.what: goal for goal in goals_of(results, costs, [Weight("open hold", 400.0)], results["echo"].samples[0])
    }

    assert {what: goal.met for what, goal in goals.items()} == {
        "deduct / echo": True,
        "pair requests / echo": False,
        "batch / redis-benchmark, operations": False,
        "Redis µs per operation, deduct": True,
        "accounts: 1 to 1,000": True,
        "bytes per open hold": False,
        "p99 in ms at half rate": True,
    }
    assert goals["batch / redis-benchmark, operations"].measured == pytest.approx(0.5)


def test_the_picture_is_well_formed_and_shows_every_case() -> None:
    results = {name: _result(name, 100 * (n + 1)) for n, name in enumerate(CASE_NAMES)}

    root = ET.fromstring(picture(results, "a <machine>"))

    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert len(list(root.iter(f"{space}rect"))) == len(CASE_NAMES)
    assert all(texts.count(f"{name} <&>") == 2 for name in CASE_NAMES)
    assert "a <machine>" in texts
    assert "prefers-color-scheme:dark" in (root.find(f"{space}style").text or "")  # type: ignore[union-attr]


def test_a_picture_of_nothing_is_well_formed() -> None:
    assert ET.fromstring(picture({}, "")).tag.endswith("svg")


def test_every_case_has_a_name_that_can_be_asked_for() -> None:
    assert tuple(case.name for case in CASES) == CASE_NAMES


def test_the_machine_is_described() -> None:
    found = machine()

    assert {"cpu", "cores", "kernel", "python", "packages", "load_average"} <= found.keys()


@pytest.mark.parametrize(
    "changes",
    [{"rounds": 0}, {"seconds": -1.0}, {"connections": 0}, {"cases": ("echo", "tea")}, {"generator": "hey"}],
    ids=lambda changes: next(iter(changes)),
)
def test_an_option_that_means_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(changes))}="):
        BenchOptions(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"transactions": 0}, {"lag_seconds": -1}, {"rebuild_accounts": -1}])
def test_an_option_of_the_flush_that_means_nothing_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="--"):
        FlushBenchOptions(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"subscriptions": -1}, {"grants": -1}, {"rate": 0}, {"idle_seconds": 0}])
def test_an_option_of_the_jobs_that_means_nothing_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(changes)).replace('_', '-')}="):
        JobsBenchOptions(**changes)  # type: ignore[arg-type]


def test_a_p99_is_told_in_terms_of_the_one_before() -> None:
    def sample(p99: float) -> Sample:
        return Sample(requests=1, errors=0, seconds=1.0, latency_ms=(1.0, 1.0, p99))

    job = JobResult("allocation", 100, 4.0, 5.0, sample(2.0), sample(5.0), 60.0)

    assert (job.p99_ratio, job.per_second) == (2.5, 25.0)
    assert JobResult("allocation", 100, 4.0, 5.0, sample(0.0), sample(5.0), 60.0).p99_ratio == 0.0
