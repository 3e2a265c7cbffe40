"""What the sidecar adds to the latency of an echo that is asked at the same fixed rate, round by round in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from meter.bench.cases import wanted_cases
from meter.bench.options import BenchOptions
from meter.bench.parties import Parties
from meter.bench.rounds import Rounds
from meter.bench.samples import PERCENTILES, Ratio, Sample

RATE = 1_000
"""Requests a second, over all connections."""


@dataclass(slots=True)
class AddedLatency:
    """The rounds of both."""

    echo: list[Sample] = field(default_factory=list)
    deduct: list[Sample] = field(default_factory=list)

    def ms(self, which: str, percent: float) -> Ratio:
        """A percentile of one of them: of the best round, and of the median one."""
        found = self._at(getattr(self, which), percent)
        return Ratio(min(found), median(found))

    def added_ms(self, percent: float) -> Ratio:
        """The difference of the best rounds, and the median of the differences within a round."""
        ours, theirs = self._at(self.deduct, percent), self._at(self.echo, percent)
        each = [one - other for one, other in zip(ours, theirs, strict=True)]
        return Ratio(min(ours) - min(theirs), median(each))

    def _at(self, samples: Sequence[Sample], percent: float) -> list[float]:
        return [sample.latency_ms[PERCENTILES.index(percent)] for sample in samples]


async def added_latency(options: BenchOptions, parties: Parties, rounds: Rounds) -> AddedLatency:
    """Raises `ServerFailed`."""
    echo, deduct = wanted_cases(("echo", "deduct"))
    for case in (echo, deduct):
        await parties.start(case)
    found = AddedLatency()
    for number in range(1, options.rounds + 1):
        for case, samples in ((echo, found.echo), (deduct, found.deduct)):
            samples.append(await rounds.sample(case, f"latency-{number}", options.seconds, RATE))
    return found
