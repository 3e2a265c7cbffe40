"""Renewals that do not come: lua/operations/lapse.lua, and what alerts wait for: lua/state/alert.lua."""

from __future__ import annotations

import pytest

from meter.engine.at_end import AtEnd
from meter.engine.operations import Operation, configure, deduct, grant, grants, reserve
from meter.engine.upkeep import expire, lapse
from tests.lua.test_alert import alerts
from tests.partition import DAY, HOUR, T0, Partition

WEEK = 7 * DAY


def period(number: int, group: str = "a", *, amount: int = 100, renews: bool = True) -> Operation:
    """The grant of a day."""
    at_end = AtEnd(plan_group=group, renews=renews)
    return grant("u", f"{group}.{number}", amount, expires_at_ms=T0 + (number + 1) * DAY, at_end=at_end)


@pytest.fixture
def subscribed(partition: Partition) -> Partition:
    """u has the 100 credits of a day, a threshold at 50, and is to be renewed when the day ends."""
    partition.run(configure("u", thresholds=(50,)))
    partition.run(period(0))
    partition.freeze(T0 + DAY)
    return partition


@pytest.mark.parametrize("first", [expire("u"), deduct("u", 1), reserve("u", "r", 1, HOUR, chosen=True), period(1)])
def test_nothing_is_told_of_an_end_that_a_renewal_follows(subscribed: Partition, first: Operation) -> None:
    subscribed.run(first)
    subscribed.run(period(1))

    assert alerts(subscribed) == []
    assert subscribed.kinds()[-2:] == ["grant_expired", "grant"]
    subscribed.run(deduct("u", 100))
    assert [alert for _, alert, _ in alerts(subscribed)] == ["low_credits", "credits_exhausted"]


def test_what_is_spent_while_a_renewal_is_waited_for_is_judged_with_it(subscribed: Partition) -> None:
    subscribed.freeze(T0)
    subscribed.run(grant("u", "bought", 100, priority=20))
    subscribed.freeze(T0 + DAY)
    subscribed.run(deduct("u", 95))
    assert alerts(subscribed) == []

    subscribed.run(period(1, amount=10))

    assert alerts(subscribed) == [("grant", "low_credits", 50)]


def test_a_renewal_that_comes_to_nothing_tells_it(subscribed: Partition) -> None:
    subscribed.run(configure("u", overdraft_limit=100))
    subscribed.run(deduct("u", 100, "overdraft"))
    subscribed.run(period(1))

    assert alerts(subscribed) == [("grant", "low_credits", 50), ("grant", "credits_exhausted", 0)]


def test_each_plan_group_is_waited_for(subscribed: Partition) -> None:
    subscribed.freeze(T0)
    subscribed.run(period(0, "b", amount=1))
    subscribed.freeze(T0 + DAY)
    subscribed.run(period(1, "b", amount=1))
    assert alerts(subscribed) == []
    subscribed.run(period(1, "c", amount=1))  # one that nobody waits for
    assert alerts(subscribed) == []
    subscribed.run(period(1))

    assert alerts(subscribed) == []


def test_a_rest_that_ends_in_the_same_moment_waits_too(partition: Partition) -> None:
    """Its id comes before that of the period's grant, in the order in which ends are settled."""
    partition.run(configure("u", thresholds=(60,)))
    partition.run(period(0, "z", amount=50))
    partition.run(grant("u", "a", 50, expires_at_ms=T0 + DAY))
    partition.freeze(T0 + DAY)
    partition.run(period(1, "z"))

    assert partition.kinds()[-3:] == ["grant_expired", "grant_expired", "grant"]
    assert alerts(partition) == []


def test_a_lapse_before_the_end_makes_it_an_end_like_any_other(subscribed: Partition) -> None:
    subscribed.freeze(T0)
    assert subscribed.run(lapse("u", "a.0")).status == "ok"
    assert subscribed.run(grants("u", "live", "", 9)).items[0][-1] == "!a"
    subscribed.freeze(T0 + DAY)
    subscribed.run(expire("u"))

    assert [alert for _, alert, _ in alerts(subscribed)] == ["low_credits", "credits_exhausted"]


def test_a_renewal_after_all_is_waited_for_where_the_grant_ends_with_its_period(subscribed: Partition) -> None:
    subscribed.freeze(T0)
    subscribed.run(lapse("u", "a.0"))
    for renews_at_ms, mark in ((T0 + DAY + 1, "!a"), (T0 + DAY, "@a"), (T0 + DAY, "@a")):
        assert subscribed.run(lapse("u", "a.0", renews_at_ms)).status == "ok"
        assert subscribed.run(grants("u", "live", "", 9)).items[0][-1] == mark
    subscribed.freeze(T0 + DAY)
    subscribed.run(expire("u"))

    assert alerts(subscribed) == []
    subscribed.run(lapse("u", "a.0", T0 + DAY))  # over: it has been waited for already
    assert alerts(subscribed) == []


def test_a_lapse_after_the_end_tells_what_waited_once(subscribed: Partition) -> None:
    subscribed.run(expire("u"))
    assert alerts(subscribed) == []

    answers = [subscribed.run(lapse("u", "a.0")) for _ in range(2)]

    assert [(answer.status, answer.balances) for answer in answers] == [("ok", (0, 0, 0))] * 2
    assert alerts(subscribed) == [("account", "low_credits", 50), ("account", "credits_exhausted", 0)]
    assert subscribed.entries()[-1].detail["low_credit_thresholds"] == "50"
    assert subscribed.kinds().count("account") == 2


def test_a_lapse_of_what_is_renewed_or_was_never_there_changes_nothing(subscribed: Partition) -> None:
    subscribed.run(period(1))
    before = subscribed.kinds()
    for name in ("a.0", "nothing"):
        assert subscribed.run(lapse("u", name)).status == "ok"

    assert (subscribed.kinds(), alerts(subscribed)) == (before, [])


def test_thresholds_can_be_changed_while_a_renewal_is_waited_for(subscribed: Partition) -> None:
    subscribed.run(expire("u"))
    assert subscribed.run(configure("u", thresholds=(70, 5)))["low_credit_thresholds"] == "70,5"
    subscribed.run(period(1))
    subscribed.run(deduct("u", 40))

    assert alerts(subscribed) == [("deduct", "low_credits", 70)]


def test_nobody_waits_for_ever(subscribed: Partition) -> None:
    subscribed.freeze(T0 + DAY)
    subscribed.run(expire("u"))
    subscribed.freeze(T0 + DAY + WEEK + 1)
    subscribed.run(grant("u", "bought", 10))

    assert alerts(subscribed) == [("grant", "low_credits", 50)]
