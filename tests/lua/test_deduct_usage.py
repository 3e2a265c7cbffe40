"""Spending what a usage costs: lua/operations/deduct_usage.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, configure, deduct, grant
from meter.engine.outbox import Kind
from meter.engine.priced import deduct_usage
from meter.engine.prices import Activation, RateLine, read_price, usage_text
from meter.engine.upkeep import clock, flushed
from tests.lua.api_keys import by, put_key
from tests.lua.levels import budget, rate
from tests.lua.prices import CARD, put_card
from tests.partition import MINUTE, T0, Answer, Partition

ONE = usage_text("gpt-4o", {"input": 1000, "output": 320})


@pytest.fixture
def carded(partition: Partition) -> Partition:
    """u has 5 credits of a million units, and there is a card."""
    partition.run(grant("u", "g", 5_000_000))
    put_card(partition)
    return partition


def test_it_charges_the_price_and_says_by_what(carded: Partition) -> None:
    """H1: the row and the answer have card, version, model, multiplier, quantities and rates."""
    answer = carded.run(deduct_usage("u", ONE))

    assert (answer.status, answer["amount"], answer["taken"]) == ("ok", 5700, 5700)
    assert answer.balances == (4_994_300, 0, 0)
    entry = carded.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount) == (Kind.DEDUCT, 5700)
    price = read_price(entry.text("price") or "")
    assert answer.line.endswith(f" ${entry.text('price')}")
    assert price[:6] == ("default", 1, "gpt-4o", 1_000_000, 5700, 0)
    assert [(part.dimension, price.cost(part)) for part in price.parts] == [("input", 2500), ("output", 3200)]


def test_a_repeated_key_prices_nothing_again(carded: Partition) -> None:
    """The first answer, byte for byte, though the card costs more by now; another usage with the key is refused."""
    asked = Asked("k", "")
    first = carded.run(deduct_usage("u", ONE, asked=asked))
    put_card(carded, {"gpt-4o": RateLine({"input": 10**9, "output": 10**9})}, version=2)

    again = carded.run(deduct_usage("u", ONE, asked=asked))
    assert (again.replayed, again.line[2:]) == (True, first.line[2:])
    other = carded.run(deduct_usage("u", usage_text("gpt-4o", {"input": 1}), asked=asked))
    assert other.status == "key_reused"


def test_the_nearest_level_says_card_and_multiplier(carded: Partition) -> None:
    """Its own, else the nearest level's, else the card called default; card and multiplier each for itself."""
    put_card(carded, {"gpt-4o": RateLine({"input": 100_000_000})}, card="dear")
    for name in ("acme/a/b", "acme/c", "acme"):
        carded.run(grant(name, "g", 10**9))
    carded.run(configure("acme", rate_card="dear", price_multiplier="2000000"))
    carded.run(configure("acme/a", price_multiplier="3000000"))
    carded.run(configure("acme/c", rate_card="default"))
    usage = usage_text("gpt-4o", {"input": 1000})

    paths = ("acme/a/b", "acme/c", "acme", "u")
    assert [carded.run(deduct_usage(path, usage))["amount"] for path in paths] == [300_000, 5000, 200_000, 2500]
    carded.run(configure("acme", rate_card="-", price_multiplier="-"))
    assert carded.run(deduct_usage("acme", usage))["amount"] == 2500


def test_h11_a_version_is_active_from_its_millisecond_on(carded: Partition) -> None:
    """And an older one can be activated again."""
    dear = {**CARD, "gpt-4o": RateLine({"input": 2_500_000, "output": 20_000_000})}
    put_card(carded, dear, Activation(1, 0), Activation(2, T0 + MINUTE), version=2)
    usage = usage_text("gpt-4o", {"output": 1000})

    carded.run(clock("set", T0 + MINUTE - 1))
    assert carded.run(deduct_usage("u", usage))["amount"] == 10_000
    carded.run(clock("advance", 1))
    assert carded.run(deduct_usage("u", usage))["amount"] == 20_000
    put_card(carded, dear, Activation(1, 0), version=3)
    assert carded.run(deduct_usage("u", usage))["amount"] == 10_000


