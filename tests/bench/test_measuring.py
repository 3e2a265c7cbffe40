"""What the benchmark makes of what it is told: percentiles, what wrk prints, CPU time, ratios, goals."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from threading import Thread

import pytest
from typer.testing import CliRunner

from meter.bench import CASE_NAMES, PART_NAMES, BenchOptions, FlushBenchOptions, JobsBenchOptions, OptionError
from meter.bench.cases import CASES, wanted_cases, why_not
from meter.bench.cpu import cpu_ns, spent_us
from meter.bench.findings import Findings
from meter.bench.generator import requests_of
from meter.bench.goals import goals_of
from meter.bench.jobs import JobResult
from meter.bench.latency import AddedLatency
from meter.bench.machine import machine
from meter.bench.probes import FlatCost, Weight
from meter.bench.report import console, part_members, print_parts, print_results
from meter.bench.samples import CaseResult, Sample, cpu_ratio, percentile, rate_ratio, spread
from meter.bench.script import ScriptCost
from meter.bench.traffic import Load, Template
from meter.bench.worker_cost import WorkerCost
from meter.bench.wrk import WrkFailed, parse_wrk, script_of
from meter.cli import app

LOAD = Load(8000, (Template("POST", "/x", '{"user_id":"%U"}'),), 4, 1.0, 1000, "run")

_SEEN = {"requests": 1500, "status": 2, "connect": 0, "read": 1, "write": 0, "timeout": 0}
WRK = f"""Running 1s test @ http://127.0.0.1:8000
  1 threads and 64 connections
