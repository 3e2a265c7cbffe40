"""What `GET /metrics` tells of the parts, the backlog and the workers: one look, put into Prometheus' words.

What a worker counts is told by itself and, as of its last beat, by every sidecar, in the same series with the same
`worker` label: whoever scrapes both takes the maximum by labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from meter.health.presence import Worker, alive
from meter.health.status import Facts, PartitionFacts, Status, oldest_seconds

_WELL = ("ok", "none", "high")


def status_metrics(status: Status, worker: Worker | None = None) -> Iterator[Metric]:
    """The parts, the backlog and the workers that are seen; what is unknown is absent. A `worker` counts for itself."""
    up = GaugeMetricFamily("meter_part_up", "Whether a part works: 1, or 0.", labels=["part"])
    for name, part in status.parts.items():
        if part.state != "unknown":
            up.add_metric([name], float(part.state in _WELL))
    yield up
    facts = status.facts
    if not facts.redis_fault:
        yield from _redis_metrics(facts)
    if worker is not None or not facts.redis_fault:
        yield from _worker_metrics(facts.workers if worker is None else [worker])


def _redis_metrics(facts: Facts) -> Iterator[Metric]:
    yield from _outbox_metrics(facts.partitions, oldest_seconds(facts))
    living = alive(facts.workers, facts.now_ms)
    yield GaugeMetricFamily("meter_workers", "Workers that were seen lately.", float(len(living)))
    seen = GaugeMetricFamily("meter_worker_seen_timestamp_seconds", "When a worker was last seen, on Redis' clock.")
    if facts.workers:
        seen.add_metric([], facts.workers[0].seen_at_ms / 1000)
    yield seen


def _worker_metrics(workers: Sequence[Worker]) -> Iterator[Metric]:
    """What workers counted: flushes, deliveries and jobs."""
    yield _last_flush(workers)
    failures = CounterMetricFamily(
        "meter_flush_failures", "Steps of a flush that failed and were taken again.", labels=["worker", "partition"]
    )
    deliveries = CounterMetricFamily(
        "meter_deliveries",
        "Attempts to deliver an alert: delivered, to be retried, failed for good.",
        labels=["worker", "outcome"],
    )
    bought = CounterMetricFamily(
        "meter_top_ups",
        "Requests for credits that ended: paid, declined, cancelled, reversed.",
        labels=["worker", "outcome"],
    )
    runs = CounterMetricFamily("meter_job_runs", "Runs of a job that ended.", labels=["worker", "job", "outcome"])
    seconds = CounterMetricFamily("meter_job_seconds", "Time that the runs of a job took.", labels=["worker", "job"])
    ended = GaugeMetricFamily("meter_job_ended_timestamp_seconds", "When a job last ended.", labels=["worker", "job"])
    aside = CounterMetricFamily(
        "meter_set_aside",
        "Subscriptions that cannot be worked out and promised grants that are refused: somebody has to look at them.",
        labels=["worker", "what"],
    )
    for one in workers:
        for partition, count in sorted(one.flush_failures.items()):
            failures.add_metric([one.worker_id, str(partition)], count)
        for outcome, count in sorted(one.deliveries.items()):
            deliveries.add_metric([one.worker_id, outcome], count)
        for outcome, count in sorted(one.top_ups.items()):
            bought.add_metric([one.worker_id, outcome], count)
        for name, job in sorted(one.jobs.items()):
            runs.add_metric([one.worker_id, name, "done"], job.done)
            runs.add_metric([one.worker_id, name, "failed"], job.failed)
            seconds.add_metric([one.worker_id, name], job.seconds)
            ended.add_metric([one.worker_id, name], job.ended_at_ms / 1000)
        for what, count in sorted(one.set_aside.items()):
            aside.add_metric([one.worker_id, what], count)
    yield from (failures, deliveries, bought, runs, seconds, ended, aside)


def _outbox_metrics(partitions: Iterable[PartitionFacts], oldest: float) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "meter_outbox_transactions", "Transactions that the store does not have yet.", labels=["partition"]
    )
    for one in partitions:
        waiting.add_metric([str(one.number)], one.backlog)
    yield waiting
    yield GaugeMetricFamily("meter_outbox_oldest_seconds", "How long the oldest of them has waited.", oldest)


def _last_flush(workers: Iterable[Worker]) -> Metric:
    family = GaugeMetricFamily(
        "meter_flush_timestamp_seconds", "When the store last took transactions.", labels=["partition"]
    )
    latest: dict[int, int] = {}
    for one in workers:
        for partition, at_ms in one.flushed_at_ms.items():
            latest[partition] = max(at_ms, latest.get(partition, 0))
    for partition, at_ms in sorted(latest.items()):
        family.add_metric([str(partition)], at_ms / 1000)
    return family
