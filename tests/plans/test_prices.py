"""Rate cards and multipliers of plans: whose word counts, from when until when, and what a rebuild brings back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter import NULL
from meter.contract.answers import Committed, Deducted, Reserved
from meter.contract.plans import Plan
from meter.engine import upkeep
from meter.errors import RedisUnavailable
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.plans import effects
from tests.plans.conftest import START
from tests.plans.town import Town, done, pointers, town

DAY = 86_400
GPT = {"model": "gpt-4o", "output": 1000}


def card(output: float) -> dict[str, Any]:
    return {"gpt-4o": {"input": 2.5, "output": output, "max_output": 1000}}


async def cards(at: Town) -> None:
    """`default` costs 0.01 for 1,000 tokens of output, `pro` 0.02, `vip` 0.04, `own` 0.08."""
    for name, output in (("default", 10), ("pro", 20), ("vip", 40), ("own", 80)):
        done(await at.meter.put_rate_card(name, card(output)))


async def plan(at: Town, plan_id: str, **says: Any) -> Plan:
    return done(await at.meter.create_plan(plan_id, 100, 10, "monthly", plan_id=plan_id, **says))


async def cost(at: Town, user: str = "u") -> Decimal:
    """What 1,000 tokens of output cost a user now."""
    found: Deducted = done(await at.meter.deduct(user, usage=GPT))
    return Decimal(found.amount)


def D(text: str) -> Decimal:  # noqa: N802 - as short as the number
    return Decimal(text)


async def test_a_users_own_wins_then_the_nearest_levels_then_the_plans(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro", price_multiplier=1.5)
    for user in ("u", "acme", "acme/a"):
        done(await both.meter.add(user, 100))
    assert await cost(both) == D("0.01")
    done(await both.meter.subscribe("u", "basic"))
    assert await cost(both) == D("0.03")  # the plan's card, and its multiplier
    done(await both.meter.configure("u", rate_card="own"))
    assert await cost(both) == D("0.12")  # each by itself
    done(await both.meter.configure("u", price_multiplier=1))
    assert await cost(both) == D("0.08")

    done(await both.meter.subscribe("acme", "basic"))
    assert await cost(both, "acme/a") == D("0.03")  # what a plan of a level says holds below it
    await plan(both, "leaf", rate_card="vip")
    done(await both.meter.subscribe("acme/a", "leaf"))
    assert await cost(both, "acme/a") == D("0.06")  # the nearest plan's card, the multiplier of the one above
    done(await both.meter.configure("acme", rate_card="own"))
    assert await cost(both, "acme/a") == D("0.12")  # a level's own word beats a plan, even one that is nearer
    leaf = done(await both.meter.user("acme/a"))
    assert (leaf.rate_card, leaf.price_multiplier) == (None, None)  # of its own it says nothing


async def test_taking_away_a_users_own_gives_the_plans_again(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.configure("u", rate_card="own", price_multiplier=2))
    assert await cost(both) == D("0.16")
    done(await both.meter.configure("u", rate_card=NULL, price_multiplier=NULL))
    assert await cost(both) == D("0.02")


@pytest.mark.parametrize("how", ["none", "difference"])
async def test_the_next_plan_replaces_the_last_ones(both: Town, how: Any) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro", price_multiplier=3)
    await plan(both, "vip", rate_card="vip")
    await plan(both, "plain")
    done(await both.meter.subscribe("u", "basic"))
    assert await cost(both) == D("0.06")
    done(await both.meter.upgrade("u", "vip", proration=how))
    assert await cost(both) == D("0.04")  # nothing is left of the multiplier
    done(await both.meter.upgrade("u", "plain", proration=how))
    assert await cost(both) == D("0.01")
    done(await both.meter.upgrade("u", "basic", proration=how))
    assert await cost(both) == D("0.06")


async def test_it_ends_with_the_subscription(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    done(await both.meter.add("u", 100))
    done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.unsubscribe("u"))
    assert await cost(both) == D("0.01")
    done(await both.meter.subscribe("u", "basic"))  # again: a later version of the same subscription
    assert await cost(both) == D("0.02")


async def test_an_end_that_was_told_needs_no_job(both: Town) -> None:
    """The moment of the end is known in Redis: no allocation runs here."""
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    done(await both.meter.add("u", 100))
    row = done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.unsubscribe("u", when="period_end"))
    await both.set_time(row.next_period_at - timedelta(milliseconds=1))
    assert await cost(both) == D("0.02")
    await both.set_time(row.next_period_at)
    assert await cost(both) == D("0.01")
    await both.allocate()
    assert await cost(both) == D("0.01")


async def test_an_end_that_is_taken_back_goes_on(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    row = done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.unsubscribe("u", when="period_end"))
    done(await both.meter.subscribe("u", "basic", auto_renew=True))
    await both.set_time(row.next_period_at)
    await both.allocate()
    assert await cost(both) == D("0.02")


async def test_a_change_of_a_plan_counts_from_the_next_period_on(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    row = done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.update_plan("basic", "basic", 100, 10, "monthly", rate_card="vip", price_multiplier=2))
    assert await cost(both) == D("0.02")
    await both.set_time(row.next_period_at)
    await both.allocate()
    assert await cost(both) == D("0.08")


async def test_a_coming_plan_prices_when_it_comes(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    await plan(both, "vip", rate_card="vip")
    row = done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.upgrade("u", "vip", when="period_end"))
    assert await cost(both) == D("0.02")
    await both.set_time(row.next_period_at)
    await both.allocate()
    assert await cost(both) == D("0.04")


async def test_a_hold_keeps_what_its_plan_said(both: Town) -> None:
    await cards(both)
    await plan(both, "basic", rate_card="pro")
    await plan(both, "vip", rate_card="vip", price_multiplier=2)
    done(await both.meter.subscribe("u", "basic"))
    held: Reserved = done(await both.meter.hold("u", usage={**GPT, "max_output": 1000}))
    done(await both.meter.upgrade("u", "vip"))
    ended: Committed = done(await both.meter.commit(held.reservation_id, usage={"output": 1000}))
    assert (held.amount, ended.charged) == (D("0.02"), D("0.02"))
    assert await cost(both) == D("0.08")


async def test_of_plans_of_several_groups_the_first_by_name_that_says_it(both: Town) -> None:
    await cards(both)
    await plan(both, "one", rate_card="vip", plan_group="b")
    await plan(both, "two", rate_card="pro", price_multiplier=3, plan_group="c")
    done(await both.meter.subscribe("u", "two"))
    assert await cost(both) == D("0.06")
    done(await both.meter.subscribe("u", "one"))
    assert await cost(both) == D("0.12")
    done(await both.meter.unsubscribe("u", plan_group="b"))
    assert await cost(both) == D("0.06")


async def test_a_plan_of_a_card_that_there_is_not_is_refused(both: Town) -> None:
    answer = await both.meter.create_plan("x", 100, 10, "monthly", rate_card="nowhere")
    assert pointers(answer) == {"/rate_card"}
    assert pointers(await both.meter.create_plan("x", 100, 10, "monthly", price_multiplier=0)) == {"/price_multiplier"}
    await cards(both)
    made = await plan(both, "basic", rate_card="pro", price_multiplier=1.25)
    assert (made.rate_card, made.price_multiplier) == ("pro", D("1.25"))
    again = done(await both.meter.update_plan("basic", "basic", 100, 10, "monthly"))
    assert (again.rate_card, again.price_multiplier) == (None, None)


async def rebuilt(at: Town) -> None:
    await at.flush()
    meta = at.engine.partitions[0].meta  # the test clock is in it
    await at.runtime.redis.drop([key for key in at.engine.partitions[0].all if key != meta])
    await Rebuild(at.engine, at.runtime.redis, at.store, DAY * 1000).partition(0)


async def drifts(at: Town) -> dict[str, list[str]]:
    report = await Reconcile(at.engine, at.runtime.redis, at.store).partition(0)
    return {drift.user_id: drift.members for drift in report.drifts}


async def test_a_rebuild_brings_back_what_plans_say(here: Town) -> None:
    await cards(here)
    await plan(here, "basic", rate_card="pro", price_multiplier=2)
    for user in ("u", "v", "w"):
        done(await here.meter.add(user, 100))
        done(await here.meter.subscribe(user, "basic"))
    done(await here.meter.configure("v", rate_card="own"))
    done(await here.meter.unsubscribe("w"))
    before = [await cost(here, user) for user in ("u", "v", "w")]
    assert before == [D("0.04"), D("0.16"), D("0.01")]
    await here.flush()
    assert await drifts(here) == {}
    await rebuilt(here)
    assert [await cost(here, user) for user in ("u", "v", "w")] == before
    await here.flush()
    assert await drifts(here) == {}
    done(await here.meter.unsubscribe("u"))  # a later version than what the rebuild brought back
    assert await cost(here) == D("0.01")


async def test_a_reconciliation_tells_what_redis_lacks_of_it(here: Town) -> None:
    await cards(here)
    await plan(here, "basic", rate_card="pro")
    done(await here.meter.subscribe("u", "basic"))
    await here.flush()
    key = here.engine.partitions[0].rates
    assert await here.runtime.redis.field(key, "u u") == b"- - default,1,pro,-,0"
    await here.runtime.redis._command("HSET", key, "u u", "- -")
    assert await drifts(here) == {"u": ["prices"]}


async def test_older_news_of_a_subscription_changes_nothing(here: Town) -> None:
    await cards(here)
    done(await here.meter.add("u", 100))
    for version, name, expected in ((3, "vip", "0.04"), (2, "pro", "0.04"), (3, "pro", "0.04"), (4, "", "0.01")):
        await here.engine.run("u", upkeep.plan_prices("u", "default", version, name, 0, 0))
        assert await cost(here) == D(expected)
    await here.engine.run("u", upkeep.plan_prices("u", "default", 3, "vip", 0, 0))
    assert await cost(here) == D("0.01")


async def test_what_redis_could_not_be_told_is_told_later(here: Town) -> None:
    """Redis refuses while a subscription is made: the errand stays in the store, and the allocation does it."""
    await cards(here)
    await plan(here, "basic", rate_card="pro")
    real = effects.price_operation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            effects, "price_operation", lambda _: (_ for _ in ()).throw(RedisUnavailable("away", "Redis is away"))
        )
        done(await here.meter.subscribe("u", "basic"))
    assert effects.price_operation is real
    await here.allocate()
    assert await cost(here) == D("0.02")


async def test_races_of_calls_end_as_the_store_says(here: Town) -> None:
    await cards(here)
    for name in ("pro", "vip"):
        await plan(here, name, rate_card=name)
    done(await here.meter.subscribe("u", "pro"))
    names = ["vip", "pro", "vip", "pro", "vip"]
    await asyncio.gather(*(here.meter.upgrade("u", name, proration="difference") for name in names))
    await here.allocate()
    (row,) = done(await here.meter.subscriptions("u")).items
    assert await cost(here) == {"pro": D("0.02"), "vip": D("0.04")}[row.plan_id]


async def test_nobody_pays_for_it_before_a_plan_says_something() -> None:
    async with town(START) as at:
        await plan(at, "plain")
        done(await at.meter.subscribe("u", "plain"))
        assert await at.runtime.redis.field(at.engine.partitions[0].rates, "u u") is None
