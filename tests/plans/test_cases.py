"""What happened to plans of others: each case by its id, in process and over HTTP (docs/plans.md has the rules)."""

from __future__ import annotations

import asyncio
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from meter.contract import plans
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import GrantRow
from tests.plans.conftest import START
from tests.plans.town import Town, days, done, pointers, refusal, town

YEAR = datetime(2027, 1, 1, tzinfo=UTC)
END = START.replace(month=2, day=28)


@pytest.fixture(params=[False, True], ids=["in process", "over HTTP"])
async def new_year(request: pytest.FixtureRequest) -> Any:
    """A town on 1 January 2027."""
    async with town(YEAR, http=request.param) as found:
        yield found


def day(month: int, number: int = 1, year: int = 2027) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


async def row_of(found: Town, user_id: str = "u") -> plans.Subscription:
    return done(await found.meter.subscriptions(user_id)).items[0]


async def difference(found: Town, *plan_ids: str) -> None:
    for plan_id in plan_ids:
        done(await found.meter.upgrade("u", plan_id, proration="difference"))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("team", ["pro", "team"]),
        ("team", ["pro", "team"] * 3),
        ("pro", ["team", "pro", "team"]),
        ("pro", ["mid", "team", "pro", "mid", "team"]),
    ],
)
async def test_p1_changes_at_one_moment_give_what_the_dearest_gives(both: Town, first: str, then: list[str]) -> None:
    """P1, P1b"""
    for plan_id, limit in (("pro", 100), ("mid", 300), ("team", 500)):
        await both.plan(plan_id, limit)
    done(await both.meter.subscribe("u", first))
    await difference(both, *then)
    assert await both.available() == 500
    assert sum(amount for kind, amount in await both.kinds() if kind == "grant") == 500


async def test_p1_what_was_spent_counts_as_given(both: Town) -> None:
    """P1: spending all of it between the changes earns nothing anew."""
    await both.plan("pro")
    await both.plan("team", 500)
    done(await both.meter.subscribe("u", "team"))
    done(await both.meter.deduct("u", 500))
    await difference(both, "pro", "team", "pro", "team")
    assert await both.available() == 0


async def test_p1_changes_over_a_period_stay_below_the_dearest(both: Town) -> None:
    """P1: 100 for the first week; from then on the 500 for what is left of 28 days are given once."""
    await both.plan("pro")
    await both.plan("team", 500)
    done(await both.meter.subscribe("u", "pro"))
    for week, plan_id in ((1, "team"), (2, "pro"), (3, "team")):
        await both.set_time(START + days(7 * week))
        await difference(both, plan_id)
    assert await both.available() == 100 + 300


async def test_p2_a_difference_is_taken_from_what_was_given(both: Town) -> None:
    await both.plan("pro")
    await both.plan("team", 500)
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.update_plan("pro", "Pro", 400, 10, "monthly"))
    await difference(both, "team")
    assert await both.available() == 500


async def test_p2_a_period_that_was_missed_has_the_terms_of_its_beginning(new_year: Town) -> None:
    """P2, P4: the limit is changed after the period began and before anybody granted it."""
    await new_year.plan("pro")
    done(await new_year.meter.subscribe("u", "pro"))
    await new_year.set_time(day(2, 10))
    done(await new_year.meter.update_plan("pro", "Pro", 400, 10, "monthly"))
    await new_year.set_time(day(2, 11))
    assert await new_year.allocate() == 1
    assert await new_year.available() == 100
    await new_year.set_time(day(3))
    await new_year.allocate()
    assert await new_year.available() == 400


@pytest.mark.parametrize("jobs", ["each month", "late"])
async def test_p3_a_change_of_the_unit_makes_a_new_anchor(new_year: Town, jobs: str) -> None:
    await new_year.plan("pro")
    done(await new_year.meter.subscribe("u", "pro"))
    if jobs == "each month":
        for month in (2, 3, 4):
            await new_year.set_time(day(month))
            await new_year.allocate()
    await new_year.set_time(day(4, 10))
    done(await new_year.meter.update_plan("pro", "Pro", 1200, 100, "yearly"))
    await new_year.set_time(day(5) if jobs == "each month" else day(6, 20))
    await new_year.allocate()
    row = await row_of(new_year)
    assert (row.anchor_at, row.period, row.period_started_at) == (day(5), 0, day(5))
    assert row.next_period_at == day(5, year=2028)
    assert await new_year.available() == 1200
    await new_year.set_time(day(5, year=2028))
    await new_year.allocate()
    assert await new_year.available() == 1200


