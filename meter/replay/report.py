"""What a replay found, as a table for people or as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from meter.replay.record import Difference, Record, Run

DIFFERENCES_SHOWN = 10
EXIT_OK, EXIT_DIFFERENT, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds per call, tries and pauses included; `pair` is a reserve and what ended it."""

    name: str
    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a run was. `lag_max_seconds`: how late the latest row started, of a run with a set speed."""

    elapsed_seconds: float
    calls: int
    retries: int
    lag_max_seconds: float | None
    latencies: tuple[Latency, ...]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay or a verification (without `timing`) found. `stopped` says why a run ended early by itself."""

    run: Run
    record: Record
    differences: tuple[Difference, ...]
    checked: bool
    rows: int
    timing: Timing | None = None
    interrupted: bool = False
    stopped: str = ""

    @property
    def conserved(self) -> bool:
        """Whether every user was checked, nothing differs and nothing was answered that no row expects."""
        return self.checked and not self.differences and not self.record.failed

    @property
    def users_different(self) -> int:
        """How many users have a difference."""
        return len({difference.user_id for difference in self.differences})

    @property
    def exit_code(self) -> int:
        """0 conserved, 1 not, 3 not checked, 130 conserved but interrupted."""
        if not self.checked:
            return EXIT_UNREACHABLE
        if not self.conserved:
            return EXIT_DIFFERENT
        return EXIT_INTERRUPTED if self.interrupted else EXIT_OK

    def as_json(self) -> str:
        """One JSON object; amounts are numbers, times are seconds."""
        record, timing = self.record, self.timing
        members = {
            "run_id": self.run.run_id,
            "url": self.run.url,
            "trace": self.run.trace,
            "started_at": self.run.started_at,
            "rows": self.rows,
            "requests": record.requests,
            "granted": record.granted,
            "refused": record.refused,
            "committed": record.committed,
            "released": record.released,
            "failed": record.failed,
            "failures": record.failures,
            "credits": {
                "granted": record.granted_credits,
                "charged": record.charged_credits,
                "released": record.released_credits,
                "uncovered": record.uncovered_credits,
                "held": record.held_credits,
            },
            "unknown": {"applied": record.unknown_applied, "not_applied": record.unknown_not_applied},
            "users_checked": self.users_checked,
            "users_different": self.users_different,
            "differences": self.differences[:DIFFERENCES_SHOWN],
            "timing": timing,
            "conserved": self.conserved,
            "interrupted": self.interrupted,
            "stopped": self.stopped,
            "exit_code": self.exit_code,
        }
        if timing is not None and timing.elapsed_seconds > 0:
            members["requests_per_second"] = record.requests / timing.elapsed_seconds
            members["calls_per_second"] = timing.calls / timing.elapsed_seconds
        return orjson.dumps(members, default=_number, option=orjson.OPT_INDENT_2).decode()

    @property
    def users_checked(self) -> int:
        """How many users were compared."""
        return len(self.record.accounts) if self.checked else 0


def latency_of(name: str, seconds: Sequence[float]) -> Latency:
    """Percentiles by nearest rank."""
    ordered = sorted(seconds)

    def at(percent: int) -> float:
        return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]

    return Latency(name, len(ordered), at(50), at(95), at(99), ordered[-1])


def print_report(report: ReplayReport, console: Console) -> None:
    """Prints a report as tables, and one line with the verdict."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    line(f"replay {report.run.run_id} of {report.run.trace} at {report.run.url}", "bold")
    console.print(_summary(report))
    if report.timing is not None and report.timing.latencies:
        console.print(_latencies(report.timing.latencies))
    for failure in report.record.failures:
        line(f"unexpected answer: {failure}", "red")
    if report.differences:
        console.print(_differences(report.differences))
    line(_verdict(report), "green" if report.exit_code == EXIT_OK else "bold red")


def _summary(report: ReplayReport) -> Table:
    record, timing = report.record, report.timing
    unknown = record.unknown_applied + record.unknown_not_applied
    lines = [
        ("requests", f"{record.requests:,}" if timing is None else f"{record.requests:,} of {report.rows:,} rows"),
        ("granted", f"{record.granted:,}"),
        ("refused", f"{record.refused:,}"),
        ("charged", f"{_credits(record.charged_credits)} credits in {record.committed:,} commits"),
        ("released", f"{_credits(record.released_credits)} credits in {record.released:,} releases"),
    ]
    if record.uncovered_credits:
        lines.append(("uncovered", f"{_credits(record.uncovered_credits)} credits"))
    if record.held_credits:
        lines.append(("still held", f"{_credits(record.held_credits)} credits"))
    if unknown:
        lines.append(("unknown calls", f"{unknown:,}, of which {record.unknown_applied:,} were applied"))
    if record.failed:
        lines.append(("unexpected answers", f"{record.failed:,}"))
    if timing is not None:
        seconds = timing.elapsed_seconds or 1e-9
        lines.append(("time", f"{timing.elapsed_seconds:,.2f} s"))
        lines.append(("rate", f"{record.requests / seconds:,.0f} requests/s, {timing.calls / seconds:,.0f} calls/s"))
        lines.append(("retries", f"{timing.retries:,}"))
        if timing.lag_max_seconds is not None:
            lines.append(("behind schedule", f"{timing.lag_max_seconds * 1000:,.1f} ms at most"))
    lines.append(("users checked", f"{report.users_checked:,}"))
    lines.append(("users different", f"{report.users_different:,}" if report.checked else "not checked"))
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in lines:
        table.add_row(name, value)
    return table


def _latencies(latencies: Sequence[Latency]) -> Table:
    table = Table()
    for column in ("latency, ms", "count", "p50", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "latency, ms" else "right")
    for one in latencies:
        times = (f"{seconds * 1000:,.1f}" for seconds in (one.p50, one.p95, one.p99, one.max))
        table.add_row(one.name, f"{one.count:,}", *times)
    return table


def _differences(differences: Sequence[Difference]) -> Table:
    shown = differences[:DIFFERENCES_SHOWN]
    table = Table("user", f"what ({len(shown)} of {len(differences):,})", "expected", "actual")
    for one in shown:
        table.add_row(*map(escape, (one.user_id, one.what, one.expected, one.actual)))
    return table


def _verdict(report: ReplayReport) -> str:
    text = f"conserved: {report.users_checked:,} users hold exactly what the replay's own record says"
    if report.stopped:
        text = f"stopped: {report.stopped}"
    elif report.differences:
        text = f"not conserved: {report.users_different:,} of {report.users_checked:,} users differ from the record"
    elif report.record.failed:
        text = f"balances agree, but {report.record.failed:,} calls were answered with what no row expects"
    return f"interrupted; {text}" if report.interrupted else text


def _credits(amount: Decimal) -> str:
    return f"{amount:,f}"


def _number(value: object) -> int | float:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(type(value).__name__)
