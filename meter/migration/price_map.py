"""LiteLLM's public price map (`model_prices_and_context_window.json`) as the lines of a rate card.

The map has dollars per token; a card has credits per million, so that without a markup a credit is a dollar. What a
card cannot say is not guessed: it is told, by model or by member.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from meter.contract.rates import RATE_MAX_UNITS
from meter.contract.usage import MODEL, QUANTITY_MAX

MILLION = 10**6
NOT_MODELS = frozenset(("sample_spec",))
"""Members of the map that describe it."""
RATES: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image": "images",
    "output_cost_per_image": "images",
    "input_cost_per_query": "search_units",
    "input_cost_per_second": "seconds",
}
_ABOVE = re.compile(r"(.+)_above_(\d+)k_tokens")
_OF_COST = re.compile(r"cost")
_OF_TOKENS = ("input", "output")
_IMAGES = "image_generation"


@dataclass
class Mapped:
    """What became of a map."""

    models: dict[str, dict[str, object]] = field(default_factory=dict)
    """Lines as `PUT /credits/rate-cards/…` takes them."""
    not_mapped: dict[str, str] = field(default_factory=dict)
    """Why, by model."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Costs that no line has a place for, by their member, and of how many models."""
    rounded: int = 0
    """Rates that were rounded up to what a credit counts."""


class PriceMap:
    """Maps a document. `markup` is what each price is multiplied by, `places` the decimals of a credit."""

    def __init__(self, markup: Decimal, places: int) -> None:
        self._markup = markup
        self._unit = Decimal(1).scaleb(-places)
        self._mapped = Mapped()

    def read(self, document: object) -> Mapped:
        """The lines of all models. Raises ValueError for what is no map."""
        if not isinstance(document, Mapping) or not document:
            raise ValueError("is no object of models by name")
        for model, told in document.items():
            if model in NOT_MODELS:
                continue
            try:
                self._mapped.models[model] = self._line(model, told)
            except ValueError as error:
                self._mapped.not_mapped[model] = str(error)
        return self._mapped

    def _line(self, model: str, told: object) -> dict[str, object]:
        """The line of a model. Raises ValueError for one that a card cannot have."""
        if not re.fullmatch(MODEL, model):
            raise ValueError("its name cannot be one of a rate card: visible ASCII without quotes and commas")
        if not isinstance(told, Mapping):
            raise ValueError("is no object")
        costs = {name: value for name, value in told.items() if _OF_COST.search(name) and value is not None}
        rates = self._rates(costs, told.get("mode") == _IMAGES)
        tier = self._tier(costs)
        if not rates:
            is_free = any(name in costs for name in RATES)
            raise ValueError("costs nothing: say free: true of it" if is_free else "has no price that a card can have")
        self._ignore(costs)
        most = told.get("max_output_tokens")
        line: dict[str, object] = {**rates}
        if isinstance(most, int | Decimal) and not isinstance(most, bool) and 1 <= most <= QUANTITY_MAX:
            line["max_output"] = int(most)
        return line if tier is None else {**line, "above_input": tier}

    def _rates(self, costs: Mapping[str, object], are_images: bool) -> dict[str, str]:
        """Rates by dimension, without those of 0. Images have a price of their own only where they are what is made."""
        rates: dict[str, str] = {}
        for name, dimension in RATES.items():
            if name not in costs or (dimension == "images" and not are_images):
                continue
            rate = self._rate(name, costs[name])
            if rate is not None:
                rates.setdefault(dimension, rate)
        has_tokens = any(name in rates for name in _OF_TOKENS)
        return {name: rate for name, rate in rates.items() if name not in ("seconds", "images") or not has_tokens}

    def _tier(self, costs: Mapping[str, object]) -> dict[str, object] | None:
        """The rates above so much input; of several tiers the lowest, since a line has one."""
        tiers: dict[int, dict[str, str]] = {}
        for name, value in costs.items():
            found = _ABOVE.fullmatch(name)
            if found is not None and found[1] in RATES and (rate := self._rate(name, value)) is not None:
                tiers.setdefault(int(found[2]) * 1000, {})[RATES[found[1]]] = rate
        if not tiers:
            return None
        over = min(tiers)
        self._mapped.ignored.update(f"above {other} tokens" for other in tiers if other != over)
        return {"over": over, "rates": tiers[over]}

    def _rate(self, name: str, value: object) -> str | None:
        """Credits per million; None of 0. Raises ValueError for what is no price."""
        try:
            cost = Decimal(str(value))
        except InvalidOperation:
            raise ValueError(f"{name} is no number") from None
        if isinstance(value, bool) or not cost.is_finite() or cost < 0:
            raise ValueError(f"{name} is no price: {value}")
        exact = cost * MILLION * self._markup
        rate = exact.quantize(self._unit, ROUND_CEILING)
        if rate > RATE_MAX_UNITS * self._unit:
            raise ValueError(f"{name} is more than a rate can be")
        self._mapped.rounded += rate != exact
        return f"{rate.normalize():f}" if rate else None

    def _ignore(self, costs: Mapping[str, object]) -> None:
        for name in costs:
            found = _ABOVE.fullmatch(name)
            if name not in RATES and (found is None or found[1] not in RATES):
                self._mapped.ignored[name] += 1
