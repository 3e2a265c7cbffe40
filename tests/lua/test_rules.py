"""Reading the rules of an account: lua/operations/rules.lua."""

from __future__ import annotations

from typing import Any

import pytest

from meter.engine.operations import commit, configure, deduct, grant, refund, release, reserve
from meter.engine.outbox import Entry
from meter.engine.rules import Budget, RateLimit, read_rule
from meter.engine.upkeep import rules
from tests.lua.levels import budget, none, rate
from tests.partition import DAY, HOUR, MINUTE, T0, Partition, dump


def _counters(entry: Entry) -> Any:
    return entry.detail["counters"]


def _budget(partition: Partition, user: str) -> Budget:
    [found] = [one for (word,) in partition.run(rules(user)).items if isinstance(one := read_rule(word), Budget)]
    return found


def test_of_an_account_without_rules(partition: Partition) -> None:
    answer = partition.run(rules("u"))
    assert (answer.status, answer["charged"], answer.items) == ("ok", 0, ())


def test_it_tells_what_moved_and_changes_nothing(partition: Partition) -> None:
    partition.batch(
        grant("t/a", "g", 100), budget("t", 50), deduct("t/a", 7), reserve("t/a", "r", 5, HOUR, chosen=True)
    )
    before = dump(partition.client)
    answer = partition.run(rules("t"))
    assert [answer[name] for name in ("charged", "held", "holds", "requests")] == [7, 5, 1, 2]
    assert dump(partition.client) == before


def test_an_entry_tells_the_counters_behind_it(partition: Partition) -> None:
    """What the flush keeps: their values, and the terms where they changed."""
    partition.batch(grant("t/a", "g", 100), budget("t", 50))
    since = partition.entries()[-1].seq
    [[level, *numbers, terms]] = _counters(partition.entries()[-1])
    assert (level, numbers, terms) == ("t", [0, 0, 0, 0], partition.client.hget(partition.keys.rules, "t").decode())
    partition.run(deduct("t/a", 7))
    assert _counters(partition.entries()[-1]) == [["t", 7, 0, 0, 1]]
    partition.run(reserve("t/a", "r", 5, HOUR, chosen=True))
    assert _counters(partition.entries()[-1]) == [["t", 7, 5, 1, 2]]
    partition.freeze(T0 + DAY)
    partition.run(deduct("t/a", 1))
    released, charged = map(_counters, partition.entries()[-2:])
    assert (released, charged) == ([["t", 7, 0, 0, 1, released[0][5]]], [["t", 8, 0, 0, 2]])
    assert terms.startswith(f"{since} -") and _budget(partition, "t").base == 7
    partition.run(none("t"))
    assert _counters(partition.entries()[-1]) == [["t", 0, 0, 0, 0, ""]]


def test_a_clock_that_goes_back_opens_no_window_again(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), budget("u", 5), deduct("u", 4))
    partition.freeze(T0 + DAY)
    partition.run(deduct("u", 3))
    partition.freeze(T0)
    assert partition.run(deduct("u", 3)).status == "budget_reached"
    assert partition.run(deduct("u", 2)).status == "ok"
    assert partition.run(rules("u"))["charged"] - _budget(partition, "u").base == 5


