"""What a run says: tables in the terminal, and the members of its JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from meter.bench.goals import Goal
from meter.bench.machine import QUIET_LOAD
from meter.bench.probes import FlatCost, Weight
from meter.bench.samples import PERCENTILES, CaseResult, Sample

BASELINE = "echo"


def print_results(out: Console, results: Mapping[str, CaseResult]) -> None:
    """One line per case."""
    table = Table(title="Requests a second, median of the rounds", title_justify="left")
    table.add_column("case")
    for name in (
        "req/s",
        "min to max",
        "op/s",
        "of echo",
        *(f"p{percent:g} ms" for percent in PERCENTILES),
        "Redis µs/op",
        "errors",
    ):
        table.add_column(name, justify="right")
    baseline = results[BASELINE].rate.median if BASELINE in results else 0.0
    for result in results.values():
        rate = result.rate
        table.add_row(
            result.title,
            f"{rate.median:,.0f}",
            f"{rate.least:,.0f} to {rate.most:,.0f}",
            f"{rate.median * result.operations:,.0f}",
            f"{rate.median / baseline:.2f}" if baseline else "",
            *(f"{milliseconds:.2f}" for milliseconds in result.latency_ms),
            "" if result.redis_us is None else f"{result.redis_us:.1f}",
            f"[red]{result.errors:,}[/red]" if result.errors else "0",
        )
    out.print(table)


def print_goals(out: Console, goals: Sequence[Goal]) -> None:
    """One line per goal."""
    if not goals:
        return
    table = Table(title="Goals", title_justify="left")
    table.add_column("what")
    for name in ("measured", "goal"):
        table.add_column(name, justify="right")
    table.add_column("")
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        met = "[green]met[/green]" if goal.met else "[red]not met[/red]"
        table.add_row(goal.what, f"{goal.measured:,.2f}", f"{sign} {goal.goal:g}", met)
    out.print(table)


def print_costs(out: Console, costs: Sequence[FlatCost], weights: Sequence[Weight]) -> None:
    """The probes, in plain lines."""
    for cost in costs:
        out.print(f"{cost.what}: {cost.few:,} {cost.few_us:.2f} µs, {cost.many:,} {cost.many_us:.2f} µs per deduct")
    for weight in weights:
        out.print(f"{weight.what}: {weight.bytes_each:.0f} bytes")


def print_machine(out: Console, found: Mapping[str, Any], redis: str, how: str) -> None:
    """What it ran on and how, and a warning when that was not at rest."""
    out.print(
        f"{found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, Python {found['python']}, {redis} "
        f"with an append-only file (everysec); {how}, everything on loopback"
    )
    if found["load_average"] > QUIET_LOAD:
        out.print(f"[yellow]The load average is {found['load_average']}: the machine is busy, expect noise.[/yellow]")


def result_members(result: CaseResult) -> dict[str, Any]:
    """A case in the JSON file."""
    return {
        "title": result.title,
        "operations_per_request": result.operations,
        "requests_per_second": asdict(result.rate),
        "latency_ms": {f"p{percent:g}": value for percent, value in zip(PERCENTILES, result.latency_ms, strict=True)},
        "redis_us_per_operation": result.redis_us,
        "errors": result.errors,
        "rounds": [sample_members(sample) for sample in result.samples],
    }


def sample_members(sample: Sample) -> dict[str, Any]:
    """A round in the JSON file."""
    return {**asdict(sample), "requests_per_second": sample.rate}


def goal_members(goal: Goal) -> dict[str, Any]:
    """A goal in the JSON file."""
    return {**asdict(goal), "met": goal.met}
