"""What a rate card's rates and a price are as text: for the scripts, the ledger and the store alike.

The scripts decide what a usage costs (lua/state/price.lua, which has the formats); here is what they are told, and what
is read from a price that they told. Rates are units per million of a dimension, multipliers are millionths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meter.engine.behind import PRICE_MARK, RESTRICTED_MARK

MILLION = 10**6
DIMENSIONS = ("input", "cache_read", "cache_write", "output", "reasoning", "audio_input", "audio_output", "images")
"""The dimensions that everybody knows, in the order in which a price names them; those of one's own come after."""

KEY_MARK = "#"
"""The same of the key that a hold keeps."""
NO_ALIASES: Mapping[str, str] = {}


class Tier(NamedTuple):
    """The rates of a request whose input is more than `over`."""

    over: int
    rates: Mapping[str, int]


class RateLine(NamedTuple):
    """What one model costs. `free`: nothing, whatever the rest says."""

    rates: Mapping[str, int]
    per_request: int = 0
    minimum: int = 0
    max_output: int = 0
    above: Tier | None = None
    free: bool = False

    @property
    def text(self) -> str:
        """As the scripts read it."""
        if self.free:
            return f"f 0 0 {self.max_output} 0 - -"
        above = Tier(0, {}) if self.above is None else self.above
        head = f"- {self.per_request} {self.minimum} {self.max_output} {above.over}"
        return f"{head} {_rates_text(self.rates)} {_rates_text(above.rates)}"


class Activation(NamedTuple):
    """From when a version of a card is the one that prices."""

    version: int
    effective_at_ms: int


class Part(NamedTuple):
    """What a dimension adds to a price. `is_unpriced`: it has no rate of its own and costs as its parent."""

    dimension: str
    quantity: int
    rate: int
    is_unpriced: bool


class Price(NamedTuple):
    """What a usage costs, and by what: `amount` units by a version of a rate card."""

    rate_card_id: str
    version: int
    model: str
    multiplier: int
    amount: int
    per_request: int
    parts: tuple[Part, ...]

    def cost(self, part: Part) -> int:
        """Units of one dimension, rounded down: the amount is rounded once, as a whole."""
        return part.quantity * part.rate * self.multiplier // (MILLION * MILLION)

    @property
    def request_cost(self) -> int:
        """Units of what every request costs, rounded down."""
        return self.per_request * self.multiplier // MILLION

    @property
    def rounding(self) -> int:
        """What the amount is more than its parts: digits that were rounded, and what a minimum adds."""
        return self.amount - self.request_cost - sum(map(self.cost, self.parts))


def read_price(text: str) -> Price:
    """Reads the text of a price. Raises `ValueError` for what no script wrote."""
    card, version, model, multiplier, amount, per_request, *parts = text.split(",")
    return Price(
        card, int(version), model, int(multiplier), int(amount), int(per_request), tuple(map(_read_part, parts))
    )


def _read_part(text: str) -> Part:
    dimension, quantity, rate = text.split("=")
    return Part(dimension, int(quantity), int(rate.removesuffix("!")), rate.endswith("!"))


def kept_end(price: str | None, api_key: str | None, answer: str | None, tags: str | None = None) -> str | None:
    """What Redis remembers of a reservation's end: the price of its reserve, the key that it was asked for by, what it
    was for, and the answer (lua/state/hold.lua).
    """
    marks = [f"{PRICE_MARK}{price}"] if price else []
    marks += [f"{KEY_MARK}{api_key}"] if api_key else []
    marks += [f"{RESTRICTED_MARK}{tags}"] if tags else []
    return " ".join([*marks, answer or "-"]) if marks else answer


NO_MODEL = "-"
"""The model of a usage that names none; of a hold, one that nobody knows yet."""


def usage_text(
    model: str | None, quantities: Mapping[str, int], max_output: int | None = None, aliases: Iterable[str] = ()
) -> str:
    """A usage as the scripts read it; the same usage is the same text, however its members are ordered. `aliases`:
    other names of the model, of which the first that the card has counts.
    """
    known = [name for name in DIMENSIONS if name in quantities]
    named = [*known, *sorted(quantities.keys() - set(known))]
    words = [",".join(dict.fromkeys((model or NO_MODEL, *aliases))), *(f"{name}={quantities[name]}" for name in named)]
    return " ".join(words if max_output is None else [*words, f"max_output={max_output}"])


def version_name(rate_card_id: str, version: int) -> str:
    """What the rates of a version begin with in Redis."""
    return f"{rate_card_id}@{version}"


def rate_fields(
    rate_card_id: str, version: int, lines: Mapping[str, RateLine], aliases: Mapping[str, str] = NO_ALIASES
) -> Iterable[tuple[str, str]]:
    """The fields that a version is in Redis: a line for each name of a model, whose name the aliases among them are,
    then which names there are.
    """
    name = version_name(rate_card_id, version)
    for model, line in lines.items():
        yield f"{name} {model}", line.text
    if aliases:
        yield f"{name}=", f" {' '.join(f'{alias},{model}' for alias, model in aliases.items())} "
    yield name, f" {' '.join(lines)} "


def activations_text(activations: Iterable[Activation], now_ms: int) -> str:
    """Activations, in the order in which they were asked for, as the scripts read them: the one that holds now, from
    the beginning on, and those to come by their time; of one moment the one that was asked for last holds.
    """
    ordered = sorted(activations, key=lambda one: one.effective_at_ms)
    begun = [one for one in ordered if one.effective_at_ms <= now_ms]
    coming = [one for one in ordered if one.effective_at_ms > now_ms]
    holds = [Activation(begun[-1].version, 0)] if begun else []
    return " ".join(f"{one.version} {one.effective_at_ms}" for one in (*holds, *coming))


def _rates_text(rates: Mapping[str, int]) -> str:
    return "".join(f",{dimension}={rate}" for dimension, rate in rates.items()) or "-"
