"""Numbers of rounds: what one round saw, and median and spread over several."""

from __future__ import annotations

from collections.abc import Sequence
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
    redis_us: float | None = None
    """Redis' time per operation in microseconds, where that is known."""

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


@dataclass(slots=True)
class CaseResult:
    """All rounds of one case. `operations` are those in one request."""

    name: str
    title: str
    operations: int
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
    def redis_us(self) -> float | None:
        """Redis' microseconds per operation, median."""
        known = [sample.redis_us for sample in self.samples if sample.redis_us is not None]
        return median(known) if known else None


def spread(numbers: Sequence[float]) -> Spread:
    """Median, least and most; zeros for no numbers."""
    return Spread(median(numbers), min(numbers), max(numbers)) if numbers else Spread(0.0, 0.0, 0.0)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest number that `percent` of the numbers do not exceed (nearest rank); 0 for no numbers."""
    if not ascending:
        return 0.0
    rank = -(-len(ascending) * percent // 100)
    return ascending[max(0, int(rank) - 1)]
