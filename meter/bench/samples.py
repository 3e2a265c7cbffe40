"""Numbers of rounds: what one round saw, and what several say together.

Where cores are shared, what disturbs a round makes it slower and never faster: the best round is nearest to the truth,
and the median beside it tells how disturbed the others were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one case. `requests` are answered ones, errors included; `faults` tells some of the errors."""

    requests: int
    errors: int
    seconds: float
    latency_ms: tuple[float, ...]
    """At `PERCENTILES`."""
    faults: tuple[str, ...] = ()
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    """CPU time for each operation, by party; empty where it is not known."""
    append_only_bytes: float | None = None
    """By which Redis' append-only file grew, for each operation."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some numbers."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two cases of one run: by the best round of each, and the median of what single rounds say."""

    best: float
    median: float


@dataclass(slots=True)
class CaseResult:
    """All rounds of one case. `operations` are those in one request."""

    name: str
    title: str
    operations: int = 1
    samples: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> Spread:
        """Requests a second."""
        return spread([sample.rate for sample in self.samples])

    @property
    def latency_ms(self) -> tuple[float, ...]:
        """The median round's percentiles."""
        return tuple(median(sample.latency_ms[n] for sample in self.samples) for n in range(len(PERCENTILES)))

    @property
    def errors(self) -> int:
        """Over all rounds."""
        return sum(sample.errors for sample in self.samples)

    @property
    def parties(self) -> tuple[str, ...]:
        """Whose CPU time is known."""
        return tuple(self.samples[0].cpu_us) if self.samples else ()

    @property
    def cpu_us(self) -> Spread:
        """CPU time of all parties together for each operation."""
        return spread([sum(sample.cpu_us.values()) for sample in self.samples if sample.cpu_us])

    def share_us(self, party: str) -> Spread:
        """CPU time of one party for each operation."""
        return spread([sample.cpu_us[party] for sample in self.samples if party in sample.cpu_us])

    @property
    def append_only_bytes(self) -> Spread:
        """Growth of the append-only file for each operation."""
        return spread([sample.append_only_bytes for sample in self.samples if sample.append_only_bytes is not None])


def spread(numbers: Sequence[float]) -> Spread:
    """Median, least and most; zeros for no numbers."""
    return Spread(median(numbers), min(numbers), max(numbers)) if numbers else Spread(0.0, 0.0, 0.0)


def rate_ratio(ours: CaseResult, theirs: CaseResult) -> Ratio | None:
    """How many times the requests a second of another case; None where that was not measured."""
    pairs = zip(ours.samples, theirs.samples, strict=False)
    each = [one.rate / other.rate for one, other in pairs if other.rate]
    return Ratio(ours.rate.most / theirs.rate.most, median(each)) if each else None


def cpu_ratio(ours: CaseResult, theirs: CaseResult) -> Ratio | None:
    """How many times the CPU time of another case, all parties together; None where that was not measured."""
    pairs = zip(ours.samples, theirs.samples, strict=False)
    each = [
        sum(one.cpu_us.values()) / sum(other.cpu_us.values()) for one, other in pairs if one.cpu_us and other.cpu_us
    ]
    return Ratio(ours.cpu_us.least / theirs.cpu_us.least, median(each)) if each else None


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest number that `percent` of the numbers do not exceed (nearest rank); 0 for no numbers."""
    if not ascending:
        return 0.0
    rank = -(-len(ascending) * percent // 100)
    return ascending[max(0, int(rank) - 1)]
