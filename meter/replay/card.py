"""What a replay's rows cost by a rate card: worked out here from its file, apart from the sidecar that is checked.

amount = ceil(max(minimum, per_request + Σ quantity · rate / 10^6)) in units, as docs/rate-cards.md has it; a trace has
`input` and `output` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError

from meter.amount import AmountScale
from meter.contract.rates import RateCardRequest, RateLineRequest
from meter.replay.options import OptionError

MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Card:
    """A rate card as its file has it. `text` is what a sidecar is sent."""

    text: bytes
    lines: Mapping[str, RateLineRequest]
    per_request: int
    minimum: int
    scale: AmountScale

    def model_of(self, model: str, row: int) -> str:
        """The model of a row; of one that names none, the only one of the card. Raises `OptionError`."""
        named = [name for name in self.lines if name != "*"]
        found = model or (named[0] if len(named) == 1 else "")
        if not found:
            raise OptionError(f"--card: row {row} names no model, and the card has {len(named)}")
        if found not in self.lines and "*" not in self.lines:
            raise OptionError(f"--card: row {row} is of the model {found!r}, which the card does not have")
        return found

    def credits(self, model: str, tokens_in: int, tokens_out: int) -> Decimal:
        """What a request costs. Raises `OptionError` for a model without a rate of what it used."""
        line = self.lines.get(model) or self.lines["*"]
        if line.free:
            return Decimal(0)
        rates = self._rates(line, tokens_in)
        millionths = sum(quantity * rates[name] for name, quantity in self.usage(model, tokens_in, tokens_out).items())
        units = max(self.minimum * MILLION, self.per_request * MILLION + millionths)
        return self.scale.credits(-(-units // MILLION))

    def usage(self, model: str, tokens_in: int, tokens_out: int) -> dict[str, int]:
        """What a row used, by dimension; nothing of one that has no rate. Raises `OptionError` where there was some."""
        line = self.lines.get(model) or self.lines["*"]
        rates, found = self._rates(line, tokens_in), {}
        for dimension, quantity in (("input", tokens_in), ("output", tokens_out)):
            if dimension in rates:
                found[dimension] = quantity
            elif quantity and not line.free:
                raise OptionError(f"--card: the model {model!r} has no rate of {dimension}, which the trace has")
        return found

    @staticmethod
    def _rates(line: RateLineRequest, tokens_in: int) -> Mapping[str, int]:
        if line.above_input is not None and tokens_in > line.above_input.over:
            return {**line.rates, **line.above_input.rates}
        return line.rates


def read_card(path: Path, decimal_places: int) -> Card:
    """The card of a file, which has the body of `PUT /credits/rate-cards/…`. Raises `OptionError`."""
    scale = AmountScale(decimal_places)
    try:
        text = path.read_bytes()
        body = RateCardRequest.model_validate(json.loads(text, parse_float=Decimal), context=scale)
    except OSError as error:
        raise OptionError(f"--card {path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"/{part}" for part in first["loc"])
        raise OptionError(f"--card {path}: {place or 'it'}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--card {path}: is not JSON: {error}") from None
    lines = {name: line for model, line in body.models.items() for name in (model, *line.aliases)}
    if body.effective_at is not None:
        raise OptionError(f"--card {path}: /effective_at: a replay's card is active at once; leave it out")
    return Card(text, lines, body.per_request, body.minimum, scale)
