"""Plans: the seed's fields, exact prices, repeatable creation, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.contract import plans
from tests.plans.conftest import START
from tests.plans.town import Town, done, pointers, refusal


async def test_a_plan_is_created_and_read_back(both: Town) -> None:
    plan = done(
        await both.meter.create_plan("Pro", "1000.5", "9.90", "monthly", validity_days=30, description="For teams")
    )
    assert plan.id == plan.plan_id
    assert (plan.name, plan.credit_limit, plan.billing_period, plan.validity_days) == (
        "Pro",
        Decimal("1000.5"),
        "monthly",
        30,
    )
    assert (plan.created_at, plan.updated_at, plan.active) == (START, START, True)
    assert done(await both.meter.plan(plan.id)) == plan
    assert done(await both.meter.plans()).items == [plan]


@pytest.mark.parametrize(
    ("sent", "stored"), [(9.99, "9.99"), ("9.90", "9.90"), (0, "0"), (10, "10"), ("0.000000000001", "0.000000000001")]
)
async def test_a_price_stays_exactly_as_it_was_sent(here: Town, sent: float | str, stored: str) -> None:
    plan = done(await here.meter.create_plan("P", 1, sent, "daily"))
    assert str(plan.price) == str(Decimal(stored))
    assert str(done(await here.meter.plan(plan.id)).price) == str(Decimal(stored))


@pytest.mark.parametrize("price", [-1, "-0.01", "1e3", "1,5", "007", "1.", "", True, None, "9" * 41, 10**12, "NaN"])
async def test_a_price_that_is_none_is_a_field_error(here: Town, price: object) -> None:
    body = {"name": "P", "credit_limit": 1, "price": price, "billing_period": "daily"}
    assert pointers(await here.meter._call("create_plan", plans.Plan, body=body)) == {"/price"}


async def test_wrong_members_are_pointed_at(here: Town) -> None:
    body = {
        "name": "",
        "credit_limit": 0,
        "price": 1,
        "billing_period": "hourly",
        "validity_days": 0,
        "priority": -1,
        "plan_group": "a b",
        "expires": {"days": 3},
        "plan_id": "a/b",
    }
    found = pointers(await here.meter._call("create_plan", plans.Plan, body=body))
    assert found == {f"/{name}" for name in body if name != "price"}
    assert done(await here.meter.plans()).items == []
    assert pointers(await here.meter.create_plan("P", 10**30, 1, "daily")) == {"/credit_limit"}
    assert pointers(await here.meter.subscribe("u", "p", time_zone="Mars/Base")) == {"/time_zone"}


@pytest.mark.parametrize(
    ("rollover", "expected"),
    [
        ({"max_amount": 50}, {"/valid_days"}),
        ({"valid_days": 30}, {""}),
        ({"max_amount": 50, "percent": 50, "valid_days": 30}, {""}),
        ({"max_amount": 0, "valid_days": 30}, {"/max_amount"}),
        ({"max_amount": "0.0000001", "valid_days": 30}, {"/max_amount"}),
        ({"percent": 101, "valid_days": 30}, {"/percent"}),
        ({"percent": -1, "valid_days": 30}, {"/percent"}),
        ({"percent": "50%", "valid_days": 30}, {"/percent"}),
        ({"percent": 50, "valid_days": 0}, {"/valid_days"}),
        ({"percent": 50, "valid_days": 36_526}, {"/valid_days"}),
        ({"percent": 50, "valid_days": 3, "days": 3}, {"/days"}),
        ("all", {""}),
    ],
)
async def test_a_rollover_that_is_none_is_a_field_error(
    here: Town, rollover: dict[str, object], expected: set[str]
) -> None:
    found = await here.meter.create_plan("P", 100, 1, "daily", rollover=rollover)
    assert pointers(found) == {f"/rollover{pointer}" for pointer in expected}


async def test_a_rollover_is_read_back_and_can_be_taken_away(both: Town) -> None:
    rollover = {"max_amount": "12.5", "valid_days": 30}
    plan = done(await both.meter.create_plan("P", 100, 1, "daily", plan_id="p", rollover=rollover))
    assert plan.rollover == plans.Rollover(max_amount=Decimal("12.5"), percent=None, valid_days=30)
    assert done(await both.meter.plan("p")) == plan
    again = await both.meter.create_plan("P", 100, 1, "daily", plan_id="p", rollover=rollover)
    assert done(again).model_dump() == plan.model_dump()
    other = await both.meter.create_plan("P", 100, 1, "daily", plan_id="p", rollover={**rollover, "valid_days": 31})
    assert refusal(other).code == "PLAN_EXISTS"
    percent = {"percent": 50, "valid_days": 1}
    updated = done(await both.meter.update_plan("p", "P", 100, 1, "daily", rollover=percent))
    assert updated.rollover == plans.Rollover(max_amount=None, percent=50, valid_days=1)
    assert done(await both.meter.update_plan("p", "P", 100, 1, "daily")).rollover is None


async def test_a_key_or_a_plan_id_makes_creation_repeatable(both: Town) -> None:
    meter = both.meter
    first = done(await meter.create_plan("P", 5, "9.90", "daily", idempotency_key="k"))
    changed = done(await meter.update_plan(first.id, "P", 7, 1, "daily"))
    again = done(await meter.create_plan("P", 5, "9.90", "daily", idempotency_key="k"))
    assert (again.replayed, again.model_dump()) == (True, first.model_dump())
    assert done(await meter.plan(first.id)) == changed
    assert (
        refusal(await meter.create_plan("P", 6, "9.90", "daily", idempotency_key="k")).code == "IDEMPOTENCY_KEY_REUSED"
    )
    assert len(done(await meter.plans()).items) == 1

    named = done(await meter.create_plan("Q", 5, 1, "daily", plan_id="q"))
    assert done(await meter.create_plan("Q", 5, 1, "daily", plan_id="q")).model_dump() == named.model_dump()
    assert refusal(await meter.create_plan("Q", 6, 1, "daily", plan_id="q")).code == "PLAN_EXISTS"
    assert refusal(await meter.create_plan("Q", 6, 1, "daily", plan_id="q", idempotency_key="k2")).code == "PLAN_EXISTS"
    done(await meter.create_plan("Q", 6, 1, "daily", plan_id="r", idempotency_key="k2"))  # a refusal poisons no key


async def test_an_update_is_seen_at_once_and_counts_from_the_next_period(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro"))
    updated = done(await both.meter.update_plan("pro", "Pro 2", 250, "12.00", "monthly"))
    assert (updated.name, updated.credit_limit, str(updated.price)) == ("Pro 2", Decimal(250), "12.00")
    assert done(await both.meter.plan("pro")) == updated
    assert await both.available() == 100
    await both.set_time(START.replace(month=2, day=28))
    assert await both.allocate() == 1
    assert await both.available() == 250
    assert pointers(await both.meter.update_plan("pro", "Pro", 1, 1, "daily", plan_group="other")) == {"/plan_group"}


async def test_a_deleted_plan_is_gone_for_readers_and_goes_on_for_subscribers(both: Town) -> None:
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.delete_plan("pro"))
    for answer in (
        await both.meter.plan("pro"),
        await both.meter.delete_plan("pro"),
        await both.meter.subscribe("other", "pro"),
        await both.meter.update_plan("pro", "P", 1, 1, "daily"),
    ):
        assert refusal(answer).code == "PLAN_NOT_FOUND"
    assert done(await both.meter.plans()).items == []
    await both.set_time(START.replace(month=2, day=28))
    assert await both.allocate() == 1
    assert await both.available() == 100


async def test_plans_come_in_pages(here: Town) -> None:
    for name in "abcde":
        await here.plan(name)
    found, cursor = [], ""
    for _ in range(3):
        page = done(await here.meter.plans(limit=2, cursor=cursor))
        found += [plan.id for plan in page.items]
        cursor = page.next_cursor or ""
    assert (found, cursor) == (list("abcde"), "")


IMAGES = ["feature:images", "model:gpt-4o*"]


async def test_what_a_plan_gives_may_be_for_certain_things_only(both: Town) -> None:
    """Its later periods too, and what rolls over; another plan's credits are its own."""
    rollover = {"percent": 100, "valid_days": 60}
    images = done(await both.meter.create_plan("Images", 100, 10, "monthly", only=IMAGES[::-1], rollover=rollover))
    assert images.only == IMAGES
    plain = done(await both.meter.create_plan("Plain", 50, 10, "monthly"))
    assert plain.only is None
    row = done(await both.meter.subscribe("u", images.plan_id))
    assert [grant.only for grant in done(await both.meter.grants("u")).items] == [IMAGES]
    assert refusal(await both.meter.deduct("u", 1)).code == "INSUFFICIENT_CREDITS"
    done(await both.meter.deduct("u", 30, tags=IMAGES[:1]))
    assert row.next_period_at is not None
    await both.set_time(row.next_period_at)
    await both.allocate()
    found = done(await both.meter.grants("u")).items
    assert sorted((int(grant.remaining), grant.only or []) for grant in found) == [(70, IMAGES), (100, IMAGES)]
    done(await both.meter.upgrade("u", plain.plan_id))
    assert None in [grant.only for grant in done(await both.meter.grants("u")).items]
    assert done(await both.meter.deduct("u", 1)).taken == 1


async def test_a_plan_for_a_ninth_thing_is_refused_and_changes_nothing(both: Town) -> None:
    images = done(await both.meter.create_plan("Images", 100, 10, "monthly", only=IMAGES))
    for number in range(8):
        done(await both.meter.add("u", 1, only=[f"thing{number}"]))
    assert pointers(await both.meter.subscribe("u", images.plan_id)) == {"/plan_id"}
    assert done(await both.meter.subscriptions("u")).items == []
    done(await both.meter.deduct("u", 1, tags=["thing0"]))
    done(await both.meter.subscribe("u", images.plan_id))
