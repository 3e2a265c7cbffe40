"""Subscriptions: assign, change now or later, end, and what each does to the credits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

from tests.plans.conftest import START
from tests.plans.town import Town, days, done, pointers, refusal

END = START.replace(month=2, day=28)


async def test_a_plan_is_assigned_once_and_grants_its_limit(both: Town) -> None:
    await both.plan("pro")
    first = done(await both.meter.subscribe("u", "pro", time_zone="Europe/Berlin"))
    assert (first.state, first.period, first.period_started_at, first.next_period_at) == ("active", 0, START, END)
    assert done(await both.meter.subscribe("u", "pro")) == first
    assert await both.available() == 100
    assert done(await both.meter.subscriptions("u")).items == [first]
    grant = done(await both.meter.grants("u")).items[0]
    assert (grant.source, grant.amount) == ("plan:pro", Decimal(100))
    assert grant.expires_at == END
    await both.plan("team")
    assert refusal(await both.meter.subscribe("u", "team")).code == "SUBSCRIPTION_EXISTS"


async def test_racing_assignments_make_one_subscription(here: Town) -> None:
    await here.plan("pro")
    answers = await asyncio.gather(*(here.meter.subscribe("u", "pro") for _ in range(20)))
    assert len({done(answer).subscription_id for answer in answers}) == 1
    assert await here.available() == 100
    assert await here.kinds() == [("grant", 100)]


async def test_credits_of_a_plan_burn_by_its_priority_and_debt_is_paid_first(here: Town) -> None:
    done(await here.meter.configure("u", overdraft_limit=30))
    done(await here.meter.deduct("u", 30, shortfall="overdraft"))
    await here.plan("pro")
    done(await here.meter.subscribe("u", "pro"))
    balance = done(await here.meter.balance("u"))
    assert (balance.available, balance.debt) == (Decimal(70), Decimal(0))


async def test_plan_credits_are_spent_first_and_only_their_rest_expires(both: Town) -> None:
    """100 of a plan and 50 bought, 80 spent, the plan's part expires: 50 are left (SEED_CHECKLIST B5)."""
    await both.plan("pro")
    done(await both.meter.subscribe("u", "pro", auto_renew=False))
    done(await both.meter.add("u", 50))
    done(await both.meter.deduct("u", 80))
    assert await both.available() == 70
    await both.set_time(END)
    assert await both.available() == 50
    await both.sweep()
    assert (await both.kinds())[-1] == ("grant_expired", 20)


async def test_what_is_due_can_be_ended_by_hand(both: Town) -> None:
    for n in range(220):
        done(await both.meter.add(f"u{n}", 5, expires_at=START + days(1)))
    assert done(await both.meter.expire()).transactions == 0
    await both.set_time(START + days(1))
    first, second, third = [done(await both.meter.expire()) for _ in range(3)]
    assert [(one.transactions, one.more) for one in (first, second, third)] == [(200, True), (20, False), (0, False)]
    assert await both.kinds("u7") == [("grant", 5), ("grant_expired", 5)]


async def test_credits_expire_after_the_validity_days(both: Town) -> None:
    done(await both.meter.create_plan("P", 100, 1, "monthly", plan_id="p", validity_days=7))
    done(await both.meter.subscribe("u", "p"))
    await both.set_time(START + days(7) - days(1) / 86_400_000)
    assert await both.available() == 100
    await both.set_time(START + days(7))
    assert await both.available() == 0
    await both.set_time(END + days(8))  # the job comes when the next period's credits have ended as well
    assert await both.allocate() == 1
    assert await both.available() == 0


async def test_credits_that_outlive_their_period_add_up(here: Town) -> None:
    done(await here.meter.create_plan("P", 100, 1, "monthly", plan_id="p", validity_days=60))
    done(await here.meter.subscribe("u", "p"))
    await here.set_time(END)
    await here.allocate()
    assert await here.available() == 200


