"""Rate cards for the tests of scripts, and what a usage costs by the arithmetic of Python, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from meter.amount import UNITS_MAX
from meter.engine import upkeep
from meter.engine.prices import MILLION, Activation, RateLine, Tier, activations_text, rate_fields
from tests.partition import T0, Partition

PARENTS = {
    "cache_read": "input",
    "cache_write": "input",
    "audio_input": "input",
    "reasoning": "output",
    "audio_output": "output",
}
CARD: dict[str, RateLine] = {
    "gpt-4o": RateLine({"input": 2_500_000, "cache_read": 1_250_000, "output": 10_000_000}, max_output=16384),
    "mini": RateLine({"input": 150_000, "output": 600_000}),
    "gem": RateLine(
        {"input": 1_250_000, "output": 10_000_000},
        above=Tier(200_000, {"input": 2_500_000, "output": 15_000_000}),
    ),
    "gift": RateLine({}, free=True),
}


def put_card(
    partition: Partition,
    lines: Mapping[str, RateLine] = CARD,
    *activations: Activation,
    version: int = 1,
    card: str = "default",
) -> None:
    """Puts a version of a card, which is active at once unless activations say otherwise."""
    fields = list(rate_fields(card, version, lines))
    partition.run(upkeep.rates(fields))
    text = activations_text(activations or (Activation(version, 0),), T0)
    partition.run(upkeep.activate(card, version, text))


def amount_of(line: RateLine, usage: Mapping[str, int], multiplier: int = MILLION) -> int | str:
    """The amount in exact numbers, or the word of the refusal."""
    if line.free:
        return 0
    total_input = sum(usage.get(name, 0) for name in ("input", "cache_read", "cache_write"))
    above = line.above.rates if line.above is not None and total_input > line.above.over else {}
    total = Fraction(line.per_request)
    for name, quantity in usage.items():
        rate = above.get(name, line.rates.get(name))
        if rate is None and name in PARENTS:
            rate = above.get(PARENTS[name], line.rates.get(PARENTS[name]))
        if rate is None:
            return "unpriced"
        total += Fraction(quantity * rate, MILLION)
    total = max(Fraction(line.minimum), total)
    amount = ceil(total * multiplier / MILLION)
    return "uncountable" if total > UNITS_MAX or amount > UNITS_MAX else amount
