"""Whole replays against a real sidecar: what is conserved, what is not, and what an outage does."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from meter.replay import OptionError, ReplayOptions, ReplayReport, read_trace, replay, verify
from meter.replay.client import SidecarUnreachable, UnexpectedAnswer
from meter.replay.record import Record
from tests.replay.sidecar import Sidecar

pytestmark = pytest.mark.anyio


def options_for(sidecar: Sidecar, trace: Path, **more: object) -> ReplayOptions:
    defaults = {"users": 7, "concurrency": 8, "patience_seconds": 20.0}
    return ReplayOptions(trace, sidecar.url, **(defaults | more))  # type: ignore[arg-type]


def counts(report: ReplayReport) -> tuple[int, int, int, int, int, int]:
    record = report.record
    return (record.requests, record.granted, record.refused, record.committed, record.released, record.failed)


async def test_a_trace_is_conserved(sidecar: Sidecar, trace: Path, console: Console) -> None:
    report = await replay(options_for(sidecar, trace), console)

    assert counts(report) == (60, 60, 0, 60, 0, 0)
    assert report.exit_code == 0
    assert report.conserved
    assert report.users_checked == 7
    assert report.record.charged_credits == sum(row.total_tokens for row in read_trace(trace))
    assert report.timing is not None
    assert report.timing.calls == 120
    assert [(one.name, one.count) for one in report.timing.latencies] == [("reserve", 60), ("commit", 60), ("pair", 60)]


@pytest.mark.parametrize("estimate", [0, 256, None])
async def test_nothing_is_refused_by_default(
    sidecar: Sidecar, trace: Path, console: Console, estimate: int | None
) -> None:
    report = await replay(options_for(sidecar, trace, estimate=estimate, users=1), console)

    assert counts(report) == (60, 60, 0, 60, 0, 0)
    assert report.record.uncovered_credits == 0
    assert report.conserved


async def test_too_little_credit_is_refused_or_left_uncovered(sidecar: Sidecar, trace: Path, console: Console) -> None:
    report = await replay(options_for(sidecar, trace, credit=Decimal("2000.5"), estimate=0), console)

    assert report.conserved
    assert report.record.refused > 0
    assert report.record.uncovered_credits > 0
    assert report.record.granted + report.record.refused == 60
    assert report.record.charged_credits <= Decimal("2000.5") * 7


async def test_a_share_of_the_rows_is_released(sidecar: Sidecar, trace: Path, console: Console) -> None:
    report = await replay(options_for(sidecar, trace, release_share=0.4), console)

    assert report.conserved
    assert 12 <= report.record.released <= 36
    assert report.record.committed + report.record.released == 60
    again = await replay(options_for(sidecar, trace, release_share=0.4), console)
    assert again.record.released_credits == report.record.released_credits
    other = await replay(options_for(sidecar, trace, release_share=0.4, seed=1), console)
    assert other.record.released_credits != report.record.released_credits


async def test_a_deduct_behind_its_back_is_found(sidecar: Sidecar, trace: Path, console: Console) -> None:
    async def deduct_once(method: str, path: str) -> None:
        if path.endswith("/commit"):
            sidecar.hook = None
            await sidecar.deduct("mine-3", 1)

    sidecar.hook = deduct_once
    report = await replay(options_for(sidecar, trace, prefix="mine"), console)

    assert report.exit_code == 1
    assert report.users_different == 1
    assert [(one.user_id, one.what) for one in report.differences] == [("mine-3", "balance"), ("mine-3", "available")]
    assert Decimal(report.differences[0].expected) - Decimal(report.differences[0].actual) == 1


async def test_an_answer_that_no_row_expects_fails_the_run(sidecar: Sidecar, trace: Path, console: Console) -> None:
    async def refuse_once(method: str, path: str) -> int | None:
        if not path.endswith("/commit"):
            return None
        sidecar.hook = None
        return 418

    sidecar.hook = refuse_once
    report = await replay(options_for(sidecar, trace), console)

    assert report.exit_code == 1
    assert not report.differences
    assert report.record.failed == 1
    assert report.record.held_credits > 0
    assert report.record.failures[0].endswith(": 418")


@pytest.mark.parametrize("verb", ["/reservations", "/commit", "/release", "/add"])
async def test_a_lost_answer_is_asked_for_again(sidecar: Sidecar, trace: Path, console: Console, verb: str) -> None:
    sidecar.lose_answers_of = verb
    report = await replay(options_for(sidecar, trace, release_share=0.5), console)

    assert report.conserved
    assert report.timing is not None
    assert sidecar.answers_lost == 1
    assert verb == "/add" or report.timing.retries >= 1


async def test_a_reserve_granted_unheard_and_then_refused_is_found(
    sidecar: Sidecar, trace: Path, console: Console
) -> None:
    """The first try is granted and its answer lost; the second is answered by someone else."""

    async def refuse_second(method: str, path: str) -> int | None:
        if path == "/credits/reservations" and sidecar.lose_answers_of is None:
            sidecar.hook = None
            return 402
        return None

    sidecar.lose_answers_of, sidecar.hook = "/reservations", refuse_second
    report = await replay(options_for(sidecar, trace, concurrency=1), console)

    assert report.conserved
    assert report.record.refused == 1
    assert report.record.held_credits == read_trace(trace)[0].context_tokens + 256
    assert (report.record.unknown_applied, report.record.unknown_not_applied) == (1, 0)


async def test_an_outage_in_the_middle_is_survived(sidecar: Sidecar, trace: Path, console: Console) -> None:
    async def fail_at_30(method: str, path: str) -> None:
        if sum(call.endswith("/commit") for _, call in sidecar.calls) == 30:
            sidecar.hook = None
            tasks.append(asyncio.create_task(outage()))

    async def outage() -> None:
        await sidecar.stop()
        await asyncio.sleep(0.2)
        await sidecar.start()

    tasks: list[asyncio.Task[None]] = []
    sidecar.hook = fail_at_30
    report = await replay(options_for(sidecar, trace, journal=trace.with_suffix(".journal")), console)
    await tasks[0]

    assert counts(report) == (60, 60, 0, 60, 0, 0)
    assert report.conserved
    assert report.timing is not None
    assert report.timing.retries > 0
    again = await verify(trace.with_suffix(".journal"), console)
    assert again.exit_code == 0
    assert _sums(again.record) == _sums(report.record)


async def test_a_sidecar_that_stays_away_stops_the_run_and_the_journal_is_verified_later(
    sidecar: Sidecar, trace: Path, console: Console
) -> None:
    async def leave_at_20(method: str, path: str) -> None:
        if sum(call.endswith("/commit") for _, call in sidecar.calls) == 20:
            sidecar.hook = None
            tasks.append(asyncio.create_task(sidecar.stop()))

    tasks: list[asyncio.Task[None]] = []
    sidecar.hook = leave_at_20
    journal = trace.with_suffix(".journal")
    report = await replay(options_for(sidecar, trace, journal=journal, patience_seconds=0.6), console)
    await tasks[0]

    assert report.exit_code == 3
    assert not report.conserved
    assert "within 0.6 s; last: " in report.stopped
    assert report.record.requests < 60
    with pytest.raises(SidecarUnreachable):
        await verify(journal, console, patience_seconds=0.1)
    await sidecar.start()
    later = await verify(journal, console)
    assert later.exit_code == 0
    assert 1 <= later.record.unknown_applied + later.record.unknown_not_applied <= 8
    before = len(sidecar.calls)
    await sidecar.deduct(next(iter(later.record.accounts)), 1)
    assert (await verify(journal, console, url=sidecar.url)).exit_code == 1
    assert {method for method, _ in sidecar.calls[before + 1 :]} == {"GET"}


async def test_a_replay_that_is_cancelled_can_be_verified(sidecar: Sidecar, trace: Path, console: Console) -> None:
    async def cancel_at_20(method: str, path: str) -> None:
        if sum(call.endswith("/commit") for _, call in sidecar.calls) == 20:
            sidecar.hook = None
            run.cancel()

    sidecar.hook = cancel_at_20
    journal = trace.with_suffix(".journal")
    run = asyncio.create_task(replay(options_for(sidecar, trace, journal=journal), console))
    with pytest.raises(asyncio.CancelledError):
        await run

    report = await verify(journal, console)
    assert report.exit_code == 0
    assert 20 <= report.record.requests < 60
    assert report.record.unknown_applied + report.record.unknown_not_applied >= 1


async def test_a_stop_lets_the_rows_in_flight_finish(sidecar: Sidecar, trace: Path, console: Console) -> None:
    stop = asyncio.Event()

    async def stop_at_20(method: str, path: str) -> None:
        if sum(call.endswith("/commit") for _, call in sidecar.calls) == 20:
            stop.set()

    sidecar.hook = stop_at_20
    report = await replay(options_for(sidecar, trace), console, stop)

    assert report.interrupted
    assert report.exit_code == 130
    assert report.conserved
    assert report.record.requests == report.record.committed < 60


async def test_the_set_speed_is_kept(sidecar: Sidecar, trace: Path, console: Console) -> None:
    report = await replay(options_for(sidecar, trace, speed=2), console)

    assert report.conserved
    assert report.timing is not None
    assert report.timing.lag_max_seconds is not None
    assert 0.48 <= report.timing.elapsed_seconds < 5


async def test_a_stop_ends_the_wait_for_the_next_row(sidecar: Sidecar, trace: Path, console: Console) -> None:
    stop = asyncio.Event()
    run = asyncio.create_task(replay(options_for(sidecar, trace, speed=0.001), console, stop))
    while not any(path.endswith("/commit") for _, path in sidecar.calls):
        await asyncio.sleep(0.01)
    stop.set()

    report = await asyncio.wait_for(run, 10)
    assert report.conserved
    assert report.record.requests == 1


async def test_a_prefix_that_was_used_before_is_refused(sidecar: Sidecar, trace: Path, console: Console) -> None:
    await replay(options_for(sidecar, trace, prefix="mine"), console)

    with pytest.raises(OptionError, match=r"--prefix mine: mine-[0-9] has a balance already"):
        await replay(options_for(sidecar, trace, prefix="mine"), console)


async def test_a_grant_that_is_refused_is_a_wrong_option(sidecar: Sidecar, trace: Path, console: Console) -> None:
    with pytest.raises(OptionError, match=r"the grant of 0\.0000001 .* was refused: .*decimal places"):
        await replay(options_for(sidecar, trace, credit=Decimal("0.0000001")), console)


async def test_what_is_no_sidecar_is_said_before_anything_is_sent(
    sidecar: Sidecar, trace: Path, console: Console
) -> None:
    async def not_found(method: str, path: str) -> int:
        return 404

    sidecar.hook = not_found
    with pytest.raises(UnexpectedAnswer, match="is no sidecar: GET /readyz answers 404"):
        await replay(options_for(sidecar, trace), console)
    await sidecar.stop()
    with pytest.raises(
        SidecarUnreachable, match=r"no answer to GET /readyz within 0\.2 s; last: .*Connect call failed"
    ):
        await replay(options_for(sidecar, trace, patience_seconds=0.2), console)


async def test_answers_that_make_no_sense_stop_the_run(sidecar: Sidecar, trace: Path, console: Console) -> None:
    async def nonsense(method: str, path: str) -> int | None:
        return 200 if path.endswith("/commit") else None

    sidecar.hook = nonsense
    report = await replay(options_for(sidecar, trace), console)

    assert report.exit_code == 3
    assert report.stopped == "an answer 200 has no amount 'charged': {}"


def _sums(record: Record) -> tuple[Decimal, Decimal, int, int]:
    return (record.granted_credits, record.charged_credits, record.committed, record.released)