async def test_an_upgrade_now_begins_a_period_and_voids_the_old_rest(both: Town) -> None:
    await both.plan("pro")
    await both.plan("team", 500)
    before = done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.deduct("u", 30))
    await both.set_time(START + days(10))
    row = done(await both.meter.upgrade("u", "team"))
    assert (row.plan_id, row.period, row.period_started_at) == ("team", 0, START + days(10))
    assert row.subscription_id != before.subscription_id
    assert await both.available() == 500
    assert done(await both.meter.upgrade("u", "team")) == row
    assert await both.kinds() == [("grant", 100), ("deduct", 30), ("void", 70), ("grant", 500)]


async def test_an_upgrade_by_the_difference_grants_the_part_that_is_left(both: Town) -> None:
    await both.plan("pro")
    await both.plan("team", 380)
    row = done(await both.meter.subscribe("u", "pro"))
    await both.set_time(START + days(14))  # of 28
    changed = done(await both.meter.upgrade("u", "team", proration="difference"))
    assert (changed.plan_id, changed.next_period_at) == ("team", row.next_period_at)
    assert await both.available() == 240
    done(await both.meter.upgrade("u", "team", proration="difference"))
    assert await both.available() == 240
    done(await both.meter.upgrade("u", "pro", proration="difference"))  # down again: nothing is taken back
    assert await both.available() == 240
    await both.set_time(END)
    await both.allocate()
    assert await both.available() == 100


async def test_a_downgrade_at_the_period_end_waits_and_can_be_taken_back(both: Town) -> None:
    await both.plan("team", 500)
    await both.plan("pro", 100, "yearly")
    done(await both.meter.subscribe("u", "team"))
    assert done(await both.meter.upgrade("u", "pro", when="period_end")).next_plan_id == "pro"
    assert done(await both.meter.upgrade("u", "team")).next_plan_id is None
    done(await both.meter.upgrade("u", "pro", when="period_end"))
    assert await both.available() == 500
    await both.set_time(END)
    assert await both.allocate() == 1
    row = done(await both.meter.subscriptions("u")).items[0]
    assert (row.plan_id, row.period, row.next_period_at) == ("pro", 0, END.replace(year=2031))
    assert await both.available() == 100


async def test_removal_says_what_becomes_of_the_unspent(both: Town) -> None:
    await both.plan("pro")
    for user in ("stay", "void", "later-stay", "later-void"):
        done(await both.meter.subscribe(user, "pro"))
        done(await both.meter.add(user, 5))
        when, unspent = "period_end" if "later" in user else "now", user.rpartition("-")[2]
        first = done(await both.meter.unsubscribe(user, when=when, unspent=unspent))  # type: ignore[arg-type]
        assert first.state == ("active" if "later" in user else "ended")
        assert first.auto_renew == ("later" not in user)
        again = done(await both.meter.unsubscribe(user, when=when, unspent=unspent))  # type: ignore[arg-type]
        assert again.state == first.state
    assert [await both.available(user) for user in ("stay", "void", "later-void")] == [105, 5, 105]
    await both.set_time(END)
    assert await both.allocate() == 2
    for user in ("stay", "void", "later-stay", "later-void"):
        assert done(await both.meter.subscriptions(user)).items[0].state == "ended"
        assert await both.available(user) == 5
    assert await both.allocate() == 0


async def test_void_at_the_period_end_takes_what_would_outlive_it(here: Town) -> None:
    done(await here.meter.create_plan("P", 100, 1, "monthly", plan_id="p", validity_days=90))
    for user, unspent in (("a", "stay"), ("b", "void")):
        done(await here.meter.subscribe(user, "p"))
        done(await here.meter.unsubscribe(user, when="period_end", unspent=unspent))  # type: ignore[arg-type]
    await here.set_time(END)
    await here.allocate()
    assert [await here.available(user) for user in "ab"] == [100, 0]