async def test_p3b_a_difference_between_units_compares_like_with_like(new_year: Town) -> None:
    """P3b: at the beginning of a period the whole of it counts."""
    await new_year.plan("pro")
    await new_year.plan("year", 1200, "yearly")
    done(await new_year.meter.subscribe("u", "pro"))
    await new_year.set_time(day(5))
    await difference(new_year, "year")
    row = await row_of(new_year)
    assert (row.plan_id, row.next_period_at) == ("year", day(5, year=2028))
    assert await new_year.available() == 1200
    await difference(new_year, "pro", "year", "pro", "year")
    assert await new_year.available() == 1200


async def test_p3b_what_a_year_gave_counts_in_its_months(new_year: Town) -> None:
    """P3b the other way: 1200 for a year are 100 a month or so, and the months get no more on top."""
    await new_year.plan("month", 101)
    await new_year.plan("year", 1200, "yearly")
    done(await new_year.meter.subscribe("u", "year"))
    await new_year.set_time(day(2))
    await difference(new_year, "month")
    for month in range(3, 13):
        await new_year.set_time(day(month))
        await new_year.allocate()
    granted = sum(amount for kind, amount in await new_year.kinds() if kind == "grant")
    lengths = [monthrange(2027, month)[1] for month in range(1, 13)]
    dearest = sum(max(Fraction(1200 * length, 365), Fraction(101)) for length in lengths)
    assert -Fraction(12, 10**6) <= Fraction(granted) - dearest <= 0
    await new_year.set_time(day(1, year=2028))
    await new_year.allocate()
    assert await new_year.available() == 101


@pytest.mark.parametrize("jobs", ["each month", "late", "each month, over HTTP"])
async def test_p4_missed_periods_are_given_with_their_own_times(new_year: Town, jobs: str) -> None:
    done(await new_year.meter.create_plan("P", 100, 1, "monthly", plan_id="p", validity_days=100))
    done(await new_year.meter.subscribe("u", "p"))
    if jobs != "late":
        for month in (2, 3, 4):
            await new_year.set_time(day(month))
            await (new_year.meter.allocate() if "HTTP" in jobs else new_year.allocate())
    await new_year.set_time(day(4, 6))
    await new_year.allocate()
    assert await new_year.available() == 400
    items = done(await new_year.meter.grants("u")).items
    starts = [day(month) for month in (1, 2, 3, 4)]
    assert [item.effective_at for item in items] == starts
    assert [item.expires_at for item in items] == [start + days(100) for start in starts]
    assert len({item.grant_id for item in items}) == 4


async def test_p4b_of_many_missed_periods_those_that_live_are_given(new_year: Town) -> None:
    done(await new_year.meter.create_plan("P", 10, 1, "daily", plan_id="p", validity_days=7))
    done(await new_year.meter.subscribe("u", "p"))
    await new_year.set_time(YEAR + days(95))
    assert await new_year.allocate() == 1
    assert await new_year.available() == 70
    row = await row_of(new_year)
    assert (row.period, row.period_started_at) == (95, YEAR + days(95))
    assert await new_year.allocate() == 0


async def test_p4_more_periods_than_one_step_gives_are_given_in_several(here: Town) -> None:
    done(await here.meter.create_plan("P", 1, 1, "daily", plan_id="p", validity_days=36_525))
    done(await here.meter.subscribe("u", "p"))
    await here.set_time(START + days(900))
    assert await here.allocate() == 2
    assert await here.available() == 901


@pytest.mark.parametrize("late", [False, True])
async def test_p4_a_rest_rolls_over_whoever_comes_late(new_year: Town, late: bool) -> None:
    """P4: 30 of each month live on for 45 days; nothing of January is left on 20 March."""
    rollover = {"max_amount": 30, "valid_days": 45}
    done(await new_year.meter.create_plan("P", 100, 1, "monthly", plan_id="p", rollover=rollover))
    done(await new_year.meter.subscribe("u", "p"))
    for now in (day(2), day(3)):
        if not late:
            await new_year.set_time(now)
            await new_year.allocate()
    await new_year.set_time(day(3, 20))
    await new_year.allocate()
    assert await new_year.available() == 130
    rest = done(await new_year.meter.grants("u")).items
    assert [(int(item.amount), item.effective_at, item.expires_at) for item in rest] == [
        (100, day(3), day(4)),
        (30, day(3), day(3) + days(45)),
    ]