def test_nothing_is_charged_for_what_has_no_price(carded: Partition) -> None:
    """H7, H8: a model that the card does not have, a dimension without a rate, more than an amount counts."""

    def status(usage: str, user_id: str = "u") -> Answer:
        return carded.run(deduct_usage(user_id, usage))

    unknown = status(usage_text("nope", {"input": 1}))
    assert (unknown.status, unknown["model"]) == ("unknown_model", "nope")
    refused = carded.run(by(put_key(carded, models=("gem",)), deduct_usage("u", usage_text("mini", {"input": 1}))))
    assert (refused.status, refused["model"]) == ("model_not_allowed", "mini")
    unpriced = status(usage_text("gpt-4o", {"images": 1}))
    assert (unpriced.status, unpriced["dimension"]) == ("unpriced", "images")
    put_card(carded, {"big": RateLine({"input": 10**12}), "*": RateLine({"input": 4_000_000})}, version=2)
    assert status(usage_text("big", {"input": 10**12})).status == "uncountable"
    assert status(usage_text("nope", {"input": 1})).status == "ok"  # the line of every other model
    assert carded.kinds() == ["grant", "deduct"]
    assert status(usage_text("big", {"input": 10**9}), "nobody").status == "insufficient"


def test_an_active_version_without_its_line_is_no_other_price(carded: Partition, unchecked: None) -> None:
    """Not even that of every other model; so without the list of its models."""
    put_card(carded, {**CARD, "*": RateLine({"input": 1})}, version=2)
    carded.client.hdel(carded.keys.rates, "default@2 gpt-4o")
    assert carded.run(deduct_usage("u", ONE)).status == "rates_missing"
    assert carded.run(deduct_usage("u", usage_text("other", {"input": 1}))).status == "ok"

    carded.client.hdel(carded.keys.rates, "default@2")
    assert carded.run(deduct_usage("u", usage_text("gpt-4o", {"input": 1}))).status == "rates_missing"
    put_card(carded, version=3)
    carded.client.hdel(carded.keys.rates, "default@3 *", "default@3 mini")
    assert carded.run(deduct_usage("u", usage_text("mini", {"input": 1}))).status == "rates_missing"


def test_without_a_card_no_model_has_a_price(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))

    assert partition.run(deduct_usage("u", ONE)).status == "unknown_model"
    assert partition.run(deduct("u", 5)).status == "ok"


def test_what_refuses_a_deduct_refuses_it(carded: Partition) -> None:
    """403 before 422: a suspended account is told so, whatever it asks for."""
    carded.run(grant("full", "g", 2**53 - 1))
    carded.run(configure("full", overdraft_limit=2**53 - 1))
    carded.run(deduct_usage("full", usage_text("gpt-4o", {"input": 10**9})))
    put_card(carded, {"big": RateLine({"input": 9 * 10**11})}, version=2)
    big = usage_text("big", {"input": 10**10})
    assert carded.run(deduct_usage("full", big, "overdraft")).status == "ok"
    assert carded.run(deduct_usage("full", big, "overdraft")).status == "overflow"
    carded.run(configure("u", suspended=True))
    assert carded.run(deduct_usage("u", usage_text("nope", {}))).status == "suspended"
    assert carded.run(deduct_usage("poor", usage_text("big", {"input": 1}), "partial")).status == "insufficient"
    carded.outbox_max = 1
    carded.run(flushed(0, 0, 100))
    assert carded.run(deduct_usage("full", usage_text("big", {"input": 1}))).status == "outbox_full"


def test_a_free_model_costs_nothing_and_books_nothing(carded: Partition) -> None:
    answer = carded.run(deduct_usage("u", usage_text("gift", {"input": 10**6, "images": 3})))

    assert (answer.status, answer["amount"], answer["transaction_id"]) == ("ok", 0, "-")


def test_rules_judge_the_price(carded: Partition) -> None:
    carded.batch(budget("u", 5700), rate("u", 1))
    assert (
        carded.run(deduct_usage("u", usage_text("gpt-4o", {"input": 1000, "output": 321}))).status == "budget_reached"
    )
    assert carded.run(deduct_usage("u", ONE)).status == "ok"
    carded.run(budget("u", 99_000))
    assert carded.run(deduct_usage("u", ONE)).status == "rate_limited"
