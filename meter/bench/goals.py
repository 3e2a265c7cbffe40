"""What was measured beside what it should be (docs/performance.md), as ratios within one run where there are any.

A goal is judged by the best rounds (`meter.bench.samples` says why); the median stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meter.bench.cases import REDIS, SERVER, WORKER
from meter.bench.findings import Findings
from meter.bench.latency import RATE as LATENCY_RATE
from meter.bench.samples import CaseResult, cpu_ratio, rate_ratio
from meter.bench.script import ScriptCost
from meter.bench.worker_cost import RATE as SLOW_RATE
from meter.bench.worker_cost import WorkerCost

METRIC_MAX = 0.5
FLAT_RATIO_MAX = 1.3
WEIGHTS_MAX = {"idle account with one grant": 400.0, "open hold": 350.0}
LATENCY_ADDED_MS_MAX = 0.25
SCRIPT_OPERATION_US_MAX, SCRIPT_CALL_US_MAX = 8.0, 25.0
OUTBOX_BYTES_MAX = 100.0
WORKER_SLOW_US_MAX = 150.0
WORKER_IDLE_PERCENT_MAX = 0.3
APPEND_ONLY_MB_A_DAY_MAX = 1.0
APPEND_ONLY_BYTES_MAX = 200.0

# what, case, measured against, at least
_RATES = (
    ("deduct / echo, rate", "deduct", "echo", 2.5),
    ("reserve + commit requests / echo, rate", "pairs", "echo", 1.5),
    ("deduct / evalsha at one connection, rate", "lone", "evalsha1", 1.0),
    ("deduct / credit-management, rate", "deduct", "original", 25.0),
)
# what, case, party, at most
_SHARES = (
    ("Redis µs per deduct at one connection", "lone", REDIS, 80.0),
    ("worker µs per transaction", "deduct", WORKER, 20.0),
    ("meter proxy µs per request", "proxy", SERVER, 300.0),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. `at_least` says on which side of `goal` the measured number should be."""

    what: str
    measured: float
    goal: float
    at_least: bool
    median: float | None = None
    """Of the rounds, where `measured` is that of the best one."""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


def goals_of(found: Findings) -> list[Goal]:
    """The goals that this run can tell of."""
    goals = [*_metric(found), *_rates(found), *_shares(found)]
    if found.latency is not None:
        added = found.latency.added_ms(50.0)
        what = f"ms added to the echo's p50 at {LATENCY_RATE:,}/s"
        goals.append(_at_most(what, added.best, LATENCY_ADDED_MS_MAX, added.median))
    if found.script is not None:
        goals += _script(found.script)
    if found.worker is not None:
        goals += _worker(found.worker)
    for cost in found.costs:
        goals.append(_at_most(f"{cost.what}: {cost.few:,} to {cost.many:,}", cost.ratio, FLAT_RATIO_MAX))
    for weight in found.weights:
        goals.append(_at_most(f"bytes per {weight.what}", weight.bytes_each, WEIGHTS_MAX[weight.what]))
    return goals


def _metric(found: Findings) -> Iterable[Goal]:
    both = _two(found, "deduct", "echo")
    ratio = cpu_ratio(*both) if both else None
    if ratio is not None:
        yield _at_most("M: sidecar + Redis + worker CPU / echo CPU", ratio.best, METRIC_MAX, ratio.median)


def _rates(found: Findings) -> Iterable[Goal]:
    for what, name, against, least in _RATES:
        both = _two(found, name, against)
        ratio = rate_ratio(*both) if both else None
        if ratio is not None:
            yield Goal(what, ratio.best, least, at_least=True, median=ratio.median)


def _shares(found: Findings) -> Iterable[Goal]:
    for what, name, party, most in _SHARES:
        result = found.results.get(name)
        if result is not None and party in result.parties:
            share = result.share_us(party)
            yield _at_most(what, share.least, most, share.median)
    result = found.results.get("deduct")
    if result is not None and result.append_only_bytes.most:
        written = result.append_only_bytes
        yield _at_most("append-only bytes per deduct", written.least, APPEND_ONLY_BYTES_MAX, written.median)


def _script(script: ScriptCost) -> Iterable[Goal]:
    each, call = script.operation_us, script.call_us
    yield _at_most("script µs per deduct of 100", each.least, SCRIPT_OPERATION_US_MAX, each.median)
    yield _at_most("script µs per call", call.least, SCRIPT_CALL_US_MAX, call.median)
    yield _at_most("outbox bytes per deduct of 100", script.outbox_bytes, OUTBOX_BYTES_MAX)


def _worker(worker: WorkerCost) -> Iterable[Goal]:
    if WORKER in worker.slow.cpu_us:
        slow = worker.slow.cpu_us[WORKER]
        yield _at_most(f"worker µs per transaction at {SLOW_RATE}/s", slow, WORKER_SLOW_US_MAX)
        yield _at_most("worker, % of a core, idle", worker.worker_percent, WORKER_IDLE_PERCENT_MAX)
    yield _at_most("append-only MB a day, idle", worker.append_only_mb_a_day, APPEND_ONLY_MB_A_DAY_MAX)


def _two(found: Findings, name: str, against: str) -> tuple[CaseResult, CaseResult] | None:
    ours, theirs = found.results.get(name), found.results.get(against)
    return (ours, theirs) if ours and theirs and ours.samples and theirs.samples else None


def _at_most(what: str, measured: float, goal: float, median: float | None = None) -> Goal:
    return Goal(what, measured, goal, at_least=False, median=median)
