"""Holding what a usage costs at most: lua/operations/reserve_usage.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import UNKEYED, Asked, commit, configure, grant, release, reserve
from meter.engine.priced import RESERVE_USAGE, commit_usage, reserve_usage
from meter.engine.prices import RateLine, read_price, usage_text
from meter.engine.upkeep import flushed
from tests.lua.api_keys import by, put_key
from tests.lua.levels import budget, rate
from tests.lua.prices import CARD, put_card
from tests.partition import HOUR, MINUTE, Answer, Partition

ASKED = usage_text("gpt-4o", {"input": 1000}, 500)
DEAR = {**CARD, "gpt-4o": RateLine({"input": 2_500_000, "output": 20_000_000})}


@pytest.fixture
def carded(partition: Partition) -> Partition:
    partition.run(grant("u", "g", 5_000_000))
    put_card(partition)
    return partition


def _reserve(
    partition: Partition, usage: str = ASKED, hold: str = "r", key: str = "", *, chosen: bool = False
) -> Answer:
    return partition.run(reserve_usage("u", hold, usage, HOUR, chosen=chosen, asked=Asked(key) if key else UNKEYED))


def test_it_holds_the_most_that_the_usage_may_cost(carded: Partition) -> None:
    """H4: output at max_output; the row of the reserve has the price, and so has the hold."""
    answer = _reserve(carded)

    assert (answer.status, answer["amount"]) == ("ok", 7500)
    assert answer.balances == (4_992_500, 7500, 0)
    [entry] = [entry for entry in carded.entries() if entry.kind == "reserve"]
    assert answer.line.endswith(f" ${entry.text('price')}")
    assert carded.fields("holds")[b"r"].decode().endswith(f" ${entry.text('price')}")


@pytest.mark.parametrize(
    ("usage", "amount"),
    [
        (usage_text("gpt-4o", {"input": 1000}), 2500 + 163_840),  # the line's bound
        (usage_text("gpt-4o", {"input": 1000, "output": 10}), 2600),  # an estimate of the caller's own
        (usage_text("gpt-4o", {"input": 1000, "output": 10}, 500), 7500),  # its bound comes first
        (usage_text("gift", {"input": 1000}), 0),
    ],
)
def test_output_is_bounded_by_the_caller_else_by_the_line(carded: Partition, usage: str, amount: int) -> None:
    assert _reserve(carded, usage)["amount"] == amount


def test_what_refuses_it(carded: Partition) -> None:
    """Nothing bounds the output of a model that has a price for it; and what refuses any reserve."""
    assert _reserve(carded, usage_text("mini", {"input": 10})).status == "unbounded"
    assert _reserve(carded, usage_text("nope", {"input": 10}, 1)).status == "unknown_model"
    one = reserve_usage("u", "k", usage_text("mini", {"input": 1}, 1), HOUR, chosen=False)
    assert carded.run(by(put_key(carded, models=("gem",)), one)).status == "model_not_allowed"
    assert _reserve(carded, usage_text("mini", {"images": 1}, 1)).status == "unpriced"
    assert _reserve(carded, usage_text("gpt-4o", {"input": 10**12}, 1)).status == "insufficient"
    carded.client.hset(carded.keys.rates, "default@1 huge", RateLine({"input": 10**12}).text)
    assert _reserve(carded, usage_text("huge", {"input": 10**12})).status == "uncountable"
    carded.client.hdel(carded.keys.rates, "default@1 mini")
    assert _reserve(carded, usage_text("mini", {"input": 1}, 1)).status == "rates_missing"
    carded.reservations_max = 0
    assert _reserve(carded).status == "too_many"
    carded.run(configure("u", suspended=True))
    assert _reserve(carded, usage_text("nope", {})).status == "suspended"
    carded.run(configure("u", suspended=False))
    carded.outbox_max = 1
    carded.run(flushed(0, 0, 100))
    assert _reserve(carded).status == "outbox_full"


def test_a_repeat_is_answered_as_at_first(carded: Partition) -> None:
    """By its key and by its own id, though the card has changed; for another usage it is refused."""
    first, named = _reserve(carded, key="k"), _reserve(carded, hold="mine", chosen=True)
    put_card(carded, {"mini": CARD["mini"]}, version=2)

    assert _reserve(carded, hold="r2", key="k").line[2:] == first.line[2:]
    again = _reserve(carded, hold="mine", chosen=True)
    assert (again.replayed, again.line[2:]) == (True, named.line[2:])
    assert _reserve(carded, usage_text("gpt-4o", {"input": 1}, 1), "mine", chosen=True).status == "key_reused"


def test_a_request_that_asks_again_has_its_hold_at_the_price_of_then(carded: Partition) -> None:
    def ask() -> Answer:
        return carded.run(RESERVE_USAGE.asking(reserve_usage("u", "q", ASKED, MINUTE, chosen=False), chosen="request"))

    first = ask()
    put_card(carded, DEAR, version=2)
    again = ask()
    assert (again.replayed, again["amount"], first["amount"]) == (True, 7500, 7500)
    carded.run(release("q"))
    assert ask().status == "finished"


def test_what_is_held_is_charged_at_its_end_with_its_price(carded: Partition) -> None:
    carded.run(reserve_usage("u", "r", ASKED, MINUTE, chosen=False, at_end="charge"))
    carded.advance(MINUTE)
    carded.run(grant("u", "h", 1))

    [entry] = [entry for entry in carded.entries() if entry.kind == "commit"]
    assert (entry.amount, read_price(entry.text("price") or "").amount) == (7500, 7500)
    again = carded.run(commit("r"))
    assert (again.replayed, again["charged"]) == (True, 7500)
    assert again.line.endswith(f" ${entry.text('price')}")


def test_a_commit_of_all_has_the_price_and_one_of_an_amount_says_that_it_has_none(carded: Partition) -> None:
    for hold in ("all", "some", "by-usage"):
        carded.run(reserve_usage("u", hold, ASKED, HOUR, chosen=False))
    carded.run(reserve("u", "plain", 7500, HOUR, chosen=False))
    carded.run(commit("all"))
    carded.run(commit("some", 5))
    carded.run(commit_usage("by-usage", usage_text(None, {"input": 1})))
    carded.run(commit("plain", 5))

    told = [entry for entry in carded.entries() if entry.kind == "commit"]
    prices = [entry.text("price") for entry in told]
    assert [text and read_price(text).amount for text in prices] == [7500, None, 3, None]
    assert [entry.detail.get("priced") for entry in told] == [None, False, None, None]


def test_rules_judge_the_price(partition: Partition) -> None:
    partition.run(grant("u", "g", 5_000_000))
    put_card(partition)
    partition.batch(budget("u", 7500), rate("u", 1))
    asked = usage_text("gpt-4o", {"input": 1000}, 500)

    dearer = usage_text("gpt-4o", {"input": 1000}, 501)
    assert partition.run(reserve_usage("u", "r", dearer, HOUR, chosen=False)).status == "budget_reached"
    assert partition.run(reserve_usage("u", "r", asked, HOUR, chosen=False)).status == "ok"
    partition.run(budget("u", 99_000))
    assert partition.run(reserve_usage("u", "s", asked, HOUR, chosen=False)).status == "rate_limited"
