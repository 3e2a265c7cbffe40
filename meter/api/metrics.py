"""What `GET /metrics` tells: the counts of `meter.engine.counts`, put into Prometheus' words when scraped.

Knows no engine, no HTTP and no user: a label never names one. Of several processes on one address
(`meter serve --processes N`) a scrape reaches one, which tells what each of them counted, with a label `process`: sums
over it are those of the deployment, and one that was killed begins anew, as a counter may.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain

import orjson
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from meter.engine.counts import BATCH_BOUNDS, SECONDS_BOUNDS, Counts, Distribution

PACKAGE = "meter-sidecar"


class Metrics:
    """The metrics of one process, in a registry of their own. `responses` is written by whatever answers HTTP."""

    def __init__(self, counts: Sequence[Counts], waiting: Callable[[], int]) -> None:
        self.responses: dict[int, int] = defaultdict(int)
        self._counts = counts
        self._counters: list[tuple[str, str, tuple[str, ...], Mapping[tuple[str, ...], int]]] = []
        self._waiting = waiting
        self._families: list[Callable[[], Iterable[Metric]]] = []
        self._process = ProcessCollector(registry=None)

    def counted(self, name: str, text: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> None:
        """Shows a counter that somebody else keeps; by the values of its labels."""
        self._counters.append((name, text, labels, counts))

    def shown(self, families: Callable[[], Iterable[Metric]]) -> None:
        """Shows families that somebody else makes at each scrape."""
        self._families.append(families)

    def render(self, accept: str, told: Mapping[int, bytes] | None = None) -> tuple[bytes, str]:
        """The exposition and its media type: Prometheus text, or OpenMetrics for one who accepts it. `told` is what
        each of several processes counted.
        """
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._counted() if told is None else of_processes(told), self._seen()))
        return encode(registry), content_type

    def told(self) -> bytes:
        """What this process counted, for `render` of another one."""
        families = [
            (one.name, one.documentation, one.type, [(name, labels, value) for name, labels, value, *_ in one.samples])
            for one in self._counted()
        ]
        return orjson.dumps(families)

    def _counted(self) -> Iterator[Metric]:
        """What is of this process alone."""
        yield self._counter(
            "meter_operations",
            "Operations by outcome: ok, replayed, undone (atomic batch), a refusal, "
            "unavailable (Redis), overloaded (queue), error.",
            ("op", "outcome"),
            (entry for counts in self._counts for entry in counts.outcomes()),
        )
        yield self._counter(
            "meter_batches",
            "Script calls by outcome: done, stored (the reply of an earlier try was lost), undone, failed.",
            ("outcome",),
            (((head,), count) for counts in self._counts for head, count in counts.batches.items()),
        )
        yield self._counter(
            "meter_refusing_rules",
            "Rules that refused an operation, by their sort: suspended, credits, budget, rate_limit, concurrency; of "
            "several that refuse one operation each counts.",
            ("rule",),
            (((rule,), count) for counts in self._counts for rule, count in counts.rules.items()),
        )
        yield self._histogram(
            "meter_batch_operations",
            "Operations per answered script call.",
            BATCH_BOUNDS,
            [counts.batch_operations for counts in self._counts],
        )
        yield self._histogram(
            "meter_redis_seconds",
            "Time of a script call that Redis answered.",
            SECONDS_BOUNDS,
            [counts.redis_seconds for counts in self._counts],
        )
        yield GaugeMetricFamily(
            "meter_queue_operations", "Operations that no script call has taken yet.", self._waiting()
        )
        yield self._counter(
            "meter_http_responses",
            "HTTP answers by status.",
            ("status",),
            (((str(status),), count) for status, count in self.responses.items()),
        )
        for name, text, labels, counts in self._counters:
            yield self._counter(name, text, labels, counts.items())
        yield from self._process.collect()

    def _seen(self) -> Iterator[Metric]:
        """What every process would tell alike."""
        for families in self._families:
            yield from families()
        yield InfoMetricFamily(
            "meter_build",
            "The version that runs.",
            {"version": version(PACKAGE), "python": platform.python_version()},
        )

    @staticmethod
    def _counter(
        name: str, text: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]
    ) -> CounterMetricFamily:
        sums: dict[tuple[str, ...], int] = defaultdict(int)
        for values, count in counts:
            sums[values] += count
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in sorted(sums.items()):
            family.add_metric(values, count)
        return family

    @staticmethod
    def _histogram(
        name: str, text: str, bounds: Sequence[float], parts: Sequence[Distribution]
    ) -> HistogramMetricFamily:
        running, buckets = 0, []
        for at, bound in enumerate((*map(str, bounds), "+Inf")):
            running += sum(part.counts[at] for part in parts)
            buckets.append((bound, float(running)))
        return HistogramMetricFamily(name, text, buckets, sum(part.total for part in parts))


class _Families(Collector):
    """Families that were made for one scrape."""

    def __init__(self, *parts: Iterable[Metric]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Called once, by the encoder."""
        return chain(*self._parts)


def of_processes(told: Mapping[int, bytes]) -> Iterator[Metric]:
    """What several processes counted (`Metrics.told`, by their numbers), each sample with the number of its own."""
    merged: dict[str, Metric] = {}
    for number, text in sorted(told.items()):
        for name, documentation, kind, samples in orjson.loads(text):
            family = merged.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "process": str(number)}, value)
    yield from merged.values()
