"""No alert of credits that end in the moment in which their renewal is due, whoever meets that moment first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.alerts.conftest import START
from tests.alerts.post import Post
from tests.plans.town import days, done

END = START.replace(month=2, day=28)

FIRST: dict[str, Callable[[Post], Awaitable[Any]]] = {
    "sweep": lambda office: office.town.sweep(),
    "allocate": lambda office: office.town.allocate(),
    "deduct": lambda office: office.town.meter.deduct("u", 1),
    "hold": lambda office: office.town.meter.hold("u", 1),
    "read": lambda office: office.town.available(),
    "by hand": lambda office: office.town.meter.allocate(),
}


async def alerts(office: Post) -> list[str]:
    """The kinds that tell of a low balance."""
    await office.town.flush()
    return [row.kind for row in await office.alerts() if row.kind in ("low_credits", "credits_exhausted")]


async def subscribed(office: Post, **members: Any) -> None:
    """u has nothing but the 100 credits of a plan, and a threshold at 50."""
    meter = office.town.meter
    done(await meter.create_plan("P", 100, 1, "monthly", plan_id="pro", **members))
    done(await meter.subscribe("u", "pro"))
    done(await meter.configure("u", low_credit_thresholds=[50]))


@pytest.mark.parametrize("first", FIRST)
async def test_a_renewal_in_time_tells_of_no_low_balance(office: Post, first: str) -> None:
    await subscribed(office)
    await office.advance((END - START).total_seconds())
    await FIRST[first](office)
    await office.town.sweep()
    await office.town.allocate()
    assert await alerts(office) == []
    done(await office.town.meter.deduct("u", 100))
    assert sorted(await alerts(office)) == ["credits_exhausted", "low_credits"]


async def test_a_late_renewal_tells_of_none_either(office: Post) -> None:
    """The worker was away for two days; what can be said of the time in between is said by refusals."""
    await subscribed(office)
    await office.advance((END - START).total_seconds() + 2 * 86_400)
    assert not await office.town.meter.deduct("u", 1)
    await office.town.sweep()
    await office.town.allocate()
    assert await alerts(office) == []


async def test_groups_that_renew_together_wait_for_each_other(office: Post) -> None:
    await subscribed(office)
    meter = office.town.meter
    done(await meter.create_plan("Extra", 7, 1, "monthly", plan_id="extra", plan_group="extra"))
    done(await meter.subscribe("u", "extra"))
    await office.advance((END - START).total_seconds())
    await office.town.allocate()
    assert await alerts(office) == []


@pytest.mark.parametrize("proration", ["none", "difference"])
async def test_a_changed_plan_renews_as_quietly(office: Post, proration: Any) -> None:
    await subscribed(office)
    meter = office.town.meter
    done(await meter.create_plan("Team", 300, 1, "monthly", plan_id="team"))
    await office.advance(14 * 86_400)
    done(await meter.upgrade("u", "team", proration=proration))
    ends = done(await meter.subscriptions("u")).items[0].next_period_at
    before = await alerts(office)
    await office.town.set_time(ends)
    await office.town.sweep()
    await office.town.allocate()
    assert await alerts(office) == before


@pytest.mark.parametrize("when", ["now", "period_end"])
async def test_where_no_renewal_follows_the_end_is_told(office: Post, when: Any) -> None:
    await subscribed(office)
    done(await office.town.meter.unsubscribe("u", when=when))
    await office.advance((END - START).total_seconds())
    await office.town.sweep()
    assert sorted(await alerts(office)) == ["credits_exhausted", "low_credits"]
    await office.town.allocate()
    assert len(await alerts(office)) == 2


async def test_an_end_that_is_asked_for_after_the_period_is_one_of_the_next(office: Post) -> None:
    """What was due by then comes first, as if a job had run (docs/plans.md, rule 1)."""
    await subscribed(office)
    await office.advance((END - START).total_seconds())
    await office.town.sweep()
    for _ in range(2):
        done(await office.town.meter.unsubscribe("u", when="period_end"))
    await office.town.allocate()
    assert await alerts(office) == []
    assert await office.town.available() == 100


async def test_an_end_that_is_taken_back_is_a_renewal_again(office: Post) -> None:
    """P6: the grant that was told that no renewal follows is told that one does."""
    await subscribed(office)
    done(await office.town.meter.unsubscribe("u", when="period_end"))
    done(await office.town.meter.subscribe("u", "pro", auto_renew=True))
    await office.advance((END - START).total_seconds())
    await office.town.sweep()
    await office.town.allocate()
    assert await alerts(office) == []
    assert await office.town.available() == 100


async def test_credits_that_end_before_their_period_are_told_of(office: Post) -> None:
    await subscribed(office, validity_days=7)
    await office.advance(7 * 86_400)
    await office.town.sweep()
    assert sorted(await alerts(office)) == ["credits_exhausted", "low_credits"]


async def test_a_rest_that_rolled_over_is_told_of_again(office: Post) -> None:
    await subscribed(office, rollover={"max_amount": 10, "valid_days": 20})
    await office.advance((END - START).total_seconds())
    for _ in range(2):
        await office.town.sweep()
        await office.town.allocate()
        await office.remind()
    for step in (13, 6, 1):
        await office.advance(step * 86_400)
        await office.town.sweep()
        await office.remind()
    rows = sorted(await office.alerts(), key=lambda row: row.created_at_ms)
    told = [(row.kind, row.payload["amount"]) for row in rows if row.kind == "credits_expired"]  # type: ignore[index,call-overload]
    assert told == [("credits_expired", 90_000_000), ("credits_expired", 10_000_000)]
    ending = [row.payload for row in rows if row.kind == "expiring_credits"]
    assert [(one["remaining"], one["days"]) for one in ending if isinstance(one, dict)] == [
        (10_000_000, 7),
        (10_000_000, 1),
    ]
    assert await office.town.available() == 100
    assert office.now == END + days(20)