@pytest.mark.parametrize("late", [False, True])
async def test_p4_what_is_to_come_comes_at_its_own_time(new_year: Town, late: bool) -> None:
    """P4: a coming change begins at the period's end, and an end ends there, whenever the job runs."""
    await new_year.plan("pro")
    await new_year.plan("week", 7, "weekly")
    for user in ("changes", "ends"):
        done(await new_year.meter.subscribe(user, "pro"))
    done(await new_year.meter.upgrade("changes", "week", when="period_end"))
    done(await new_year.meter.unsubscribe("ends", when="period_end"))
    if not late:
        await new_year.set_time(day(2))
        await new_year.allocate()
    await new_year.set_time(day(2, 16))
    await new_year.allocate()
    changed, over = await row_of(new_year, "changes"), await row_of(new_year, "ends")
    assert (changed.plan_id, changed.anchor_at, changed.period) == ("week", day(2), 2)
    assert (changed.created_at, changed.next_period_at) == (day(2), day(2, 22))
    assert (over.state, over.updated_at) == ("ended", day(2))
    assert [await new_year.available(user) for user in ("changes", "ends")] == [7, 0]
    assert refusal(await new_year.meter.upgrade("ends", "week")).code == "SUBSCRIPTION_NOT_FOUND"


async def test_p4_a_read_shows_what_is_due_as_done(new_year: Town) -> None:
    await new_year.plan("pro")
    done(await new_year.meter.subscribe("u", "pro", auto_renew=False))
    done(await new_year.meter.subscribe("v", "pro"))
    await new_year.set_time(day(3, 5))
    assert (await row_of(new_year)).state == "ended"
    row = await row_of(new_year, "v")
    assert (row.period, row.period_started_at, row.next_period_at) == (2, day(3), day(4))


@pytest.mark.parametrize("zone", ["right/Europe/Berlin", "localtime", "posixrules", "europe/berlin", "/etc/localtime"])
async def test_p5_a_zone_that_is_not_everywhere_is_a_field_error(both: Town, zone: str) -> None:
    await both.plan("pro")
    assert pointers(await both.meter.subscribe("u", "pro", time_zone=zone)) == {"/time_zone"}


async def test_p6_an_end_that_was_to_come_is_taken_back(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro"))
    ending = done(await both.meter.unsubscribe("u", when="period_end", unspent="void"))
    assert (ending.auto_renew, ending.unspent) == (False, "void")
    row = done(await both.meter.subscribe("u", "pro", auto_renew=True))
    assert (row.auto_renew, row.unspent) == (True, "stay")
    await both.set_time(END)
    await both.allocate()
    assert (await row_of(both)).state == "active"
    assert await both.available() == 100


async def test_p6b_an_active_one_is_told_not_to_renew(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro"))
    assert done(await both.meter.subscribe("u", "pro", auto_renew=False)).auto_renew is False
    assert done(await both.meter.subscribe("u", "pro")).auto_renew is False
    await both.set_time(END)
    await both.allocate()
    assert (await row_of(both)).state == "ended"


async def test_p6_what_is_sent_is_set_or_refused(both: Town) -> None:
    await both.plan("pro")
    row = done(await both.meter.subscribe("u", "pro", time_zone="Europe/Berlin", metadata={"order": 7}))
    assert row.metadata == {"order": 7}
    assert done(await both.meter.subscribe("u", "pro")) == row
    assert done(await both.meter.subscribe("u", "pro", time_zone="Europe/Berlin", anchor_at=START)) == row
    for wrong in ({"time_zone": "UTC"}, {"anchor_at": START - days(1)}):
        assert refusal(await both.meter.subscribe("u", "pro", **wrong)).code == "SUBSCRIPTION_FIXED"
    changed = done(await both.meter.subscribe("u", "pro", metadata={}))
    assert (changed.metadata, changed.time_zone) == ({}, "Europe/Berlin")


@pytest.mark.parametrize("renews", [False, True])
async def test_p6c_a_change_at_the_periods_end_comes_in_the_place_of_an_end(both: Town, renews: bool) -> None:
    await both.plan("pro")
    await both.plan("team", 500)
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.unsubscribe("u", when="period_end"))
    assert done(await both.meter.upgrade("u", "team", when="period_end")).next_plan_id == "team"
    await both.set_time(END)
    await both.allocate()
    assert (await row_of(both)).plan_id == "team"
    assert await both.available() == 500
    if renews:
        done(await both.meter.subscribe("u", "team", auto_renew=True))
    await both.set_time(START.replace(month=3, day=28))
    await both.allocate()
    assert (await row_of(both)).state == ("active" if renews else "ended")


async def test_p6c_an_end_takes_the_place_of_a_change_that_was_to_come(both: Town) -> None:
    await both.plan("pro")
    await both.plan("team", 500)
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.upgrade("u", "team", when="period_end"))
    assert done(await both.meter.unsubscribe("u", when="period_end")).next_plan_id is None
    await both.set_time(END)
    await both.allocate()
    assert (await row_of(both)).state == "ended"
    assert await both.available() == 0


