"""Telling what a reserve would hold: lua/operations/quote.lua."""

from __future__ import annotations

from meter.engine.operations import configure, grant
from meter.engine.priced import quote
from meter.engine.prices import RateLine, usage_text
from tests.lua.api_keys import by, put_key
from tests.lua.prices import put_card
from tests.partition import Partition, dump

ASKED = usage_text("gpt-4o", {"input": 1000}, 500)


def test_it_tells_and_changes_nothing(partition: Partition) -> None:
    """H12, of a usage and of an amount."""
    partition.run(grant("u", "g", 1000))
    put_card(partition)
    before = dump(partition.client)

    answer = partition.run(quote("u", usage=ASKED))
    assert (answer.status, answer["amount"], answer["would"]) == ("ok", 7500, "insufficient")
    plain = partition.run(quote("u", amount=1000))
    assert (plain["amount"], plain["would"], plain.line.count("$")) == (1000, "ok", 0)
    assert dump(partition.client) == before
    partition.run(configure("u", suspended=True))
    assert partition.run(quote("u", usage=ASKED))["would"] == "suspended"


def test_what_has_no_price_is_refused(partition: Partition) -> None:
    put_card(partition)
    partition.client.hset(partition.keys.rates, "default@1 huge", RateLine({"input": 10**12}).text)

    assert partition.run(quote("u", usage=usage_text("nope", {}))).status == "unknown_model"
    key = put_key(partition, models=("gem",))
    assert partition.run(by(key, quote("u", usage=usage_text("mini", {"input": 1}, 1)))).status == "model_not_allowed"
    assert partition.run(quote("u", usage=usage_text("mini", {"images": 1}, 1))).status == "unpriced"
    assert partition.run(quote("u", usage=usage_text("mini", {"input": 1}))).status == "unbounded"
    assert partition.run(quote("u", usage=usage_text("huge", {"input": 10**12}))).status == "uncountable"
    partition.client.hdel(partition.keys.rates, "default@1 mini")
    assert partition.run(quote("u", usage=usage_text("mini", {"input": 1}, 1))).status == "rates_missing"
