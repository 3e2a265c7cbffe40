"""Spending in one step: lua/operations/deduct.lua."""

from __future__ import annotations

from typing import Any

import pytest

from meter.engine.operations import balance, configure, deduct, grant, reserve
from meter.engine.upkeep import rules
from tests.invariants import AMOUNT_MAX
from tests.lua.levels import budget, rate
from tests.partition import DAY, HOUR, T0, Partition, dump


def test_a_deduct_takes_what_it_asks_for(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))

    answer = partition.run(deduct("u", 30))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["amount"], answer["taken"], answer["uncovered"]) == ("u", 30, 30, 0)
    assert answer.balances == (70, 0, 0)
    entry = partition.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, entry.detail) == ("deduct", 30, {})
    assert [(draw.grant_id, draw.amount, draw.remaining) for draw in entry.draws] == [("g", 30, 70)]


def test_the_last_unit_can_be_spent_and_no_more(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    assert partition.run(deduct("u", 100)).balances == (0, 0, 0)
    before = dump(partition.client)

    answer = partition.run(deduct("u", 1))

    assert answer.status == "insufficient"
    assert (answer["user_id"], answer["required"], answer.balances) == ("u", 1, (0, 0, 0))
    assert dump(partition.client) == before


@pytest.mark.parametrize("shortfall", ["reject", "partial", "overdraft"])
def test_a_refusal_of_an_unknown_user_stores_nothing(partition: Partition, shortfall: str) -> None:
    before = dump(partition.client)

    assert partition.run(deduct("nobody", 1, shortfall)).status == "insufficient"
    assert dump(partition.client) == before


@pytest.mark.parametrize("shortfall", ["reject", "partial", "overdraft"])
def test_zero_is_a_probe_that_writes_nothing(partition: Partition, shortfall: str) -> None:
    before = dump(partition.client)

    answer = partition.run(deduct("u", 0, shortfall))

    assert answer.status == "ok"
    assert (answer["transaction_id"], answer["taken"]) == ("-", 0)
    assert dump(partition.client) == before


def test_what_is_reserved_cannot_be_spent(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 60, HOUR, chosen=True))

    assert partition.run(deduct("u", 41)).status == "insufficient"
    assert partition.run(deduct("u", 40)).balances == (0, 60, 0)


@pytest.mark.parametrize(("amount", "taken", "uncovered"), [(30, 30, 0), (50, 50, 0), (80, 50, 30)])
def test_partial_takes_what_is_there(partition: Partition, amount: int, taken: int, uncovered: int) -> None:
    partition.run(grant("u", "g", 50))

    answer = partition.run(deduct("u", amount, "partial"))

    assert (answer.status, answer["taken"], answer["uncovered"]) == ("ok", taken, uncovered)
    entry = partition.entries()[-1]
    assert entry.amount == taken
    alerts = {} if taken < 50 else {"alerts": [["credits_exhausted", 0]]}
    assert entry.detail == ({"uncovered": uncovered} if uncovered else {}) | alerts


def test_partial_of_nothing_is_refused(partition: Partition) -> None:
    partition.run(grant("u", "g", 50))
    partition.run(deduct("u", 50))

    assert partition.run(deduct("u", 1, "partial")).status == "insufficient"


def test_partial_never_goes_into_debt(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=100))
    partition.run(grant("u", "g", 50))

    assert partition.run(deduct("u", 80, "partial")).balances == (0, 0, 0)


def test_overdraft_goes_to_the_limit_and_no_further(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=20))
    partition.run(grant("u", "g", 50))

    assert partition.run(deduct("u", 71, "overdraft")).status == "insufficient"
    answer = partition.run(deduct("u", 65, "overdraft"))
    assert (answer["taken"], answer["uncovered"], answer.balances) == (65, 0, (0, 0, 15))
    assert partition.run(deduct("u", 6, "overdraft")).status == "insufficient"
    assert partition.run(deduct("u", 5, "overdraft")).balances == (0, 0, 20)
    assert partition.run(deduct("u", 1, "reject")).status == "insufficient"


def test_overdraft_without_need_is_a_plain_deduct(partition: Partition) -> None:
    partition.run(grant("u", "g", 50))

    assert partition.run(deduct("u", 50, "overdraft")).balances == (0, 0, 0)


