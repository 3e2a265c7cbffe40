"""All that a run of `meter bench` found; what was not asked for is empty or None."""

from __future__ import annotations

from dataclasses import dataclass, field

from meter.bench.latency import AddedLatency
from meter.bench.probes import FlatCost, Weight
from meter.bench.samples import CaseResult
from meter.bench.script import ScriptCost
from meter.bench.worker_cost import WorkerCost


@dataclass(slots=True)
class Findings:
    """Results by the case's name, and the parts."""

    results: dict[str, CaseResult] = field(default_factory=dict)
    latency: AddedLatency | None = None
    worker: WorkerCost | None = None
    script: ScriptCost | None = None
    costs: list[FlatCost] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
