"""P14: what is told of credits that end soon follows from the grant and the clock, not from when the job ran."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meter import MeterClient
from meter.alerts import reminders
from meter.clock import DAY_MS, milliseconds
from meter.store.rows import GrantRow
from tests.alerts.conftest import START
from tests.alerts.post import Post, post
from tests.plans.town import days, done


def grant(expires_day: float, begins_day: float = 0) -> GrantRow:
    """A grant whose days count from 1970."""
    return GrantRow(
        user_id="u",
        grant_id="g",
        partition=0,
        amount=1,
        remaining=1,
        effective_at_ms=round(begins_day * DAY_MS),
        expires_at_ms=round(expires_day * DAY_MS),
        created_at_ms=0,
    )


def told(row: GrantRow, now_day: float) -> list[tuple[int, float]]:
    """(days, the day it is told as of) of every alert that is due."""
    found = reminders.alerts_of_end(row, (1, 7, 30), round(now_day * DAY_MS))
    return [(int(str(alert.alert_id).rsplit(".", 1)[1]), alert.created_at_ms / DAY_MS) for alert in found]


@pytest.mark.parametrize(
    ("row", "now_day", "alerts"),
    [
        (grant(20), 0, [(30, 0.0)]),  # it began with less than thirty days
        (grant(20), 12.9, [(30, 0.0)]),
        (grant(20), 13, [(7, 13.0), (30, 0.0)]),
        (grant(20), 19.1, [(1, 19.0), (7, 13.0), (30, 0.0)]),
        (grant(100), 99.5, [(1, 99.0), (7, 93.0), (30, 70.0)]),
        (grant(5), 0, [(7, 0.0)]),
        (grant(5), 4, [(1, 4.0), (7, 0.0)]),
        (grant(1), 0, [(1, 0.0)]),
        (grant(0.5), 0.2, [(1, 0.0)]),
        (grant(30), 0, [(30, 0.0)]),
        (grant(40, begins_day=35), 35, [(7, 35.0)]),
    ],
)
def test_which_numbers_of_days_have_come(row: GrantRow, now_day: float, alerts: list[tuple[int, float]]) -> None:
    assert told(row, now_day) == alerts


@pytest.mark.parametrize("steps", [(13.5, 19.1), (19.1,), (7, 13.5, 13.6, 19.1, 19.9)], ids=str)
async def test_a_grant_of_twenty_days_is_told_for_seven_and_for_one(office: Post, steps: tuple[float, ...]) -> None:
    """P14: however the clock got there."""
    done(await office.town.meter.add("u", 10, expires_at=START + days(20)))
    added = 0
    for at in steps:
        await office.town.set_time(START + days(at))
        added += await office.remind()
    assert (added, await office.remind()) == (2, 0)
    rows = sorted(await office.alerts(), key=lambda row: row.created_at_ms)
    assert [row.kind for row in rows] == ["expiring_credits"] * 2
    assert [row.payload["days"] for row in rows if isinstance(row.payload, dict)] == [7, 1]
    assert [row.created_at_ms for row in rows] == [milliseconds(START + days(at)) for at in (13, 19)]


async def test_of_credits_that_have_ended_only_their_end_is_told(office: Post) -> None:
    done(await office.town.meter.add("u", 10, expires_at=START + days(20)))
    await office.town.set_time(START + days(25))
    await office.town.sweep()
    assert await office.remind() == 0
    assert {row.kind for row in await office.alerts()} == {"credits_expired", "credits_exhausted"}


@pytest.fixture(params=["in process", "over HTTP", "by the route"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the job is called by hand."""
    return request.param  # type: ignore[no-any-return]


async def test_the_job_by_hand(office: Post, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P14: a page at a time, each says how many alerts are new and whether there is more."""
    monkeypatch.setattr(reminders, "GRANTS_PER_PAGE", 2)
    for n in range(5):
        done(await office.town.meter.add(f"u{n}", 10, expires_at=START + days(20 + n / 100)))
    await office.town.set_time(START + days(13.5))
    await office.town.flush()
    answers: list[tuple[int, bool]] = []
    for _ in range(4):
        if way == "by the route":
            body = office.call("POST", "/jobs/remind")
            answers.append((body["reminded"], body["more"]))
        else:
            meter = office.town.meter
            page = done(await meter.remind())
            answers.append((page.reminded, page.more))
    assert answers == [(2, True), (2, True), (1, False), (0, True)]


async def test_the_jobs_by_hand_over_http() -> None:
    """P14: the whole set, each with its count."""
    async with post(START, http=True) as office:
        meter = office.town.meter
        done(await meter.add("u", 10, expires_at=START + days(5)))
        await office.town.flush()
        assert (done(await meter.remind()).reminded, done(await meter.deliver()).attempted) == (1, 0)
        assert done(await meter.apply_pending()).applied == 0
        assert (done(await meter.rotate()).rotated, done(await meter.rotate()).rotated) == (1, 0)  # since real time
        assert done(await meter.allocate()).allocated == 0
        await office.town.set_time(START + days(6))
        expired = done(await meter.expire())
        assert (expired.transactions, expired.more) == (1, False)
        assert [row.kind for row in await office.alerts()] == ["expiring_credits"]
        assert isinstance(meter, MeterClient)