METER {json.dumps({**_SEEN, "microseconds": 2_000_000, "latency_us": [900, 1800, 4000]})}
Requests/sec:    750.00
"""


def _result(name: str, rate: float, cpu: dict[str, float] | None = None, operations: int = 1) -> CaseResult:
    """Three rounds: two alike, and one disturbed, with half of the rate and twice the CPU time."""
    sample = Sample(int(rate * 2), 0, 2.0, (1.0, 2.0, 5.0), cpu_us=cpu or {}, append_only_bytes=150.0)
    disturbed = replace(sample, seconds=4.0, cpu_us={party: us * 2 for party, us in (cpu or {}).items()})
    return CaseResult(name, name, operations, [sample, disturbed, sample])


def _latency(milliseconds: float) -> Sample:
    return Sample(1, 0, 1.0, (milliseconds, milliseconds, milliseconds * 2))


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
    pairs = script_of(
        replace(LOAD, templates=(Template("POST", "/r", '{"id":"%R"}'), Template("POST", "/r/%R/commit")))
    )

    assert r'"{\"user_id\":\"%U\"}"' in script
    assert "u%012d" in script
    assert script.count("{") == script.count("}")
    assert "for n = 1, 2000 do" in script
    assert "for n = 1, 0 do" in pairs  # each has an id of its own


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


def test_cpu_time_counts_every_thread() -> None:
    """A busy thread beside an idle main one is seen: /proc/<pid>/schedstat alone would not show it."""
    if sys.platform != "linux":
        assert cpu_ns(os.getpid()) == 0
        return
    before, done = cpu_ns(os.getpid()), []

    def work() -> None:
        until = time.thread_time_ns() + 50_000_000
        while time.thread_time_ns() < until:
            pass
        done.append(cpu_ns(os.getpid()))

    thread = Thread(target=work)
    thread.start()
    thread.join()

    assert done[0] - before >= 50_000_000
    assert cpu_ns(2**22 + 1) == 0  # there is no such process


def test_cpu_time_is_told_for_each_operation_and_party() -> None:
    spent = spent_us({"server": 1_000, "redis": 0}, {"server": 2_001_000, "redis": 500_000}, 100)

    assert spent == {"server": 20.0, "redis": 5.0}
    assert spent_us({"server": 0}, {"server": 0}, 100) == {}  # a system that does not tell
    assert spent_us({"server": 0}, {"server": 10}, 0) == {}


def test_the_metric_adds_all_parties_up_and_takes_the_best_rounds() -> None:
    echo = _result("echo", 1000, {"server": 40.0})
    deduct = _result("deduct", 3000, {"server": 10.0, "redis": 6.0, "worker": 8.0})

    metric, rate = cpu_ratio(deduct, echo), rate_ratio(deduct, echo)

    assert metric is not None
    assert rate is not None
    assert [metric.best, metric.median] == pytest.approx([0.6, 0.6])
    assert (rate.best, rate.median) == (3.0, 3.0)
    assert deduct.cpu_us.least == 24.0
    assert deduct.share_us("redis").most == 12.0
    assert cpu_ratio(_result("floor", 1), echo) is None


def test_a_median_is_that_of_the_ratios_within_rounds() -> None:
    """Rounds that were both disturbed agree; the median of each alone would not tell."""
    ours = [Sample(100, 0, 1.0, (1.0,), cpu_us={"server": us}) for us in (10.0, 40.0, 20.0)]
    theirs = [Sample(100, 0, 1.0, (1.0,), cpu_us={"server": us}) for us in (20.0, 80.0, 80.0)]

    ratio = cpu_ratio(CaseResult("a", "a", 1, ours), CaseResult("b", "b", 1, theirs))

    assert ratio is not None
    assert (ratio.best, ratio.median) == (0.5, 0.5)


def test_latency_added_is_a_difference() -> None:
    added = AddedLatency([_latency(0.5), _latency(0.2)], [_latency(0.6), _latency(0.9)])

    assert added.added_ms(50.0).best == pytest.approx(0.4)  # of the best round of each
    assert added.added_ms(50.0).median == pytest.approx((0.1 + 0.7) / 2)
    assert added.added_ms(99.0).best == pytest.approx(0.8)


def test_a_script_call_is_told_apart_from_what_is_in_it() -> None:
    """The line through calls of one and of a hundred: 20 for a call and 5 for each deduct."""
    script = ScriptCost([25.0, 50.0], [520.0, 1040.0], 90.0)

    assert script.call_us.least == pytest.approx(20.0)
    assert script.operation_us.least == pytest.approx(5.2)


def _findings() -> Findings:
    slow = Sample(100, 0, 1.0, (1.0, 1.0, 2.0), cpu_us={"server": 50.0, "worker": 140.0}, append_only_bytes=180.0)
    return Findings(
        results={
            "echo": _result("echo", 1000, {"server": 40.0}),
            "deduct": _result("deduct", 2600, {"server": 10.0, "redis": 4.0, "worker": 5.0}),
            "pairs": _result("pairs", 1100),
            "lone": _result("lone", 90, {"redis": 70.0}),
            "evalsha1": _result("evalsha1", 100),
            "proxy": _result("proxy", 100, {"server": 400.0}),
        },
        latency=AddedLatency([_latency(0.2)], [_latency(0.4)]),
        worker=WorkerCost(0.2, 0.1, 50_000.0, slow),
        script=ScriptCost([40.0], [800.0], 120.0),
        costs=[FlatCost("accounts", 1, 1000, 10.0, 12.0)],
        weights=[Weight("open hold", 400.0)],
    )


def test_goals_are_told_for_what_was_measured() -> None:
    goals = {goal.what: goal for goal in goals_of(_findings())}

    assert {what: goal.met for what, goal in goals.items()} == {
        "M: sidecar + Redis + worker CPU / echo CPU": True,
        "deduct / echo, rate": True,
        "reserve + commit requests / echo, rate": False,
        "deduct / evalsha at one connection, rate": False,
        "Redis µs per deduct at one connection": True,
        "worker µs per transaction": True,
        "meter proxy µs per request": False,
        "append-only bytes per deduct": True,
        "ms added to the echo's p50 at 1,000/s": True,
        "script µs per deduct of 100": True,
        "script µs per call": False,
        "outbox bytes per deduct of 100": False,
        "worker µs per transaction at 100/s": True,
        "worker, % of a core, idle": True,
        "append-only MB a day, idle": False,
        "accounts: 1 to 1,000": True,
        "bytes per open hold": False,
    }
    metric = goals["M: sidecar + Redis + worker CPU / echo CPU"]
    assert [metric.measured, metric.median] == pytest.approx([19 / 40, 19 / 40])
    assert goals["append-only MB a day, idle"].measured == pytest.approx(1.2)


def test_nothing_measured_is_no_goal() -> None:
    assert goals_of(Findings()) == []


def test_what_was_found_is_printed_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    found = _findings()

    print_results(console(), found.results)
    print_parts(console(), found)
    members = json.loads(json.dumps(part_members(found)))

    printed = capsys.readouterr().out
    assert "0.47 (0.47)" in printed  # M
    assert "1,200,000" not in printed
    assert "50,000 bytes an hour (1.20 MB a day)" in printed
    assert members["script"]["outbox_bytes"] == 120.0
    assert members["latency"]["added_ms"]["p50"]["best"] == pytest.approx(0.2)
    assert part_members(Findings())["worker"] is None


def test_every_case_has_a_name_that_can_be_asked_for() -> None:
    assert tuple(case.name for case in CASES) == CASE_NAMES
    assert not set(CASE_NAMES) & set(PART_NAMES)


def test_cases_are_chosen_by_name_and_parts_are_no_cases() -> None:
    assert [case.name for case in wanted_cases(("deduct", "echo"))] == ["echo", "deduct"]
    assert wanted_cases(("script",)) == []
    assert len(wanted_cases(())) == len(CASES)


def test_what_cannot_run_here_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    by_name = {case.name: case for case in CASES}

    assert "cc" in (why_not(by_name["floor"], None) or "")
    assert "--ratelimit=" in (why_not(by_name["ratelimit"], None) or "")
    assert why_not(by_name["ratelimit"], "/bin/true") is None
    assert why_not(by_name["deduct"], None) is None


def test_json_of_another_bench_is_refused_and_not_forgotten() -> None:
    run = CliRunner().invoke(app, ["bench", "flush", "--json"])

    assert run.exit_code == 2
    assert "bench flush: --json" in run.output


def test_the_machine_is_described() -> None:
    found = machine()

    assert {"cpu", "cores", "kernel", "python", "packages", "commit", "load_average"} <= found.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"seconds": -1.0},
        {"connections": 0},
        {"cases": ("echo", "tea")},
        {"generator": "hey"},
        {"idle_seconds": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_option_that_means_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(changes)).replace('_', '-')}="):
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
