"""What a user sees: the tables, one JSON object, one line for what went wrong, and the exit code."""

from __future__ import annotations

import asyncio
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from meter.replay import ReplayOptions, ReplayReport, print_report, run_replay, run_verify
from meter.replay.progress import Progress
from meter.replay.record import Difference, Done, Record, Run, Sent, Verb
from meter.replay.report import Latency, Timing, latency_of
from tests.replay.conftest import text_of
from tests.replay.sidecar import Sidecar

RUN = Run("abc", "http://127.0.0.1:1", "t[/x].csv", "2026-01-01T00:00:00.000+00:00")


@pytest.fixture
def err() -> Console:
    return Console(file=io.StringIO(), width=120)


@pytest.mark.anyio
async def test_a_run_prints_tables_and_a_verify_too(
    sidecar: Sidecar, trace: Path, console: Console, err: Console
) -> None:
    journal = trace.with_suffix(".journal")
    options = ReplayOptions(trace, sidecar.url, release_share=0.5, journal=journal)

    assert await asyncio.to_thread(run_replay, options, console, err) == 0
    assert "60 of 60 rows" in text_of(console)
    assert "latency, ms" in text_of(console)
    assert "conserved: " in text_of(console)
    assert text_of(err) == ""

    assert await asyncio.to_thread(run_verify, journal, console, err) == 0


@pytest.mark.anyio
async def test_a_run_prints_one_json_object(sidecar: Sidecar, trace: Path, console: Console, err: Console) -> None:
    options = ReplayOptions(trace, sidecar.url, credit=Decimal("1500.25"), estimate=0)

    assert await asyncio.to_thread(lambda: run_replay(options, console, err, as_json=True)) == 0

    found = json.loads(text_of(console))
    assert found["requests"] == 60
    assert found["credits"]["granted"] == found["users_checked"] * 1500.25
    assert found["conserved"] is True
    assert found["differences"] == []
    assert found["timing"]["latencies"][0]["name"] == "reserve"
    assert found["requests_per_second"] > 0


def test_bad_files_and_options_exit_2_with_one_line(tmp_path: Path, console: Console, err: Console) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()

    assert run_replay(ReplayOptions(empty), console, err) == 2
    assert text_of(err) == f"{empty}: is empty; a header with TIMESTAMP, ContextTokens, GeneratedTokens was expected\n"
    assert run_verify(tmp_path / "none", console, err) == 2
    assert text_of(console) == ""


def test_no_sidecar_exits_3(trace: Path, console: Console, err: Console) -> None:
    options = ReplayOptions(trace, "http://127.0.0.1:9", patience_seconds=0.1)

    assert run_replay(options, console, err) == 3
    assert text_of(err).startswith("http://127.0.0.1:9: no answer to GET /readyz within 0.1 s")
    assert text_of(err).count("\n") == 1


def report_of(record: Record, *, checked: bool = True, differences: int = 0, stopped: str = "") -> ReplayReport:
    found = tuple(Difference(f"u{n % 7}", "balance[/]", "1", "2") for n in range(differences))
    timing = Timing(2.0, 10, 3, 0.0125, (Latency("pair", 5, 0.001, 0.002, 0.003, 1.5),))
    return ReplayReport(RUN, record, found, checked, 12, timing, stopped=stopped)


def test_differences_are_listed_ten_at_most(console: Console) -> None:
    report = report_of(Record(), differences=15)

    print_report(report, console)

    assert report.exit_code == 1
    assert text_of(console).count("balance[/]") == 10
    assert "what (10 of 15)" in text_of(console)
    assert "not conserved: 7 of 0 users differ from the record" in text_of(console)
    assert len(json.loads(report.as_json())["differences"]) == 10


def test_what_is_unusual_has_a_line_of_its_own(console: Console) -> None:
    record = Record()
    for event in (
        Sent(Verb.GRANT, "u", "u", Decimal("1234567.25")),
        Done(Verb.GRANT, "u", 200),
        Sent(Verb.RESERVE, "r", "u", Decimal(5)),
        Done(Verb.RESERVE, "r", 403, code="[/SUSPENDED]"),
    ):
        record.apply(event)
    record.uncovered_credits, record.held_credits, record.unknown_applied = Decimal(3), Decimal(4), 2
    report = report_of(record)

    print_report(report, console)

    text = text_of(console)
    assert report.exit_code == 1
    for line in (
        "replay abc of t[/x].csv at http://127.0.0.1:1",
        "unexpected answer: reserve of r: 403 [/SUSPENDED]",
        "12.5 ms at most",
        "2, of which 2 were applied",
        "balances agree, but 1 calls were answered with what no row expects",
        "1,500.0",
    ):
        assert line in text


def test_a_run_that_stopped_says_why(console: Console) -> None:
    report = report_of(Record(), checked=False, stopped="it went [away]")

    print_report(report, console)

    assert report.exit_code == 3
    assert "stopped: it went [away]" in text_of(console)
    assert "not checked" in text_of(console)


def test_percentiles_are_by_nearest_rank() -> None:
    assert latency_of("x", [n / 100 for n in range(100, 0, -1)]) == Latency("x", 100, 0.5, 0.95, 0.99, 1.0)
    assert latency_of("x", [7.0]) == Latency("x", 1, 7.0, 7.0, 7.0, 7.0)


@pytest.mark.anyio
@pytest.mark.parametrize("terminal", [False, True])
async def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.replay.progress.LINE_EVERY_SECONDS", 0.01)
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    with Progress(console, "replaying", 2000) as progress:
        for _ in range(1500):
            progress.advance()
        while "1,500" not in text_of(console) and "1500/2000" not in text_of(console):
            await asyncio.sleep(0.01)

    assert ("replaying: 1,500 of 2,000, " in text_of(console)) is not terminal
