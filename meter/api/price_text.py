"""A price as the JSON of the wire."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from meter.engine.prices import MILLION, Price


def price_json(price: Price, amount: Callable[[int], str]) -> str:
    """The member `price` of an answer and of a ledger row; `amount` writes units."""
    costs = {part.dimension: (part.quantity, price.cost(part)) for part in price.parts}
    if price.per_request:
        costs["per_request"] = (1, price.request_cost)
    breakdown = ",".join(
        f'"{name}":{{"quantity":{quantity},"amount":{amount(cost)}}}' for name, (quantity, cost) in costs.items()
    )
    unpriced = ",".join(f'"{part.dimension}"' for part in price.parts if part.is_unpriced)
    return (
        f'{{"rate_card_id":"{price.rate_card_id}","version":{price.version},"model":"{price.model}",'
        f'"multiplier":{multiplier_text(price.multiplier)},"breakdown":{{{breakdown}}},'
        f'"rounding":{amount(price.rounding)},"unpriced":[{unpriced}]}}'
    )


def multiplier_text(millionths: int) -> str:
    """A multiplier as a JSON number."""
    return f"{(Decimal(millionths) / MILLION).normalize():f}"
