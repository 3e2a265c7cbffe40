"""`meter bench`: the rounds, the parts after them, and what they say."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from meter.bench import probes
from meter.bench.cpu import can_read_cpu
from meter.bench.driver import NO_WRK, Driver
from meter.bench.findings import Findings
from meter.bench.goals import goals_of
from meter.bench.ground import Ground
from meter.bench.latency import added_latency
from meter.bench.machine import machine
from meter.bench.options import BenchOptions
from meter.bench.parties import Parties
from meter.bench.processes import ServerFailed
from meter.bench.report import (
    console,
    goal_members,
    part_members,
    print_goals,
    print_machine,
    print_parts,
    print_results,
    result_members,
)
from meter.bench.rounds import Rounds
from meter.bench.samples import Sample
from meter.bench.script import script_cost
from meter.bench.traffic import user_name
from meter.bench.worker_cost import worker_cost
from meter.dev.redis_server import EmbeddedServer

NO_CPU = "This system tells no CPU time of processes in /proc/<pid>/schedstat (Linux does): no M, no CPU times."


def run(options: BenchOptions) -> int:
    """See `meter.bench.run_bench`."""
    out = console(stderr=options.as_json)
    try:
        return asyncio.run(_run(options, out))
    except ServerFailed as error:
        out.print(f"[red]{error}[/red]")
        return 1


async def _run(options: BenchOptions, out: Console) -> int:
    about = machine()
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as name:
        folder = Path(name)
        driver = Driver(options, folder)
        found, redis = await _measured(options, driver, folder, about, out)
    goals = goals_of(found)
    print_results(out, found.results)
    print_parts(out, found)
    print_goals(out, goals)
    members = {
        "at": datetime.now(UTC).isoformat(),
        "machine": {**about, "redis": redis, "append_only": "everysec"},
        "options": {**asdict(options), "out": str(options.out), "generator": driver.generator},
        "cases": {case: result_members(result) for case, result in found.results.items()},
        **part_members(found),
        "goals": [goal_members(goal) for goal in goals],
    }
    _write(options, members, out)
    return _judge(found, out)


async def _measured(
    options: BenchOptions, driver: Driver, folder: Path, about: dict[str, object], out: Console
) -> tuple[Findings, str]:
    found = Findings()
    with EmbeddedServer(data_dir=folder / "redis") as server:
        async with Ground(server.url) as ground, Parties(options, server, ground, folder) as parties:
            redis = ground.version
            print_machine(out, about, redis, f"one sidecar, one worker on SQLite, load by {driver.generator}")
            for told in ([NO_WRK] if driver.generator == "own" else []) + ([] if can_read_cpu() else [NO_CPU]):
                out.print(f"[yellow]{told}[/yellow]")
            ground.never_rewrite()
            await ground.give(user_name(number) for number in range(options.users))
            rounds = Rounds(options, driver, parties, ground, out)
            if options.wants("worker"):  # first: afterwards it has old holds to end, and old transactions to trim
                with out.status(f"the worker, {options.idle_seconds:g} s idle, and at a low rate"):
                    found.worker = await worker_cost(options, parties, ground, rounds)
            await rounds.run()
            found.results = rounds.results
            if options.wants("latency"):
                with out.status("latency at a fixed rate"):
                    found.latency = await added_latency(options, parties, rounds)
    await _probe(options, folder, found, out)
    return found, redis


async def _probe(options: BenchOptions, folder: Path, found: Findings, out: Console) -> None:
    """What wants a Redis of its own."""
    if options.wants("script"):
        with out.status("the script"):
            found.script = await script_cost(folder, options.rounds, options.users)
    if options.wants("flat"):
        with out.status("flat cost"):
            found.costs = await probes.flat_costs(folder, deep=options.deep)
            found.weights = await probes.weights(folder) if options.deep else []


def _write(options: BenchOptions, members: dict[str, object], out: Console) -> None:
    text = json.dumps(members, indent=2)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(text + "\n", encoding="utf-8")
    out.print(f"{path}")
    if options.as_json:
        print(text)  # noqa: T201 - for a program, in one piece


def _judge(found: Findings, out: Console) -> int:
    """Says which case failed and how: a rate of refusals is no rate."""
    faults = [(what, sample) for what, sample in _samples(found) if sample.errors or not sample.requests]
    for what, sample in faults:
        out.print(f"[red]{what}: {sample.errors:,} errors: {'; '.join(sample.faults)}[/red]")
    return 1 if faults else 0


def _samples(found: Findings) -> Iterator[tuple[str, Sample]]:
    for result in found.results.values():
        for sample in result.samples:
            yield result.title, sample
    if found.latency is not None:
        for sample in (*found.latency.echo, *found.latency.deduct):
            yield "latency", sample
    if found.worker is not None:
        yield "worker", found.worker.slow
