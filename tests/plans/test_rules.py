"""Budgets and rate limits of plans: who has them, what follows a change; budgets by the period of a subscription."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from meter.clock import DAY_MS
from meter.engine import upkeep
from meter.ledger import plan_rules
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.plans import effects
from tests.plans.conftest import START
from tests.plans.town import Town, done, pointers, refusal, town

DAY = {"daily": {"limit": 10, "window": "day", "time_zone": "Asia/Kathmandu", "alert_at": [0.5]}}
RPM = {"rpm": {"kind": "requests", "limit": 60}}


async def plan(at: Town, plan_id: str, **says: Any) -> Any:
    return done(await at.meter.create_plan(plan_id, 100, 10, "monthly", plan_id=plan_id, **says))


async def user(at: Town, user_id: str = "u") -> Any:
    return done(await at.meter.user(user_id))


async def budget(at: Town, name: str = "daily", user_id: str = "u") -> Any:
    return (await user(at, user_id)).budgets[name]


async def spends(at: Town, amount: int, user_id: str = "u") -> None:
    done(await at.meter.deduct(user_id, amount))


async def configured(at: Town, **settings: Any) -> Any:
    return done(await at.meter.configure("u", **settings))


async def rebuilt(at: Town) -> None:
    await at.flush()
    meta = at.engine.partitions[0].meta  # the test clock is in it
    await at.runtime.redis.drop([key for key in at.engine.partitions[0].all if key != meta])
    await Rebuild(at.engine, at.runtime.redis, at.store, DAY_MS).partition(0)


async def drifts(at: Town) -> dict[str, list[str]]:
    report = await Reconcile(at.engine, at.runtime.redis, at.store).partition(0)
    return {drift.user_id: drift.members for drift in report.drifts}


async def test_every_subscriber_gets_what_the_plan_says(both: Town) -> None:
    made = await plan(both, "basic", budgets=DAY, rate_limits=RPM)
    assert (made.budgets["daily"].limit, made.budgets["daily"].alert_at) == (10, [0.5])
    assert (made.rate_limits["rpm"].limit, made.rate_limits["rpm"].burst) == (60, 60)
    done(await both.meter.subscribe("u", "basic"))
    found = await user(both)
    assert found.budgets["daily"].source == found.rate_limits["rpm"].source == "plan"
    assert (found.budgets["daily"].time_zone, found.budgets["daily"].alert_at) == ("Asia/Kathmandu", [0.5])
    await spends(both, 6)
    refused = refusal(await both.meter.deduct("u", 5)).model_dump()
    assert (refused["code"], refused["violations"][0]["id"]) == ("BUDGET_REACHED", "daily")
    below = refusal(await both.meter.deduct("u/a", 5)).model_dump()  # and all below
    assert {one["rule"] for one in below["violations"]} == {"budget", "credits"}


async def test_a_users_own_wins_and_the_plans_is_back_when_that_goes(both: Town) -> None:
    """With what was used all the while: it is the same window."""
    await plan(both, "basic", budgets=DAY)
    done(await both.meter.subscribe("u", "basic"))
    await spends(both, 6)
    own = (await configured(both, budgets={"daily": {"limit": 50}})).budgets["daily"]
    assert (own.limit, own.used, own.source, own.time_zone) == (50, 6, "user", "Asia/Kathmandu")
    await spends(both, 6)
    back = (await configured(both, budgets={"daily": None})).budgets["daily"]
    assert (back.limit, back.used, back.source) == (10, 12, "plan")
    still = (await configured(both, budgets={"daily": None})).budgets["daily"]
    assert still == back, "the plan's is not the user's to take away"


@pytest.mark.parametrize("how", ["none", "difference"])
async def test_the_next_plan_replaces_the_last_plans_and_goes_on_with_what_is_used(both: Town, how: Any) -> None:
    await plan(both, "basic", budgets=DAY, rate_limits=RPM)
    larger = {**DAY["daily"], "limit": 40}
    await plan(both, "pro", budgets={"daily": larger, "monthly": {"limit": 90, "window": "month"}})
    await plan(both, "bare")
    done(await both.meter.subscribe("u", "basic"))
    (await configured(both, rate_limits={"open": {"kind": "concurrent", "limit": 3}}))
    await spends(both, 6)
    done(await both.meter.upgrade("u", "pro", proration=how))
    found = await user(both)
    assert {name: (one.limit, one.used) for name, one in found.budgets.items()} == {
        "daily": (40, 6),
        "monthly": (90, 0),
    }
    assert list(found.rate_limits) == ["open"]
    done(await both.meter.upgrade("u", "bare", proration=how))
    found = await user(both)
    assert (found.budgets, list(found.rate_limits)) == ({}, ["open"])


async def test_a_changed_plan_counts_from_the_next_period(both: Town) -> None:
    await plan(both, "basic", budgets=DAY)
    row = done(await both.meter.subscribe("u", "basic"))
    smaller = {"daily": {**DAY["daily"], "limit": 5}}
    done(await both.meter.update_plan("basic", "basic", 100, 10, "monthly", budgets=smaller))
    assert (await budget(both)).limit == 10
    await both.set_time(row.next_period_at)
    await both.allocate()
    assert (await budget(both)).limit == 5


async def test_it_ends_with_the_subscription(both: Town) -> None:
    await plan(both, "basic", budgets=DAY)
    done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.unsubscribe("u"))
    assert (await user(both)).budgets == {}
    done(await both.meter.subscribe("u", "basic"))
    assert (await budget(both)).limit == 10


async def test_a_rule_of_a_plan_says_all_that_it_needs(both: Town) -> None:
    """A change of a user's may leave out what stays; of a plan nothing stays. A budget of requests is whole."""

    async def refused(**rules: Any) -> set[str]:
        return pointers(await both.meter.create_plan("p", 1, 1, "monthly", **rules))

    halves = {"b": {"limit": 0.5, "window": "day", "unit": "requests"}}
    assert await refused(budgets=halves) == {"/budgets/b/limit"}
    missing = {"budgets": {"a": {"limit": 1}, "n": {"limit": None, "window": "day"}}}
    found = await refused(**missing, rate_limits={"c": {"kind": "requests"}, "d": {"limit": 1}})
    assert found == {"/budgets/a/window", "/budgets/n/limit", "/rate_limits/c/limit", "/rate_limits/d/kind"}


