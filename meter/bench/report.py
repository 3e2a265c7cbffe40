"""What a run says: tables in the terminal, and the members of its JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from meter.bench.cases import REDIS, SERVER, WORKER
from meter.bench.findings import Findings
from meter.bench.goals import Goal
from meter.bench.latency import RATE as LATENCY_RATE
from meter.bench.machine import QUIET_LOAD
from meter.bench.samples import PERCENTILES, CaseResult, Ratio, Sample, Spread, cpu_ratio, rate_ratio
from meter.bench.worker_cost import RATE as SLOW_RATE

BASELINE = "echo"
PARTIES = (SERVER, REDIS, WORKER)
PLAIN_WIDTH = 170
"""Of what does not go to a terminal: a table that breaks its lines is no table."""


def console(*, stderr: bool = False) -> Console:
    """Where tables go."""
    out = Console(stderr=stderr)
    return out if out.is_terminal else Console(stderr=stderr, width=PLAIN_WIDTH)


def print_results(out: Console, results: Mapping[str, CaseResult]) -> None:
    """One line per case."""
    table = Table(title="CPU µs and requests a second: best round (median)", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("case", no_wrap=True)
    for name in (*PARTIES, "together", "of echo", "req/s", "of echo", "p50, p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    echo = results.get(BASELINE)
    for result in results.values():
        cpu, rate = ("", "") if echo is None else _of_echo(result, echo)
        table.add_row(
            result.title,
            *(_pair(result.share_us(party)) if party in result.parties else "" for party in PARTIES),
            _pair(result.cpu_us),
            cpu,
            f"{_number(result.rate.most)} ({_number(result.rate.median)})",
            rate,
            f"{result.latency_ms[0]:.2f}, {result.latency_ms[-1]:.2f}",
        )
    out.print(table)


def print_parts(out: Console, found: Findings) -> None:
    """The parts, in plain lines."""
    if (latency := found.latency) is not None:
        shown = [
            f"p{percent:g} {latency.ms('echo', percent).best:.2f} -> {latency.ms('deduct', percent).best:.2f} ms "
            f"(median added {latency.added_ms(percent).median:.2f})"
            for percent in (50.0, 99.0)
        ]
        out.print(f"latency at {LATENCY_RATE:,}/s, echo -> deduct: {', '.join(shown)}")
    if (script := found.script) is not None:
        one, call, each = (_pair(spread) for spread in (script.single_us, script.call_us, script.operation_us))
        out.print(
            f"script: a call of one deduct {one} µs, a call {call} µs and each of 100 deducts {each} µs; "
            f"outbox {script.outbox_bytes:.0f} bytes a deduct"
        )
    if (worker := found.worker) is not None:
        slow = worker.slow
        spent = ", ".join(f"{party} {us:.0f}" for party, us in slow.cpu_us.items())
        out.print(
            f"at {SLOW_RATE} deducts a second, CPU µs each: {spent}; append-only bytes "
            f"{slow.append_only_bytes or 0:.0f}"
        )
        out.print(
            f"idle: worker {worker.worker_percent:.2f} % of a core, Redis {worker.redis_percent:.2f} %, append-only "
            f"{worker.append_only_bytes_an_hour:,.0f} bytes an hour ({worker.append_only_mb_a_day:.2f} MB a day)"
        )
    for cost in found.costs:
        out.print(f"{cost.what}: {cost.few:,} {cost.few_us:.2f} µs, {cost.many:,} {cost.many_us:.2f} µs per deduct")
    for weight in found.weights:
        out.print(f"{weight.what}: {weight.bytes_each:.0f} bytes")


def print_goals(out: Console, goals: Sequence[Goal]) -> None:
    """One line per goal."""
    if not goals:
        return
    table = Table(title="Goals", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    for name in ("measured", "median", "goal"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        met = "[green]met[/green]" if goal.met else "[red]not met[/red]"
        median = "" if goal.median is None else f"{goal.median:,.2f}"
        table.add_row(goal.what, f"{goal.measured:,.2f}", median, f"{sign} {goal.goal:g}", met)
    out.print(table)


def print_machine(out: Console, found: Mapping[str, Any], redis: str, how: str) -> None:
    """What it ran on and how, and a warning when that was not at rest."""
    out.print(
        f"{found['commit'] or 'no checkout'} on {found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, "
        f"Python {found['python']}, {redis} with an append-only file (everysec); {how}, everything on loopback"
    )
    if found["load_average"] > QUIET_LOAD:
        out.print(f"[yellow]The load average is {found['load_average']}: the machine is busy, expect noise.[/yellow]")


def result_members(result: CaseResult) -> dict[str, Any]:
    """A case in the JSON file."""
    return {
        "title": result.title,
        "operations_per_request": result.operations,
        "requests_per_second": asdict(result.rate),
        "cpu_us_per_operation": {
            **{party: asdict(result.share_us(party)) for party in result.parties},
            "together": asdict(result.cpu_us),
        },
        "append_only_bytes_per_operation": asdict(result.append_only_bytes),
        "latency_ms": {f"p{percent:g}": value for percent, value in zip(PERCENTILES, result.latency_ms, strict=True)},
        "errors": result.errors,
        "rounds": [sample_members(sample) for sample in result.samples],
    }


def part_members(found: Findings) -> dict[str, Any]:
    """The parts in the JSON file; null for what was not measured."""
    latency, script, worker = found.latency, found.script, found.worker
    return {
        "latency": None
        if latency is None
        else {
            "rate": LATENCY_RATE,
            "added_ms": {f"p{percent:g}": asdict(latency.added_ms(percent)) for percent in PERCENTILES},
            "echo": [sample_members(sample) for sample in latency.echo],
            "deduct": [sample_members(sample) for sample in latency.deduct],
        },
        "script": None
        if script is None
        else {
            "single_us": asdict(script.single_us),
            "call_us": asdict(script.call_us),
            "operation_us": asdict(script.operation_us),
            "outbox_bytes": script.outbox_bytes,
        },
        "worker": None if worker is None else {**asdict(worker), "slow": sample_members(worker.slow)},
        "flat_costs": [asdict(cost) for cost in found.costs],
        "weights": {weight.what: weight.bytes_each for weight in found.weights},
    }


def sample_members(sample: Sample) -> dict[str, Any]:
    """A round in the JSON file."""
    return {**asdict(sample), "requests_per_second": sample.rate}


def goal_members(goal: Goal) -> dict[str, Any]:
    """A goal in the JSON file."""
    return {**asdict(goal), "met": goal.met}


def _of_echo(result: CaseResult, echo: CaseResult) -> tuple[str, str]:
    cpu, rate = cpu_ratio(result, echo), rate_ratio(result, echo)
    return _ratio(cpu), _ratio(rate)


def _ratio(found: Ratio | None) -> str:
    return "" if found is None else f"{found.best:.2f} ({found.median:.2f})"


def _pair(found: Spread) -> str:
    """The least and the median."""
    return f"{_number(found.least)} ({_number(found.median)})" if found.most else ""


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
