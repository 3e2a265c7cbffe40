"""Settling for what a usage costs by the price of the hold: lua/operations/commit_usage.lua."""

from __future__ import annotations

from random import Random

import pytest

from meter.engine.operations import UNKEYED, Asked, commit, configure, deduct, grant, release, reserve
from meter.engine.priced import commit_usage, reserve_usage
from meter.engine.prices import Activation, RateLine, read_price, usage_text
from tests.lua.api_keys import by, put_key
from tests.lua.levels import budget
from tests.lua.prices import CARD, amount_of, put_card
from tests.partition import GRACE, HOUR, MINUTE, T0, Answer, Partition

ASKED = usage_text("gpt-4o", {"input": 1000}, 500)
USED = usage_text(None, {"input": 1000, "output": 320})
DEAR = {**CARD, "gpt-4o": RateLine({"input": 2_500_000, "output": 20_000_000})}


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 5 credits; r holds 7500 units of them for a minute."""
    partition.run(grant("u", "g", 5_000_000))
    put_card(partition)
    partition.run(reserve_usage("u", "r", ASKED, MINUTE, chosen=False))
    return partition


def _commit(partition: Partition, usage: str = USED, hold: str = "r", key: str = "", over: str = "cap") -> Answer:
    return partition.run(commit_usage(hold, usage, over, Asked(key) if key else UNKEYED))


def test_h4_it_charges_what_was_used(held: Partition) -> None:
    """And again: the same answer, byte for byte."""
    answer = _commit(held)

    assert (answer["charged"], answer["released"]) == (5700, 1800)
    assert answer.balances == (4_994_300, 0, 0)
    again = _commit(held)
    assert (again.replayed, again.line[2:]) == (True, answer.line[2:])
    assert _commit(held, usage_text(None, {"input": 1})).status == "finished"
    assert held.run(commit("r", 5700)).line[2:] == answer.line[2:]


def test_h5_it_charges_by_the_version_of_its_hold(held: Partition) -> None:
    """H5: whatever is active now, also where the card is another one by now."""
    put_card(held, DEAR, version=2)
    held.run(configure("u", rate_card="none", price_multiplier="9000000"))

    answer = _commit(held)
    assert answer["charged"] == 5700
    price = read_price(held.entry_of(answer["transaction_id"]).text("price") or "")
    assert (price.version, price.multiplier) == (1, 1_000_000)


def test_h6_so_when_it_comes_late(held: Partition) -> None:
    held.advance(MINUTE + 1000)
    put_card(held, DEAR, version=2)

    answer = _commit(held)
    assert (answer["late"], answer["charged"]) == (1, 5700)
    assert _commit(held).replayed


def test_too_late_it_is_over(held: Partition) -> None:
    held.advance(MINUTE + GRACE + 1)

    assert _commit(held).status == "finished"
    held.run(reserve_usage("u", "s", ASKED, HOUR, chosen=False))
    held.run(release("s"))
    assert _commit(held, usage_text("nope", {}), "s").status == "finished"
    held.run(reserve("u", "p", 5, HOUR, chosen=False))
    held.run(commit("p"))
    assert _commit(held, USED, "p").status == "finished"


def test_h9_another_model_is_priced_by_the_same_version(held: Partition) -> None:
    """H9: what the version does not have is refused, and the hold stays."""
    held.run(by(put_key(held, models=("gpt-4o",)), reserve_usage("u", "k", ASKED, HOUR, chosen=True)))
    held.run(reserve_usage("u", "s", ASKED, HOUR, chosen=False))
    put_card(held, {"mini": RateLine({"input": 10**9, "output": 1}), "nope": CARD["mini"]}, version=2)

    answer = _commit(held, usage_text("mini", {"input": 1000, "output": 320}))
    assert (answer["charged"], answer["released"]) == (342, 7158)
    assert _commit(held, usage_text("nope", {"input": 1}), "s").status == "unknown_model"
    assert _commit(held, usage_text("mini", {"input": 1}), "k").status == "model_not_allowed"
    assert _commit(held, usage_text(None, {"images": 1}), "s").status == "unpriced"
    held.client.hset(held.keys.rates, "default@1 huge", RateLine({"input": 10**12}).text)
    assert _commit(held, usage_text("huge", {"input": 10**12}), "s").status == "uncountable"
    assert _commit(held, usage_text("gem", {"input": 10**10}), "s", over="reject").status == "insufficient"
    held.client.hdel(held.keys.rates, "default@1 gpt-4o")
    assert _commit(held, USED, "s").status == "rates_missing"
    assert held.fields("holds").keys() == {b"s", b"k"}


def test_a_hold_that_was_not_priced_takes_no_usage(held: Partition) -> None:
    held.run(reserve("u", "p", 5, MINUTE, chosen=False))

    assert _commit(held, hold="p").status == "not_priced"
    assert held.run(commit("p", 2)).status == "ok"
    held.run(reserve("u", "q", 5, 1, chosen=False))
    held.advance(2)
    assert _commit(held, hold="q").status == "not_priced"  # late, and still not
    assert _commit(held, hold="nobody").status == "not_found"


def test_a_repeated_key_is_answered_as_at_first(held: Partition) -> None:
    first = _commit(held, key="k")
    put_card(held, DEAR, version=2)

    assert _commit(held, key="k").line[2:] == first.line[2:]
    assert _commit(held, usage_text(None, {"input": 1}), key="k").status == "key_reused"


def test_more_than_an_account_counts_is_refused(held: Partition) -> None:
    put_card(held, {"big": RateLine({"input": 9 * 10**11})}, version=2)
    held.run(configure("w", overdraft_limit=2**53 - 1))
    held.run(deduct("w", 10**14, "overdraft"))
    held.run(grant("w", "g", 2 * 10**14))
    held.run(reserve_usage("w", "b", usage_text("big", {"input": 1}), HOUR, chosen=False))

    assert _commit(held, usage_text(None, {"input": 10**10}), "b", over="overdraft").status == "overflow"


def test_an_activation_between_reserve_and_commit_moves_no_charge(partition: Partition) -> None:
    """At random: versions come, go back and are planned; each commit costs what the version of its reserve says."""
    pick, versions = Random(11), {1: CARD}
    partition.run(grant("u", "g", 10**15))
    put_card(partition)
    planned, open_holds = [Activation(1, 0)], {}
    for number in range(2, 60):
        step = pick.random()
        if step < 0.3:
            versions[number] = {"gpt-4o": RateLine({"input": pick.randrange(10**9), "output": pick.randrange(10**9)})}
            planned.append(Activation(number, T0 + pick.randrange(100)))
            put_card(partition, versions[number], *planned, version=number)
        elif step < 0.6:
            name = f"h{number}"
            line = partition.run(reserve_usage("u", name, ASKED, HOUR, chosen=False)).line
            open_holds[name] = read_price(line.partition(" $")[2]).version
        elif step < 0.9 and open_holds:
            name, version = open_holds.popitem()
            used = {"input": pick.randrange(10**6), "output": pick.randrange(10**6)}
            answer = partition.run(commit_usage(name, usage_text(None, used)))
            assert answer["charged"] == amount_of(versions[version]["gpt-4o"], used)
        else:
            partition.advance(pick.randrange(10))


def test_a_budget_bounds_what_is_beyond_the_hold(held: Partition) -> None:
    held.run(budget("u", 7600))
    more = usage_text(None, {"input": 1000, "output": 520})

    assert _commit(held, more, over="reject").status == "budget_reached"
    answer = _commit(held, more)
    assert (answer.status, answer["charged"], answer["uncovered"]) == ("ok", 7600, 100)
    assert " !b $" in answer.line
    assert _commit(held, more).line[1:] == answer.line[1:]