@pytest.mark.parametrize("amount", [0, 1])
def test_a_suspended_account_spends_nothing(partition: Partition, amount: int) -> None:
    partition.run(grant("u", "g", 50))
    partition.run(configure("u", suspended=True))

    assert partition.run(deduct("u", amount)).status == "suspended"
    partition.run(configure("u", suspended=False))
    assert partition.run(deduct("u", amount)).status == "ok"


def test_the_sum_of_all_charges_stays_exact(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=10))
    partition.run(grant("u", "g", AMOUNT_MAX))
    assert partition.run(deduct("u", AMOUNT_MAX)).balances == (0, 0, 0)

    assert partition.run(deduct("u", 1, "overdraft")).status == "overflow"


def test_a_full_outbox_stops_spending_and_not_probing(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(deduct("u", 1))
    partition.outbox_max = 2
    before = dump(partition.client)

    answer = partition.run(deduct("u", 1))

    assert answer.status == "outbox_full"
    assert partition.run(deduct("u", 0)).status == "ok"
    assert dump(partition.client) == before
    partition.outbox_max = 3
    assert partition.run(deduct("u", 1)).status == "ok"


_BURN_ORDER: dict[str, list[dict[str, Any]]] = {
    "priority first": [{"priority": 1}, {"priority": 2, "expires_at_ms": T0 + 1}, {"priority": 10}],
    "then the earlier end": [{"expires_at_ms": T0 + 10}, {"expires_at_ms": T0 + 11}, {}],
    "then the earlier start": [{"effective_at_ms": T0 - 2}, {"effective_at_ms": T0 - 1}, {}],
    "priority counts as a number": [{"priority": 9}, {"priority": 10}, {"priority": 999_999}],
}


@pytest.mark.parametrize("attributes", _BURN_ORDER.values(), ids=_BURN_ORDER)
@pytest.mark.parametrize("arrival", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_burn_order(partition: Partition, attributes: list[dict[str, Any]], arrival: tuple[int, ...]) -> None:
    for n in arrival:
        partition.run(grant("u", f"{'zyx'[n]}", 10, **attributes[n]))

    assert list(partition.remaining("u")) == ["z", "y", "x"]
    for left in ([9, 10, 10], [0, 9, 10], [0, 0, 9]):
        partition.run(deduct("u", 1 if left[0] else 10))
        assert [partition.remaining("u")[name] for name in "zyx"] == left


def test_what_was_created_first_burns_first(partition: Partition) -> None:
    partition.run(grant("u", "b", 10, effective_at_ms=T0 - 1))
    partition.freeze(T0 + 1)
    partition.run(grant("u", "a", 10, effective_at_ms=T0 - 1))

    assert [draw.grant_id for draw in _draws_of(partition, 11)] == ["b", "a"]


def test_ids_burn_in_byte_order(partition: Partition) -> None:
    for name in ("b", "B", "a", "a.b", "ab", "a-b", "0"):
        partition.run(grant("u", name, 1))

    assert [draw.grant_id for draw in _draws_of(partition, 7)] == ["0", "B", "a", "a-b", "a.b", "ab", "b"]


def test_one_deduct_burns_through_many_grants(partition: Partition) -> None:
    """More grants than the program reads of the order at a time."""
    names = [f"g{n:02}" for n in range(40)]
    for name in reversed(names):
        partition.run(grant("u", name, 2))

    draws = _draws_of(partition, 61)

    assert [draw.grant_id for draw in draws] == names[:31]
    assert [draw.amount for draw in draws] == [2] * 30 + [1]
    assert partition.run(balance("u")).balances == (19, 0, 0)


def test_grants_that_arrive_and_burn_in_one_batch(partition: Partition) -> None:
    partition.run(grant("u", "m", 10, priority=5))

    answers = partition.batch(
        grant("u", "z", 10, priority=9),
        grant("u", "a", 10, priority=1),
        deduct("u", 25),
        grant("u", "first", 10, priority=0),
        deduct("u", 12),
    )

    assert [answer.balances[0] for answer in answers if answer.balances] == [20, 30, 5, 15, 3]
    assert [draw.grant_id for draw in partition.entries()[-1].draws] == ["first", "z"]
    assert partition.remaining("u")["z"] == 3


def test_a_better_grant_takes_over_from_a_burning_one(partition: Partition) -> None:
    partition.run(grant("u", "old", 10))
    partition.run(deduct("u", 4))
    partition.run(grant("u", "soon", 10, expires_at_ms=T0 + DAY))

    assert [(draw.grant_id, draw.amount) for draw in _draws_of(partition, 12)] == [("soon", 10), ("old", 2)]


def test_the_end_of_a_grant_is_exclusive_and_needs_no_sweeper(partition: Partition) -> None:
    partition.run(grant("u", "g", 100, expires_at_ms=T0 + HOUR))
    partition.freeze(T0 + HOUR - 1)
    assert partition.run(deduct("u", 1)).status == "ok"

    partition.freeze(T0 + HOUR)
    answer = partition.run(deduct("u", 1))

    assert answer.status == "insufficient"
    entry = partition.entries()[-1]
    assert (entry.kind, entry.amount, entry.created_at_ms) == ("grant_expired", 99, T0 + HOUR)


def test_no_other_user_is_touched(partition: Partition) -> None:
    """Ids that are prefixes of each other, and a grant of the same id."""
    others = ("u", "u1", "u/1", "u.", "t")
    for user in (*others, "u-"):
        partition.run(grant(user, "g", 10, expires_at_ms=T0 + DAY))
        partition.run(grant(user, "h", 10))
        partition.run(reserve(user, f"r{user.replace('/', ':')}", 5, HOUR, chosen=True))
    accounts = partition.client.hgetall(partition.keys.accounts)

    partition.run(deduct("u-", 12))
    partition.freeze(T0 + 2 * DAY)
    partition.run(deduct("u-", 1))

    after = partition.client.hgetall(partition.keys.accounts)
    assert [user for user in accounts if accounts[user] != after[user]] == [b"u-"]


def _draws_of(partition: Partition, amount: int) -> tuple[Any, ...]:
    return partition.entry_of(partition.run(deduct("u", amount))["transaction_id"]).draws


def test_rules_of_its_levels_refuse_it_and_say_so(partition: Partition) -> None:
    """And what they refuse changes nothing, nor is a bucket any emptier."""
    partition.batch(grant("t/a", "g", 100), budget("t", 10), rate("t/a", 2), deduct("t/a", 6))
    before = dump(partition.client)

    answer = partition.run(deduct("t/a", 5))
    assert (answer.status, answer["required"]) == ("budget_reached", 5)
    assert answer["violations"].startswith("budget,t,b,day,c,10,6,0,-,")
    assert dump(partition.client) == before
    assert partition.run(deduct("t/a", 1)).status == "ok"
    limited = partition.run(deduct("t/a", 1))
    assert (limited.status, limited["violations"]) == ("rate_limited", "rate_limit,t/a,b,-,r,2,-,-,-,-,30000,60000")
    assert partition.run(deduct("t/a", 0)).status == "ok"


def test_what_was_served_already_is_refused_and_cut_by_no_rule(partition: Partition) -> None:
    """Credits pay first, then debt as far as it may go. Budgets count it; limits and suspension pass it by."""
    partition.batch(
        grant("org/u", "g", 100), configure("org/u", overdraft_limit=20), budget("org", 50), rate("org/u", 1)
    )
    partition.run(configure("org", suspended=True))
    told = [partition.run(deduct("org/u", 60, "owed")) for _ in range(3)]
    assert [(one["taken"], one["uncovered"]) for one in told[:2]] == [(60, 0), (60, 0)]
    assert (told[1].balances, told[2].status) == ((0, 0, 20), "insufficient")
    assert partition.run(rules("org"))["charged"] == 120
    partition.run(configure("org", suspended=False))
    partition.run(grant("org/u", "more", 50))
    assert partition.run(deduct("org/u", 60, "owed"))["uncovered"] == 10
    partition.run(grant("org/u", "last", 50))
    assert partition.run(deduct("org/u", 1)).status == "budget_reached", "its limit of requests is not used up"
