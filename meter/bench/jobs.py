"""`meter bench jobs`: a great many subscriptions, grants or holds due at one moment, and the hot path meanwhile.

The processes are those of production: a sidecar that is sent deducts at a fixed rate, and a worker with all its jobs
and the flusher, on one Redis and one store. Due are things at a ten-second mark, when the worker's clock strikes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from meter.bench.generator import RunningGenerator, run_generator
from meter.bench.goals import Goal
from meter.bench.ground import Ground
from meter.bench.machine import load_average, machine
from meter.bench.options import JobsBenchOptions
from meter.bench.processes import ServerFailed, sidecar, worker
from meter.bench.report import console, goal_members, print_goals, print_machine, sample_members
from meter.bench.samples import Sample
from meter.bench.stores import display_url, store_url
from meter.bench.traffic import Load, Template, user_name
from meter.clock import DAY_MS, period_start_ms, time_zone
from meter.dev.redis_server import EmbeddedServer
from meter.engine import operations
from meter.engine.operations import Operation
from meter.store.base import Store
from meter.store.connect import open_store
from meter.store.plan_rows import PlanRow, SubscriptionRow

CONNECTIONS = 8
CREDIT = 1_000_000
MARK_MS = 10_000
MARGIN_SECONDS = 5.0
START_SECONDS = 1.0
"""Deducts are under way when a job begins."""
POLL_SECONDS = 0.25
DEADLINE_SECONDS = 900.0
ROWS_PER_CALL = 5_000

ALLOCATION_SECONDS_MAX = 60.0
SWEEP_SECONDS_MAX = 30.0
AT_ONCE = 100_000
"""The goals are for so many; for fewer they are as much shorter."""
P99_RATIO_MAX = 3.0

_DEDUCT = Template("POST", "/credits/deduct", '{"user_id":"%U","amount":1}')


@dataclass(slots=True)
class JobResult:
    """One job over many at once."""

    name: str
    count: int
    seconds: float
    """From the moment at which all were due until nothing was."""
    stored_seconds: float
    """The same, until all of it was in the store."""
    idle: Sample
    """The deducts just before."""
    during: Sample
    """The deducts while it ran."""
    seconds_max: float
    fault: str = ""

    @property
    def per_second(self) -> float:
        """How many were done a second."""
        return self.count / self.seconds

    @property
    def p99_ratio(self) -> float:
        """The 99th percentile while it ran, in terms of the one before."""
        before = self.idle.latency_ms[-1]
        return self.during.latency_ms[-1] / before if before else 0.0


@dataclass(slots=True)
class JobsResult:
    """A run."""

    store: str
    jobs: list[JobResult] = field(default_factory=list)


def run(options: JobsBenchOptions) -> int:
    """See `meter.bench.run_jobs_bench`."""
    out = console()
    found = machine()
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        url = store_url(options.store, folder, stack)
        server = stack.enter_context(EmbeddedServer(data_dir=folder / "redis"))
        try:
            result, redis = asyncio.run(_Run(options, server.url, url, folder, out).run())
        except (ServerFailed, subprocess.SubprocessError) as error:
            out.print(f"[red]{error}[/red]")
            return 1
    print_machine(out, found, redis, "one sidecar and one worker process")
    goals = _goals(result)
    _print(out, result, options)
    print_goals(out, goals)
    now = datetime.now(UTC)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{now:%Y-%m-%dT%H%M%SZ}-jobs.json"
    members = {
        "at": now.isoformat(),
        "machine": {**found, "redis": redis, "load_average_after": load_average()},
        "rate": options.rate,
        "store": result.store,
        "jobs": [
            {**asdict(job), "idle": sample_members(job.idle), "during": sample_members(job.during)}
            for job in result.jobs
        ],
        "goals": [goal_members(goal) for goal in goals],
    }
    path.write_text(json.dumps(members, indent=2) + "\n", encoding="utf-8")
    out.print(f"{path}")
    faults = [(job.name, (job.fault, *job.idle.faults, *job.during.faults)) for job in result.jobs]
    failed = [(name, fault) for name, some in faults for fault in some if fault]
    for what, fault in failed:
        out.print(f"[red]{what}: {fault}[/red]")
    return 1 if failed else 0


class _Run:
    """One run, on a Redis and a store of its own."""

    def __init__(self, options: JobsBenchOptions, redis_url: str, url: str, folder: Path, out: Console) -> None:
        self._options = options
        self._redis_url = redis_url
        self._url = url
        self._folder = folder
        self._out = out
        self._seconds_each = 0.0
        """What one transaction took to prepare, until it was in the store."""

    async def run(self) -> tuple[JobsResult, str]:
        self._store: Store = open_store(self._url)
        options = self._options
        async with Ground(self._redis_url) as ground:
            self._ground, settings = ground, ground.settings
            agreed = {"decimal_places": str(settings.decimal_places), "partitions": str(settings.partitions)}
            await self._store.open(agreed)
            try:
                with (
                    worker(self._redis_url, self._url, self._folder) as self._worker,
                    sidecar(self._redis_url, self._folder, self._url) as self._server,
                ):
                    return await self._measure(options), ground.version
            finally:
                await self._store.close()

    async def _measure(self, options: JobsBenchOptions) -> JobsResult:
        with self._out.status("preparing accounts"):
            started = time.perf_counter()
            count = max(options.subscriptions, options.grants)
            await self._ground.give(user_name(number) for number in range(options.users))
            await self._ground.give(map(_subscriber, range(count)))
            await self._all_stored()
            self._seconds_each = (time.perf_counter() - started) / (count + options.users)
        result = JobsResult(display_url(self._url))
        if options.subscriptions:
            with self._out.status("the allocation"):
                result.jobs.append(await self._allocation(options.subscriptions))
        if options.grants:
            with self._out.status("the sweep of grants"):
                result.jobs.append(await self._sweep("sweep of grants", options.grants, self._grants))
            with self._out.status("the sweep of holds"):
                result.jobs.append(await self._sweep("sweep of holds", options.grants, self._holds))
        return result

    async def _allocation(self, count: int) -> JobResult:
        due_ms = self._mark(count)
        await self._store.insert(_plan(due_ms))
        for first in range(0, count, ROWS_PER_CALL):
            numbers = range(first, min(first + ROWS_PER_CALL, count))
            await self._store.insert_many([_subscription(number, due_ms) for number in numbers])

        async def any_due() -> bool:
            return bool(await self._store.due(SubscriptionRow, "active", "next_period_at_ms", due_ms, 1))

        before = await self._available()
        result = await self._job("allocation", count, due_ms, any_due, ALLOCATION_SECONDS_MAX)
        deducted = (result.idle.requests + result.during.requests) * _units(self._ground)
        granted = await self._available() - before + deducted
        if granted != count * CREDIT:
            result.fault = f"{granted:,} units were granted, not {count * CREDIT:,}"
        return result

    async def _sweep(self, name: str, count: int, make: Callable[[int, int], Iterator[Operation]]) -> JobResult:
        due_ms = self._mark(2 * count)
        await self._ground.run(make(count, due_ms))
        await self._all_stored()

        async def any_due() -> bool:
            ground = self._ground
            return bool(await ground.gateway.due_users(ground.keys.due, due_ms + MARK_MS, 1))

        return await self._job(name, count, due_ms, any_due, SWEEP_SECONDS_MAX)

    def _grants(self, count: int, due_ms: int) -> Iterator[Operation]:
        for number in range(count):
            yield operations.grant(_subscriber(number), "ends", CREDIT, expires_at_ms=due_ms, chosen=False)

    def _holds(self, count: int, due_ms: int) -> Iterator[Operation]:
        for number in range(count):
            user = _subscriber(number)
            left_ms = max(1, due_ms - _now_ms())
            yield operations.reserve(user, self._ground.engine.new_reservation_id(user), CREDIT, left_ms, chosen=False)

    async def _job(
        self, name: str, count: int, due_ms: int, any_due: Callable[[], Awaitable[bool]], seconds_max: float
    ) -> JobResult:
        """Waits for the moment, and then until nothing is due any more, with deducts meanwhile."""
        idle = await asyncio.to_thread(run_generator, self._load(f"before {name}", self._options.idle_seconds))
        await asyncio.sleep(max(0.0, due_ms - _now_ms()) / 1000 - START_SECONDS)
        generator = RunningGenerator(self._load(name, DEADLINE_SECONDS))
        try:
            await asyncio.sleep(max(0.0, due_ms - _now_ms()) / 1000)
            started = time.perf_counter()
            await self._until(any_due, name)
            seconds = time.perf_counter() - started
            during = await asyncio.to_thread(generator.stop)
        finally:
            generator.kill()
        await self._all_stored()
        stored = time.perf_counter() - started
        return JobResult(name, count, seconds, stored, idle, during, seconds_max * count / AT_ONCE)

    async def _until(self, goes_on: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.perf_counter() + DEADLINE_SECONDS
        while await goes_on():
            self._worker.check()
            if time.perf_counter() > deadline:
                raise ServerFailed(f"{what} took the worker more than {DEADLINE_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def _all_stored(self) -> None:
        """Returns when the worker has flushed all that is there by now."""
        state = await self._ground.gateway.partition_state(self._ground.keys.meta)
        seq = state.seq if state else 0

        async def behind() -> bool:
            watermark = await self._store.watermark(0)
            return watermark is None or watermark.seq < seq

        await self._until(behind, "the flush")

    async def _available(self) -> int:
        return (await self._ground.gateway.account_sums(self._ground.keys.accounts))[1]

    def _mark(self, transactions: int) -> int:
        """The first moment, at a ten-second mark, by which so much will have been prepared."""
        seconds = transactions * self._seconds_each + self._options.idle_seconds + MARGIN_SECONDS
        soon_ms = _now_ms() + round(seconds * 1000)
        return -(-soon_ms // MARK_MS) * MARK_MS

    def _load(self, name: str, seconds: float) -> Load:
        options = self._options
        return Load(self._server.port, (_DEDUCT,), CONNECTIONS, seconds, options.users, name, options.rate)


def _subscriber(number: int) -> str:
    return f"subscriber-{number:09d}"


def _plan(now_ms: int) -> PlanRow:
    return PlanRow(
        plan_id="bench",
        name="Bench",
        credit_limit=CREDIT,
        price="10",
        billing_period="monthly",
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )


def _subscription(number: int, due_ms: int) -> SubscriptionRow:
    """One whose first period ends at that moment."""
    zone = time_zone("UTC")
    anchor_ms = period_start_ms(due_ms, "monthly", -1, zone)
    if period_start_ms(anchor_ms, "monthly", 1, zone) != due_ms:
        anchor_ms = due_ms - 28 * DAY_MS  # the month before has no such day; the next period is a month after this one
    return SubscriptionRow(
        user_id=_subscriber(number),
        subscription_id=f"s_{number:012d}",
        plan_id="bench",
        anchor_at_ms=anchor_ms,
        period_started_at_ms=anchor_ms,
        next_period_at_ms=due_ms,
        created_at_ms=anchor_ms,
        updated_at_ms=anchor_ms,
    )


def _units(ground: Ground) -> int:
    """Of one credit."""
    return int(10**ground.settings.decimal_places)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _goals(result: JobsResult) -> list[Goal]:
    goals = []
    for job in result.jobs:
        goals.append(Goal(f"{job.name} of {job.count:,}: seconds", job.seconds, job.seconds_max, at_least=False))
        goals.append(Goal(f"{job.name}: p99 of deducts / idle", job.p99_ratio, P99_RATIO_MAX, at_least=False))
    return goals


def _print(out: Console, result: JobsResult, options: JobsBenchOptions) -> None:
    table = Table(title=f"Jobs on {result.store}, {options.rate:,} deducts a second meanwhile", title_justify="left")
    table.add_column("job")
    for name in ("count", "seconds", "a second", "stored after", "p50 ms before", "during", "p99 ms before", "during"):
        table.add_column(name, justify="right")
    for job in result.jobs:
        table.add_row(
            job.name,
            f"{job.count:,}",
            f"{job.seconds:.1f}",
            f"{job.per_second:,.0f}",
            f"{job.stored_seconds:.1f}",
            f"{job.idle.latency_ms[0]:.2f}",
            f"{job.during.latency_ms[0]:.2f}",
            f"{job.idle.latency_ms[-1]:.2f}",
            f"{job.during.latency_ms[-1]:.2f}",
        )
    out.print(table)
