"""Alerts, decided in the same script call as the balance that fires them: lua/state/alert.lua."""

from __future__ import annotations

from itertools import pairwise

import pytest

from meter.engine.operations import (
    balance,
    commit,
    configure,
    deduct,
    extend,
    grant,
    release,
    reserve,
    void,
)
from meter.engine.upkeep import expire
from tests.partition import DAY, HOUR, T0, Partition


def alerts(partition: Partition) -> list[tuple[str, str, int]]:
    """(kind of transaction, alert, threshold) of the whole outbox."""
    return [
        (entry.kind, *alert)
        for entry in partition.entries()
        for alert in entry.detail.get("alerts", [])  # type: ignore[attr-defined]
    ]


@pytest.fixture
def watched(partition: Partition) -> Partition:
    """100 credits that end in a day, thresholds 50 and 10."""
    partition.run(grant("u", "g", 100, expires_at_ms=T0 + DAY))
    partition.run(configure("u", thresholds=(50, 10)))
    return partition


def test_each_threshold_fires_once_at_or_below_it(watched: Partition) -> None:
    for amount in (49, 1, 1, 38, 1, 5):
        watched.run(deduct("u", amount))

    assert alerts(watched) == [("deduct", "low_credits", 50), ("deduct", "low_credits", 10)]
    assert [entry.available for entry in watched.entries() if "alerts" in entry.detail] == [50, 10]


def test_one_charge_can_cross_several(watched: Partition) -> None:
    watched.run(deduct("u", 100))

    assert alerts(watched) == [
        ("deduct", "low_credits", 50),
        ("deduct", "low_credits", 10),
        ("deduct", "credits_exhausted", 0),
    ]


def test_marks_are_ours_alone(watched: Partition) -> None:
    answer = watched.run(deduct("u", 60))
    assert answer.status == "ok"
    assert watched.run(balance("u"))["low_credit_thresholds"] == "50,10"
    watched.run(deduct("u", 40))
    assert watched.run(balance("u"))["low_credit_thresholds"] == "50,10"
    assert watched.run(configure("u", overdraft_limit=1))["low_credit_thresholds"] == "50,10"
    assert watched.entries()[-1].detail["low_credit_thresholds"] == "50,10"
    assert watched.run(configure("u", thresholds=()))["low_credit_thresholds"] == "-"
    assert watched.entries()[-1].detail["low_credit_thresholds"] == "-"


def test_what_is_low_already_is_not_told(partition: Partition) -> None:
    partition.run(grant("u", "g", 30))
    partition.run(configure("u", thresholds=(50, 10)))
    partition.run(deduct("u", 1))
    partition.run(deduct("u", 20))

    assert alerts(partition) == [("deduct", "low_credits", 10)]


def test_armed_again_only_when_a_tenth_above_it_is_available(watched: Partition) -> None:
    watched.run(deduct("u", 50))
    watched.run(grant("u", "h", 5))
    watched.run(deduct("u", 5))
    assert len(alerts(watched)) == 1
    watched.run(grant("u", "i", 6))
    watched.run(deduct("u", 6))
    assert alerts(watched) == [("deduct", "low_credits", 50)] * 2


def test_expiry_alone_fires(watched: Partition) -> None:
    watched.freeze(T0 + DAY)
    watched.run(expire("u"))

    assert [alert for _, alert, _ in alerts(watched)] == ["low_credits", "low_credits", "credits_exhausted"]
    assert {kind for kind, _, _ in alerts(watched)} == {"grant_expired"}


@pytest.mark.parametrize("way", ["reserve", "extend", "void", "commit"])
def test_every_way_down_fires(watched: Partition, way: str) -> None:
    if way == "void":
        watched.run(void("u", "g"))
    elif way == "reserve":
        watched.run(reserve("u", "r", 100, HOUR, chosen=True))
    else:
        watched.run(reserve("u", "r", 10, HOUR, chosen=True))
        watched.run(extend("r", HOUR, 90) if way == "extend" else commit("r", 100))

    assert [one[1:] for one in alerts(watched)] == [("low_credits", 50), ("low_credits", 10), ("credits_exhausted", 0)]
    assert {kind for kind, _, _ in alerts(watched)} == {way}


def test_exhaustion_is_told_once_while_holds_come_and_go(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    for n in range(3):
        partition.run(reserve("u", f"r{n}", 100, HOUR, chosen=True))
        partition.run(release(f"r{n}"))
    assert [alert for _, alert, _ in alerts(partition)] == ["credits_exhausted"]
    partition.run(deduct("u", 100))
    partition.run(grant("u", "h", 1))
    partition.run(deduct("u", 1))
    assert [alert for _, alert, _ in alerts(partition)] == ["credits_exhausted"] * 2


def test_a_refund_arms_exhaustion_again(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    charge = partition.run(deduct("u", 100))["transaction_id"]
    partition.refund("u", charge, 10)
    partition.run(deduct("u", 10))

    assert [alert for _, alert, _ in alerts(partition)] == ["credits_exhausted"] * 2


def test_an_account_without_credits_is_not_exhausted(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=5))
    partition.run(grant("u", "later", 5, effective_at_ms=T0 + HOUR))
    partition.run(reserve("u", "r", 0, HOUR, chosen=True))
    partition.run(commit("r", 0))

    assert alerts(partition) == []


def test_what_a_hold_forfeits_arms_nothing(watched: Partition) -> None:
    """A release shows what goes back to an ended grant as available for one entry; that is no recovery."""
    watched.run(reserve("u", "r", 100, 2 * DAY, chosen=True))
    before = alerts(watched)
    watched.freeze(T0 + DAY)
    watched.run(release("r"))

    assert watched.kinds()[-2:] == ["release", "grant_expired"]
    assert alerts(watched) == before


def test_two_racing_charges_make_one_alert(watched: Partition) -> None:
    answers = watched.batch(deduct("u", 30), deduct("u", 30), deduct("u", 30))

    assert [answer.status for answer in answers] == ["ok"] * 3
    assert alerts(watched) == [("deduct", "low_credits", 50), ("deduct", "low_credits", 10)]


def test_thresholds_are_exact_up_to_the_largest_amount(partition: Partition) -> None:
    largest = 2**53 - 1
    partition.run(grant("u", "g", largest))
    partition.run(configure("u", thresholds=(largest - 1,)))
    partition.run(deduct("u", 1))
    assert alerts(partition) == [("deduct", "low_credits", largest - 1)]
    assert all(later.available <= before.available for before, later in pairwise(partition.entries()))