async def test_p6_the_rest_of_one_that_has_ended_can_be_voided(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.unsubscribe("u"))
    assert await both.available() == 100
    row = done(await both.meter.unsubscribe("u", unspent="void"))
    assert (row.state, row.unspent) == ("ended", "void")
    assert await both.available() == 0
    assert done(await both.meter.unsubscribe("u")) == row


async def test_p12_an_anchor_of_1970_is_kept_and_an_earlier_one_refused(both: Town) -> None:
    await both.plan("pro")
    row = done(await both.meter.subscribe("u", "pro", anchor_at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert (row.anchor_at, row.period) == (datetime(1970, 1, 1, tzinfo=UTC), 720)
    assert pointers(await both.meter.subscribe("v", "pro", anchor_at=datetime(1969, 12, 31, tzinfo=UTC))) == {
        "/anchor_at"
    }


async def test_p12b_a_far_anchor_is_a_matter_of_computing(both: Town) -> None:
    await both.plan("day", 10, "daily")
    answers = await asyncio.gather(
        *(both.meter.subscribe(f"u{n}", "day", anchor_at=datetime(1971, 1, 1, tzinfo=UTC)) for n in range(5))
    )
    assert {done(answer).period for answer in answers} == {(START - datetime(1971, 1, 1, tzinfo=UTC)).days}
    await both.set_time(START + timedelta(days=365 * 200))
    assert await both.allocate() == 5
    assert await both.available("u0") == 10


@pytest.mark.parametrize("http", [False, True])
async def test_p16_an_account_that_can_take_no_grant_keeps_nothing(http: bool) -> None:
    async with town(START, http=http, grants_max=2) as found:
        await found.plan("pro")
        await found.plan("team", 500)
        for number in range(2):
            done(await found.meter.add("u", 1, grant_id=f"g{number}"))
        for _ in range(2):
            assert refusal(await found.meter.subscribe("u", "pro")).code == "TOO_MANY_GRANTS"
        assert done(await found.meter.subscriptions("u")).items == []
        assert await found.store.find(SubscriptionRow, {}, order_by="user_id", limit=9) == []
        assert [row.grant_id for row in await found.store.find(GrantRow, {}, order_by="grant_id", limit=9)] == [
            "g0",
            "g1",
        ]

        done(await found.meter.add("v", 1))
        first = done(await found.meter.subscribe("v", "pro"))
        for proration in ("none", "difference"):
            answer = await found.meter.upgrade("v", "team", proration=proration)
            assert refusal(answer).code == "TOO_MANY_GRANTS"
        assert done(await found.meter.subscriptions("v")).items == [first]
        assert await found.available("v") == 101


async def test_p16_more_than_an_account_can_count_is_refused(both: Town) -> None:
    await both.plan("pro", 5_000_000_000)
    done(await both.meter.add("u", 5_000_000_000))
    assert pointers(await both.meter.subscribe("u", "pro")) == {"/plan_id"}
    assert done(await both.meter.subscriptions("u")).items == []


async def test_p16_a_suspended_account_gets_what_the_answer_says(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.configure("u", suspended=True))
    assert done(await both.meter.subscribe("u", "pro")).state == "active"
    assert await both.available() == Decimal(100)
