"""`meter bench`: every case once per round, A B C A B C, so that what disturbs one disturbs all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from meter.bench import probes
from meter.bench.cases import CASES, Case, why_not
from meter.bench.generator import run_generator
from meter.bench.goals import goals_of
from meter.bench.ground import Ground
from meter.bench.machine import machine
from meter.bench.options import BenchOptions, OptionError
from meter.bench.picture import picture
from meter.bench.processes import ServerFailed, ServerProcess, peer, sidecar
from meter.bench.redis_benchmark import RedisBenchmarkFailed, run_redis_benchmark
from meter.bench.report import (
    goal_members,
    print_costs,
    print_goals,
    print_machine,
    print_results,
    result_members,
    sample_members,
)
from meter.bench.samples import CaseResult, Sample
from meter.bench.traffic import Load, user_name
from meter.bench.wrk import WrkFailed, run_wrk, wrk_path
from meter.dev.redis_server import EmbeddedServer

WARM_UP_SECONDS = 0.5
HALF_RATE_SECONDS_MIN = 2.0
BROKEN = (WrkFailed, RedisBenchmarkFailed, subprocess.SubprocessError, OSError)


def run(options: BenchOptions) -> int:
    """See `meter.bench.run_bench`."""
    return asyncio.run(_Run(options, Console()).run())


class _Run:
    """One run."""

    def __init__(self, options: BenchOptions, out: Console) -> None:
        self._options = options
        self._out = out
        self._wrk = None if options.generator == "own" else wrk_path()
        if options.generator == "wrk" and self._wrk is None:
            raise OptionError("--generator=wrk: it is not on PATH")
        self._servers: dict[str, ServerProcess] = {}
        self._results: dict[str, CaseResult] = {}

    async def run(self) -> int:
        found = machine()
        with tempfile.TemporaryDirectory(prefix="meter-bench-") as name, ExitStack() as stack:
            self._folder = Path(name)
            server = stack.enter_context(EmbeddedServer(data_dir=self._folder / "redis"))
            self._redis_url = server.url
            async with Ground(server.url) as ground:
                self._ground = ground
                print_machine(self._out, found, ground.version, "one sidecar process, no worker")
                await ground.give(user_name(number) for number in range(self._options.users))
                cases = self._start(stack)
                self._all_rounds(cases)
                half_rate = self._half_rate()
                redis = ground.version
            costs, weights = await self._probe()
        goals = goals_of(self._results, costs, weights, half_rate)
        print_results(self._out, self._results)
        print_costs(self._out, costs, weights)
        print_goals(self._out, goals)
        members = {
            "machine": {**found, "redis": redis, "append_only": "everysec"},
            "options": self._options_members(),
            "cases": {name: result_members(result) for name, result in self._results.items()},
            "half_rate": None if half_rate is None else sample_members(half_rate),
            "flat_costs": [
                {"what": c.what, "few": c.few, "many": c.many, "few_us": c.few_us, "many_us": c.many_us} for c in costs
            ],
            "weights": {weight.what: weight.bytes_each for weight in weights},
            "goals": [goal_members(goal) for goal in goals],
        }
        self._write(members, f"{found['cpu']}, {found['cores']} cores, {redis}, {self._generator} generator")
        return self._judge(half_rate)

    @property
    def _generator(self) -> str:
        return "own" if self._wrk is None else "wrk"

    def _start(self, stack: ExitStack) -> list[Case]:
        """Starts the servers of the cases that can run, and says why others cannot."""
        cases = []
        for case in CASES:
            if self._options.cases and case.name not in self._options.cases:
                continue
            reason = why_not(case)
            if reason is None and case.server not in (*self._servers, "redis"):
                users = min(self._options.users, case.users_max or self._options.users)
                try:
                    self._servers[case.server] = stack.enter_context(
                        sidecar(self._redis_url, self._folder)
                        if case.server == "sidecar"
                        else peer(case.server, self._redis_url, users, self._folder)
                    )
                except ServerFailed as error:
                    reason = f"it does not start: {error}"
                    self._results[case.name] = CaseResult(case.name, case.title, case.operations, [_failed(str(error))])
            if reason is None:
                cases.append(case)
                self._results[case.name] = CaseResult(case.name, case.title, case.operations)
            else:
                self._out.print(f"[yellow]{case.name} is left out: {reason}[/yellow]")
        return cases

    def _all_rounds(self, cases: list[Case]) -> None:
        for case in cases:
            self._sample(case, "warm", min(WARM_UP_SECONDS, self._options.seconds))
        for number in range(1, self._options.rounds + 1):
            with self._out.status(f"round {number} of {self._options.rounds}") as status:
                for case in cases:
                    status.update(f"round {number} of {self._options.rounds}: {case.title}")
                    self._results[case.name].samples.append(self._sample(case, f"{number}", self._options.seconds))

    def _sample(self, case: Case, run: str, seconds: float) -> Sample:
        """One round of one case, with Redis' time per operation."""
        before = self._ground.script_microseconds()
        try:
            sample = self._drive(case, run, seconds)
        except BROKEN as error:
            return _failed(f"{type(error).__name__}: {error}")
        spent = self._ground.script_microseconds() - before
        self._ground.forget_outbox()
        operations = sample.requests * case.operations
        if case.server not in ("sidecar", "evalsha", "redis") or not operations:
            return sample
        if case.server == "redis":  # it makes a trial first, whose time counts too
            return sample
        return Sample(
            sample.requests, sample.errors, sample.seconds, sample.latency_ms, sample.faults, spent / operations
        )

    def _drive(self, case: Case, run: str, seconds: float) -> Sample:
        if case.server == "redis":
            port = urlsplit(self._redis_url).port or 6379
            return run_redis_benchmark(self._ground, port, self._options.users, seconds)
        load = self._load(case, run, seconds)
        return run_generator(load) if self._wrk is None else run_wrk(self._wrk, load, self._folder)

    def _load(self, case: Case, run: str, seconds: float, rate: float = 0.0) -> Load:
        users = min(self._options.users, case.users_max or self._options.users)
        port = self._servers[case.server].port
        return Load(port, case.templates, self._options.connections, seconds, users, f"{case.name}-{run}", rate)

    def _half_rate(self) -> Sample | None:
        """Deducts at half of their median rate, sent by our own generator, which can hold a rate."""
        result = self._results.get("deduct")
        if not self._options.half_rate or result is None or result.errors or not result.samples:
            return None
        case = next(case for case in CASES if case.name == "deduct")
        seconds = max(HALF_RATE_SECONDS_MIN, self._options.seconds)
        return run_generator(self._load(case, "half", seconds, result.rate.median / 2))

    async def _probe(self) -> tuple[list[probes.FlatCost], list[probes.Weight]]:
        if not self._options.probes:
            return [], []
        with tempfile.TemporaryDirectory(prefix="meter-bench-") as name, self._out.status("flat-cost probes"):
            costs = await probes.flat_costs(Path(name), deep=self._options.deep)
            return costs, await probes.weights(Path(name)) if self._options.deep else []

    def _options_members(self) -> dict[str, object]:
        options = self._options
        return {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": options.connections,
            "users": options.users,
            "generator": self._generator,
            "deep": options.deep,
        }

    def _write(self, members: dict[str, object], caption: str) -> None:
        now = datetime.now(UTC)
        self._options.out.mkdir(parents=True, exist_ok=True)
        path = self._options.out / f"{now:%Y-%m-%dT%H%M%SZ}.json"
        path.write_text(json.dumps({"at": now.isoformat(), **members}, indent=2) + "\n", encoding="utf-8")
        drawn = path.with_suffix(".svg")
        drawn.write_text(picture(self._results, f"{now:%Y-%m-%d}, {caption}"), encoding="utf-8")
        self._out.print(f"{path} and {drawn.name}")

    def _judge(self, half_rate: Sample | None) -> int:
        """Says which case failed and how: a rate of refusals is no rate."""
        failed = [(r.title, s) for r in self._results.values() for s in r.samples if s.errors or not s.requests]
        if half_rate is not None and half_rate.errors:
            failed.append(("half rate", half_rate))
        for title, sample in failed:
            self._out.print(f"[red]{title}: {sample.errors:,} errors: {'; '.join(sample.faults)}[/red]")
        return 1 if failed or not self._results else 0


def _failed(why: str) -> Sample:
    return Sample(requests=0, errors=1, seconds=1.0, latency_ms=(0.0, 0.0, 0.0), faults=(why,))
