"""What a usage costs: lua/state/price.lua against exact numbers in Python."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

import pytest

from meter.engine import operations, priced
from meter.engine.prices import MILLION, RateLine, Tier, read_price, usage_text
from tests.lua.prices import CARD, amount_of, put_card
from tests.partition import Answer, Partition

CARDS = int(os.environ.get("METER_TEST_RANDOM_CARDS", "400"))
EDGES = (0, 1, 999_999, 1_000_000, 1_000_001, 9_007_199_254, 10**10 + 1, 10**12 - 1, 10**12)
OWN = ("images", "search", "x_y")


def _cost(partition: Partition, model: str, usage: Mapping[str, int], user_id: str = "u") -> Answer:
    return partition.run(priced.quote(user_id, usage=usage_text(model, {"output": 0, **usage})))


@pytest.mark.parametrize(
    ("model", "usage", "amount"),
    [
        ("gpt-4o", {"input": 1000, "output": 320}, 5700),
        ("gpt-4o", {"input": 1}, 3),
        ("gpt-4o", {"input": 1, "cache_read": 1}, 4),
        ("gpt-4o", {"output": 1}, 10),
        ("gem", {"input": 200_000}, 250_000),
        ("gem", {"input": 200_001}, 500_003),
        ("gem", {"input": 200_000, "cache_read": 1}, 500_003),
        ("gift", {"input": 1_000_000}, 0),
    ],
)
def test_prices_are_rounded_once_and_up(partition: Partition, model: str, usage: dict[str, int], amount: int) -> None:
    """H1, H2, H7, H10: the sum is rounded, not its parts; above a bound the whole request is priced by other rates."""
    put_card(partition)

    assert _cost(partition, model, usage)["amount"] == amount == amount_of(CARD[model], usage)


def test_a_multiplier_comes_before_the_rounding(partition: Partition) -> None:
    """H3: 2.5 units times 1.2 are 3, and 3 units times 1.2 would be 4."""
    put_card(partition)
    partition.run(operations.configure("u", price_multiplier="1200000"))

    assert _cost(partition, "gpt-4o", {"input": 1})["amount"] == 3


def test_a_dimension_without_a_rate_costs_as_its_parent_and_is_named(partition: Partition) -> None:
    """H10: cache_read of a model that has no rate for it is input; what has no parent is refused."""
    put_card(partition)

    line = partition.run(priced.quote("u", usage=usage_text("gem", {"cache_read": 7, "output": 0}))).line
    told = read_price(line.partition(" $")[2])
    assert [(part.dimension, part.rate, part.is_unpriced) for part in told.parts] == [
        ("cache_read", 1_250_000, True),
        ("output", 10_000_000, False),
    ]
    refused = _cost(partition, "gpt-4o", {"images": 1})
    assert (refused.status, refused["dimension"]) == ("unpriced", "images")


def _random_line(pick: random.Random) -> RateLine:
    def number() -> int:
        kind = pick.random()
        if kind < 0.3:
            return pick.choice(EDGES)
        return pick.randrange(10 ** pick.randint(1, 12))

    def rates(share: float) -> dict[str, int]:
        names = ("input", "cache_read", "cache_write", "output", "reasoning", "audio_input", "audio_output", *OWN)
        return {name: number() for name in names if pick.random() < share}

    above = Tier(pick.randrange(1, 10 ** pick.randint(1, 12)), rates(0.4)) if pick.random() < 0.4 else None
    base = {"output": number(), **rates(0.7)}
    return RateLine(base, number() if pick.random() < 0.3 else 0, number() if pick.random() < 0.3 else 0, 0, above)


def _random_usage(pick: random.Random) -> dict[str, int]:
    names = ("input", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output", *OWN)
    most = pick.choice((3, 6, 9, 12))

    def quantity() -> int:
        return pick.choice(EDGES) if pick.random() < 0.2 else pick.randrange(10 ** pick.randint(1, most))

    return {"output": quantity(), **{name: quantity() for name in names if pick.random() < 0.4}}


def _random_multiplier(pick: random.Random) -> int:
    return pick.choice((MILLION, 1_200_000, 1, 999_999, 10**12, pick.randrange(1, 10 ** pick.randint(1, 12))))


def test_random_cards_cost_what_exact_numbers_say(partition: Partition) -> None:
    """Rates and quantities up to 10^12, multipliers up to 10^6: the amount to the unit, or the refusal. With
    METER_TEST_RANDOM_CARDS=100000 as often as it was once proven.
    """
    pick = random.Random(CARDS)
    size = 50
    for first in range(0, CARDS, size):
        lines = {f"m{first + n}": _random_line(pick) for n in range(size)}
        put_card(partition, lines, version=first + 1)
        asked = [(model, _random_usage(pick), _random_multiplier(pick)) for model in lines]
        partition.batch(*(operations.configure(f"u{n}", price_multiplier=str(m)) for n, (_, _, m) in enumerate(asked)))
        found = partition.batch(*(priced.quote(f"u{n}", usage=usage_text(m, u)) for n, (m, u, _) in enumerate(asked)))
        for (model, usage, multiplier), answer in zip(asked, found, strict=True):
            expected = amount_of(lines[model], usage, multiplier)
            told = answer["amount"] if answer.status == "ok" else answer.status
            assert told == expected, (lines[model], usage, multiplier)
            if answer.status == "ok":
                told_price = read_price(answer.line.partition(" $")[2])
                assert told_price.amount == expected
                assert told_price.rounding >= 0
