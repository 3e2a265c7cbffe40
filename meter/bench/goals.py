"""What was measured beside what it should be (docs: the numbers to reach), as ratios within one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meter.bench.probes import FlatCost, Weight
from meter.bench.samples import CaseResult, Sample

REDIS_US_MAX = 12.0
FLAT_RATIO_MAX = 1.3
WEIGHTS_MAX = {"idle account with one grant": 400.0, "open hold": 350.0}
HALF_RATE_P99_MS_MAX = 5.0

# what, case, measured against, at least, per operation (else per request)
_RATIOS = (
    ("deduct / echo", "deduct", "echo", 2.5, False),
    ("pair requests / echo", "pairs", "echo", 1.2, False),
    ("batch / redis-benchmark, operations", "batch", "redis", 0.6, True),
    ("deduct / credit-management", "deduct", "original", 25.0, False),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. `at_least` says on which side of `goal` the measured number should be."""

    what: str
    measured: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


def goals_of(
    results: Mapping[str, CaseResult],
    costs: Sequence[FlatCost] = (),
    weights: Sequence[Weight] = (),
    half_rate: Sample | None = None,
) -> list[Goal]:
    """The goals that this run can tell of."""
    return [*_ratios(results), *_redis(results, costs), *_rest(weights, half_rate)]


def _ratios(results: Mapping[str, CaseResult]) -> Iterable[Goal]:
    for what, name, against, goal, per_operation in _RATIOS:
        ours, theirs = results.get(name), results.get(against)
        if ours is None or theirs is None or not theirs.rate.median:
            continue
        factor = ours.operations / theirs.operations if per_operation else 1.0
        yield Goal(what, ours.rate.median * factor / theirs.rate.median, goal, at_least=True)


def _redis(results: Mapping[str, CaseResult], costs: Sequence[FlatCost]) -> Iterable[Goal]:
    for name in ("deduct", "batch"):
        if name in results and (spent := results[name].redis_us) is not None:
            yield Goal(f"Redis µs per operation, {name}", spent, REDIS_US_MAX, at_least=False)
    for cost in costs:
        yield Goal(f"{cost.what}: {cost.few:,} to {cost.many:,}", cost.ratio, FLAT_RATIO_MAX, at_least=False)


def _rest(weights: Sequence[Weight], half_rate: Sample | None) -> Iterable[Goal]:
    for weight in weights:
        yield Goal(f"bytes per {weight.what}", weight.bytes_each, WEIGHTS_MAX[weight.what], at_least=False)
    if half_rate is not None:
        yield Goal("p99 in ms at half rate", half_rate.latency_ms[-1], HALF_RATE_P99_MS_MAX, at_least=False)
