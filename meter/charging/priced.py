"""What an answer told as used, as the usage that a rate card prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum

from meter.charging.models import all_names
from meter.contract.answers import Price
from meter.contract.usage import QUANTITY_MAX
from meter.usage import Number, Usage
from meter.usage.usage import TOKENS

WireUsage = dict[str, object]
"""`usage` of a call of the API."""
NO_MODEL = ("-", "*")
"""The models of a price that no name of a model was known for."""


class ChargeBy(StrEnum):
    """What a request that tells its usage is charged by."""

    AUTO = "auto"
    """The rate card of its user, else, where there is none, the tokens themselves as credits."""
    CARD = "card"
    """The rate card; who has none is refused."""
    AMOUNT = "amount"
    """The tokens themselves, or what the upstream tells, as credits; no rate card is asked."""


def usage_told(usage: Usage, price: Price) -> WireUsage:
    """For the commit of a hold with this price: by the model as answered, else as asked, each by all of its names."""
    asked = () if price.model in NO_MODEL else (price.model,)
    return wire_usage(all_names([*([usage.model] if usage.model else []), *asked]), quantities_of(usage))


def wire_usage(names: Sequence[str], quantities: dict[str, int]) -> WireUsage:
    """A usage of the first of these names that a card has."""
    model: WireUsage = {"model": names[0]} if names else {}
    return {**model, **({"aliases": list(names[1:])} if names[1:] else {}), **quantities}


def quantities_of(usage: Usage) -> dict[str, int]:
    """Whole numbers by dimension. What a provider's total has beyond its parts is output: some leave out of those what
    was thought. A total alone counts what went in: embedders and rerankers tell no more.
    """
    quantities = {name: whole(number) for name, number in usage.quantities.items()}
    total = whole(usage.total)
    tokens = sum(number for name, number in quantities.items() if name in TOKENS)
    if not quantities:
        return {"input": total} if total else {}
    if tokens and total > tokens:
        quantities["output"] = quantities.get("output", 0) + total - tokens
    return quantities


def whole(number: Number) -> int:
    """A quantity, rounded up."""
    return min(number if isinstance(number, int) else math.ceil(Decimal(number)), QUANTITY_MAX)