def test_a_clock_that_goes_back_lets_one_through_and_the_bucket_drains_by_the_new_time(partition: Partition) -> None:
    """Also while it refuses, which writes nothing: it refused until the old time had come."""
    partition.freeze(T0 + DAY)
    partition.batch(grant("u", "g", 100), rate("u", 2), deduct("u", 1), deduct("u", 1))
    assert partition.run(deduct("u", 1)).status == "rate_limited"
    partition.freeze(T0)
    assert [partition.run(deduct("u", 1)).status for _ in range(2)] == ["ok", "rate_limited"]
    partition.freeze(T0 + MINUTE // 2)
    assert [partition.run(deduct("u", 1)).status for _ in range(2)] == ["ok", "rate_limited"]


@pytest.mark.parametrize("back_ms", [1, MINUTE // 2, MINUTE])
def test_a_clock_that_goes_back_a_little_refuses_no_longer_than_the_bucket_holds(
    partition: Partition, back_ms: int
) -> None:
    partition.freeze(T0 + DAY)
    partition.batch(grant("u", "g", 100), rate("u", 2), deduct("u", 1))
    now_ms = T0 + DAY - back_ms
    partition.freeze(now_ms)
    passed = [partition.run(deduct("u", 1)).status for _ in range(3)].count("ok")
    assert passed <= 1
    partition.freeze(now_ms + 2 * MINUTE)
    assert [partition.run(deduct("u", 1)).status for _ in range(4)] == ["ok", "ok", "rate_limited", "rate_limited"]


@pytest.mark.parametrize("action", ["r", "s"])
def test_a_clock_that_goes_back_arms_a_breaker_which_trips_again_by_the_new_time(
    partition: Partition, action: str
) -> None:
    """It stayed tripped until the old time had come, or was armed and never tripped before that."""
    refused = {"r": "rate_limited", "s": "suspended"}[action]
    partition.freeze(T0 + DAY)
    partition.batch(grant("u", "g", 100), configure("u", velocity=f"10,{HOUR},{action},{HOUR}"), deduct("u", 11))
    assert partition.run(deduct("u", 1)).status == refused
    partition.freeze(T0)
    assert [partition.run(deduct("u", amount)).status for amount in (1, 9, 1, 1)] == ["ok", "ok", "ok", refused]
    partition.freeze(T0 + 3 * HOUR)
    assert partition.run(deduct("u", 1)).status == "ok"


def test_what_is_charged_at_the_end_of_a_hold_is_of_the_window_of_that_end(partition: Partition) -> None:
    ends = T0 - T0 % DAY + DAY
    partition.freeze(ends - HOUR)
    partition.batch(
        grant("u", "g", 100),
        budget("u", 50),
        reserve("u", "before", 5, HOUR - 1, chosen=True, at_end="charge"),
        reserve("u", "behind", 7, HOUR, chosen=True, at_end="charge"),
    )
    partition.freeze(ends + MINUTE)
    answer = partition.run(rules("u"))
    assert (answer["charged"], answer["held"], answer["charged"] - _budget(partition, "u").base) == (12, 0, 7)


def test_a_refund_of_an_at_end_charge_and_of_one_before_the_level_counted(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), deduct("u", 9))
    old = partition.entries()[-1]
    partition.batch(budget("u", 50), deduct("u", 4))
    new = partition.entries()[-1]
    for entry in (old, new):
        draws = tuple((draw.grant_id, draw.amount) for draw in entry.draws)
        when = (entry.created_at_ms, entry.seq)
        one = refund("u", entry.transaction_id, 3, charged=entry.amount, refunded=0, draws=draws)
        partition.run((*one[:-2], *map(str, when)))
    assert partition.run(rules("u"))["charged"] == 1


def test_rate_limits_are_told(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), rate("u", 2))
    [(word,)] = partition.run(rules("u")).items
    found = read_rule(word)
    assert isinstance(found, RateLimit) and (found.kind, found.limit, found.per_ms, found.burst) == (
        "requests",
        2,
        60_000,
        0,  # its limit
    )


def test_a_release_gives_the_request_back_and_a_commit_keeps_it(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), budget("u", 50))
    for hold in ("r", "s"):
        partition.run(reserve("u", hold, 1, HOUR, chosen=True))
    partition.batch(commit("r", 0), release("s"))
    assert partition.run(rules("u"))["requests"] == 1


def test_a_suspension_alone_counts_nothing(partition: Partition) -> None:
    partition.batch(grant("t/a", "g", 100), configure("t", suspended=True), configure("t", suspended=False))
    assert partition.fields("rules") == {}
    assert partition.run(deduct("t/a", 1)).status == "ok"