async def test_without_renewal_the_subscription_ends_and_can_begin_anew(here: Town) -> None:
    await here.plan("pro")
    first = done(await here.meter.subscribe("u", "pro", auto_renew=False))
    await here.set_time(END)
    assert await here.allocate() == 1
    assert await here.available() == 0
    second = done(await here.meter.subscribe("u", "pro"))
    assert second.subscription_id != first.subscription_id
    assert await here.available() == 100


async def test_groups_are_subscriptions_of_their_own(here: Town) -> None:
    await here.plan("pro")
    done(await here.meter.create_plan("Extra", 7, 1, "daily", plan_id="extra", plan_group="extra"))
    done(await here.meter.subscribe("u", "pro"))
    done(await here.meter.subscribe("u", "extra"))
    assert await here.available() == 107
    page = done(await here.meter.subscriptions("u", limit=1))
    rest = done(await here.meter.subscriptions("u", limit=1, cursor=page.next_cursor or ""))
    assert [row.plan_group for row in (*page.items, *rest.items)] == ["default", "extra"]
    assert refusal(await here.meter.unsubscribe("u", plan_group="none")).code == "SUBSCRIPTION_NOT_FOUND"


async def test_an_anchor_in_the_past_sets_the_day_and_none_in_the_future_is_taken(here: Town) -> None:
    await here.plan("pro")
    row = done(await here.meter.subscribe("u", "pro", anchor_at=datetime(2029, 12, 15, tzinfo=UTC)))
    assert (row.period, row.next_period_at) == (1, datetime(2030, 2, 15, tzinfo=UTC))
    assert await here.available() == Decimal(100)
    assert pointers(await here.meter.subscribe("v", "pro", anchor_at=START + days(1))) == {"/anchor_at"}


async def test_p18_who_has_a_plan_that_was_withdrawn_or_was_promised_it_goes_on_as_before(both: Town) -> None:
    """Rule 4: `auto_renew` is set, a change that was to come is taken back, a promise is asked for again."""
    for plan_id in ("pro", "team", "coming"):
        await both.plan(plan_id)
    done(await both.meter.subscribe("u", "pro"))
    done(await both.meter.upgrade("u", "coming", when="period_end"))
    for plan_id in ("pro", "coming", "team"):
        done(await both.meter.delete_plan(plan_id))

    assert done(await both.meter.subscribe("u", "pro", auto_renew=False)).auto_renew is False
    assert done(await both.meter.upgrade("u", "coming", when="period_end")).next_plan_id == "coming"
    for plan_id in ("coming", "team"):
        assert refusal(await both.meter.upgrade("u", plan_id)).code == "PLAN_NOT_FOUND"
    assert refusal(await both.meter.upgrade("u", "team", when="period_end")).code == "PLAN_NOT_FOUND"
    assert refusal(await both.meter.subscribe("u", "team")).code == "PLAN_NOT_FOUND"
    assert done(await both.meter.upgrade("u", "pro")).next_plan_id is None
    done(await both.meter.unsubscribe("u"))
    assert refusal(await both.meter.subscribe("u", "pro")).code == "PLAN_NOT_FOUND"
    assert refusal(await both.meter.upgrade("u", "pro")).code == "PLAN_NOT_FOUND"


async def test_p4_a_call_after_more_periods_than_one_step_gives_still_acts_on_the_present_one(here: Town) -> None:
    """Rule 1, and 600 periods of a day that nobody looked at, all of which live: a step gives 500 of them at most."""
    done(await here.meter.create_plan("Tiny", 1, 1, "daily", plan_id="tiny", validity_days=700))
    await here.plan("other", 5, "daily")
    done(await here.meter.subscribe("u", "tiny"))
    await here.set_time(START + days(600.5))
    row = done(await here.meter.upgrade("u", "other", proration="difference"))
    assert (row.period, row.period_started_at) == (600, START + days(600))
    assert await here.available() == 601 + 2  # 1 a day, and half a day of 5 less half a day of 1