async def test_a_budget_by_the_period_of_the_subscription(both: Town) -> None:
    """Its window is the period: over an upgrade that begins one, and over the end of the subscription."""
    await plan(both, "basic", budgets={"p": {"limit": 10, "window": "period"}})
    await plan(both, "pro", budgets={"p": {"limit": 20, "window": "period"}})
    row = done(await both.meter.subscribe("u", "basic"))
    await spends(both, 7)
    found = await budget(both, "p")
    assert (found.used, found.resets_at) == (7, row.next_period_at)
    await both.set_time(row.next_period_at - timedelta(milliseconds=1))
    assert refusal(await both.meter.deduct("u", 4)).code == "BUDGET_REACHED"
    await both.set_time(row.next_period_at)  # no job has run: Redis knows the periods
    done(await both.meter.add("u", 100))
    await spends(both, 8)
    second = await budget(both, "p")
    assert second.used == 8 and second.resets_at is not None and second.resets_at > row.next_period_at
    await both.set_time(row.next_period_at + timedelta(days=3))
    await both.allocate()
    fresh = done(await both.meter.upgrade("u", "pro", proration="none"))
    third = await budget(both, "p")
    assert (third.limit, third.used, third.resets_at) == (20, 0, fresh.next_period_at)


async def test_a_users_own_budget_by_the_period_needs_a_subscription(both: Town) -> None:
    own = {"p": {"limit": 10, "window": "period"}}
    done(await both.meter.add("u", 100))
    assert pointers(await both.meter.configure("u", budgets=own)) == {"/budgets/p/window"}
    await plan(both, "bare")
    row = done(await both.meter.subscribe("u", "bare"))
    found = (await configured(both, budgets=own)).budgets["p"]
    assert (found.resets_at, found.source) == (row.next_period_at, "user")
    await spends(both, 7)
    done(await both.meter.unsubscribe("u"))
    assert (await budget(both, "p")).used == 7, "the last period goes on, as long as that was"
    fresh = done(await both.meter.subscribe("u", "bare"))
    assert (await budget(both, "p")).resets_at == fresh.next_period_at


async def test_what_could_not_be_told_is_told_later(both: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """And older news that comes late changes nothing."""
    await plan(both, "basic", budgets=DAY)
    await plan(both, "pro", budgets={"daily": {**DAY["daily"], "limit": 40}})
    kept = effects.Effects._run

    async def away(self: effects.Effects, errand: Any) -> None:
        if errand.kind != effects.RULES:
            await kept(self, errand)

    monkeypatch.setattr(effects.Effects, "_run", away)
    done(await both.meter.subscribe("u", "basic"))
    done(await both.meter.upgrade("u", "pro"))
    assert (await user(both)).budgets == {}
    monkeypatch.setattr(effects.Effects, "_run", kept)
    await both.allocate()
    assert (await budget(both)).limit == 40
    late = plan_rules.telling("u", "default", 1, "daily,1:1,day,UTC,e,c,-,- -", [0, 1])
    await both.engine.run_many(both.engine.partition_of("u"), late)
    assert (await budget(both)).limit == 40


async def test_a_rebuild_and_a_reconciliation_know_them() -> None:
    async with town(START) as at:
        await plan(at, "basic", budgets={**DAY, "p": {"limit": 50, "window": "period"}}, rate_limits=RPM)
        done(await at.meter.subscribe("u", "basic"))
        await configured(at, budgets={"daily": {"limit": 30}})
        await spends(at, 6)
        before = await user(at)
        await at.flush()
        assert await drifts(at) == {}
        await rebuilt(at)
        assert await user(at) == before
        back = (await configured(at, budgets={"daily": None})).budgets["daily"]
        assert (back.limit, back.used, back.source) == (10, 6, "plan"), "what waited behind the user's own is there"
        await at.flush()
        assert await drifts(at) == {}
        await at.engine.run("u", upkeep.plan_rules("u", "default", 9, "daily,1:1,day,UTC,e,c,-,- -", [0, 1]))
        await at.flush()
        assert await drifts(at) == {"u": ["plan_rules"]}


async def test_nobody_pays_for_it_before_a_plan_says_something() -> None:
    async with town(START) as at:
        await plan(at, "plain")
        done(await at.meter.subscribe("u", "plain"))
        assert await at.runtime.redis.field(at.engine.partitions[0].calendar, "p u") is None
        assert await at.runtime.redis.field(at.engine.partitions[0].meta, "rules") is None
