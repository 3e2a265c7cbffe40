"""What a worker costs that has little to do: CPU, and growth of Redis' append-only file, idle and at a low rate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from meter.bench.cases import REDIS, WORKER, wanted_cases
from meter.bench.cpu import spent_us
from meter.bench.ground import Ground
from meter.bench.options import BenchOptions
from meter.bench.parties import Parties
from meter.bench.rounds import Rounds
from meter.bench.samples import Sample

RATE = 100
"""Deducts a second."""
RATE_SECONDS_PER_ROUND = 1.0
WARM_UP_SECONDS = 1.0
SETTLE_SECONDS = 3.0
"""A process that has just started is not idle yet."""
HOURS_A_DAY, SECONDS_AN_HOUR = 24, 3600


@dataclass(frozen=True, slots=True)
class WorkerCost:
    """Idle, and at `RATE` deducts a second."""

    worker_percent: float
    """Of one core, idle."""
    redis_percent: float
    """Of one core, idle: what the worker, the sidecar and Redis' own clock ask of it."""
    append_only_bytes_an_hour: float
    """Idle."""
    slow: Sample
    """The deducts, with the CPU time and the growth of the append-only file for each."""

    @property
    def append_only_mb_a_day(self) -> float:
        """Idle."""
        return self.append_only_bytes_an_hour * HOURS_A_DAY / 1e6


async def worker_cost(options: BenchOptions, parties: Parties, ground: Ground, rounds: Rounds) -> WorkerCost:
    """Raises `ServerFailed`."""
    (deduct,) = wanted_cases(("deduct",))
    await parties.start(deduct)
    seconds = options.rounds * RATE_SECONDS_PER_ROUND * min(1.0, options.seconds)
    await rounds.sample(deduct, "warm", min(WARM_UP_SECONDS, seconds), RATE)
    await asyncio.sleep(min(SETTLE_SECONDS, options.idle_seconds))
    cpu, written = parties.background(), ground.append_only_bytes()
    await asyncio.sleep(options.idle_seconds)
    spent = spent_us(cpu, parties.background(), options.idle_seconds)
    written = ground.append_only_bytes() - written
    slow = await rounds.sample(deduct, "slow", seconds, RATE)
    return WorkerCost(
        worker_percent=spent.get(WORKER, 0.0) / 1e4,
        redis_percent=spent.get(REDIS, 0.0) / 1e4,
        append_only_bytes_an_hour=written * SECONDS_AN_HOUR / options.idle_seconds,
        slow=slow,
    )
