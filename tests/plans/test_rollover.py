"""Rollover: what is unspent when a period ends lives on, up to a cap and for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from meter.contract import answers
from tests.plans.conftest import START
from tests.plans.town import Town, days, done

END = START.replace(month=2, day=28)


async def rolling_plan(town: Town, rollover: Mapping[str, object], limit: int = 100, **members: Any) -> None:
    plan_id = members.pop("plan_id", "pro")
    done(await town.meter.create_plan("P", limit, 1, "monthly", plan_id=plan_id, rollover=rollover, **members))


@pytest.mark.parametrize(
    ("rollover", "spent", "rolled", "expired"),
    [
        ({"max_amount": 30, "valid_days": 10}, 20, 30, 50),
        ({"max_amount": 30, "valid_days": 10}, 80, 20, 0),
        ({"percent": 25, "valid_days": 10}, 20, 25, 55),
        ({"percent": 100, "valid_days": 10}, 20, 80, 0),
        ({"percent": 0, "valid_days": 10}, 20, 0, 80),
        ({"max_amount": 30, "valid_days": 10}, 100, 0, 0),
    ],
)
async def test_the_rest_rolls_over_within_its_cap(
    here: Town, rollover: dict[str, object], spent: int, rolled: int, expired: int
) -> None:
    await rolling_plan(here, rollover)
    done(await here.meter.subscribe("u", "pro"))
    done(await here.meter.deduct("u", spent))
    await here.set_time(END)
    await here.allocate()

    assert await here.available() == 100 + rolled
    ended = [("grant_rolled_over", rolled), ("grant_expired", expired)]
    expected = [("grant", 100), ("deduct", spent), *(item for item in ended if item[1]), ("grant", 100)]
    assert await here.kinds() == expected
    await here.set_time(END + days(10))
    assert await here.available() == 100


@pytest.mark.parametrize("first", ["sweep", "deduct", "read", "allocate"])
async def test_whoever_meets_the_end_first_it_is_the_same(here: Town, first: str) -> None:
    await rolling_plan(here, {"max_amount": 30, "valid_days": 10})
    done(await here.meter.subscribe("u", "pro"))
    await here.set_time(END)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "sweep": here.sweep,
        "deduct": lambda: here.meter.deduct("u", 30),
        "read": here.available,
        "allocate": here.allocate,
    }
    await calls[first]()
    await here.allocate()

    rolled = done(await here.meter.history("u", kind="grant_rolled_over")).items
    assert [(int(one.amount), one.created_at, int(one.available_after)) for one in rolled] == [(30, END, 100)]
    assert await here.available() == (100 if first == "deduct" else 130)


async def test_the_grants_tell_what_will_live_on_and_what_did(both: Town) -> None:
    await rolling_plan(both, {"percent": 12, "valid_days": 10})
    done(await both.meter.subscribe("u", "pro"))
    (grant,) = done(await both.meter.grants("u")).items
    terms = answers.GrantRollover(max_amount=Decimal(12), expires_at=END + days(10))
    assert grant.rollover == terms
    await both.flush()
    assert done(await both.meter.grants("u", state="all")).items[0].rollover == terms

    await both.set_time(END)
    await both.allocate()
    rest, following = done(await both.meter.grants("u")).items
    assert rest.grant_id == f"{grant.grant_id}.rollover"
    assert rest.amount == rest.remaining == 12
    assert (rest.effective_at, rest.expires_at, rest.created_at) == (END, END + days(10), END)
    assert (rest.priority, rest.source, rest.state, rest.rollover) == (10, "plan:pro", "active", None)
    assert following.rollover is not None
    soon = done(await both.meter.expiring("u", days=11)).items
    assert [item.grant_id for item in soon] == [rest.grant_id]
    burns = done(await both.meter.explain("u", 20)).burns
    assert [(burn.grant_id, int(burn.amount)) for burn in burns] == [(rest.grant_id, 12), (following.grant_id, 8)]
    await both.flush()
    stored = {item.grant_id: item for item in done(await both.meter.grants("u", state="all")).items}
    assert stored[rest.grant_id] == rest
    assert stored[grant.grant_id].state == "expired"


async def test_a_larger_plan_in_mid_period_rolls_over_in_proportion(here: Town) -> None:
    await rolling_plan(here, {"max_amount": 10, "valid_days": 10})
    await rolling_plan(here, {"max_amount": 60, "valid_days": 10}, 300, plan_id="team")
    done(await here.meter.subscribe("u", "pro"))
    await here.set_time(START + days(14))  # of 28
    done(await here.meter.upgrade("u", "team", proration="difference"))
    assert await here.available() == 200
    await here.set_time(END)
    assert await here.available() == 10 + 20
    await here.allocate()
    assert await here.available() == 330


async def test_a_rollover_counts_from_the_next_period_on(here: Town) -> None:
    await here.plan("pro")
    done(await here.meter.subscribe("u", "pro"))
    done(await here.meter.update_plan("pro", "P", 100, 1, "monthly", rollover={"percent": 50, "valid_days": 10}))
    await here.set_time(END)
    await here.allocate()
    assert await here.available() == 100
    await here.set_time(START.replace(month=3))
    await here.allocate()
    assert await here.available() == 150


@pytest.mark.parametrize(("unspent", "left"), [("stay", 30), ("void", 0)])
async def test_what_rolled_over_stays_or_is_void_with_the_subscription(here: Town, unspent: Any, left: int) -> None:
    await rolling_plan(here, {"max_amount": 30, "valid_days": 10})
    done(await here.meter.subscribe("u", "pro"))
    done(await here.meter.unsubscribe("u", when="period_end", unspent=unspent))
    await here.set_time(END)
    assert await here.available() == 30
    await here.allocate()
    assert await here.available() == left


async def test_credits_that_are_valid_for_less_than_a_period_roll_over_then(here: Town) -> None:
    await rolling_plan(here, {"max_amount": 30, "valid_days": 3}, validity_days=7)
    done(await here.meter.subscribe("u", "pro"))
    await here.set_time(START + days(7))
    assert await here.available() == 30
    await here.set_time(START + days(10))
    assert await here.available() == 0
