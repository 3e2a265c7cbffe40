"""A usage that a gateway or a log tells as an object: as a provider tells it, or as a rate card prices it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

import orjson

from meter.contract.usage import DIMENSION, DIMENSIONS_MAX, OF_THE_LINE
from meter.usage import Format, Number, Usage, shape_of
from meter.usage.number import read_number
from meter.usage.tail import read_end
from meter.usage.usage import TOKENS

AUTO = shape_of(Format.AUTO)
OBJECT_BYTES_MAX = 16 * 1024


def usage_in(told: object, model: str | None = None) -> Usage | None:
    """The usage of an object; None where it tells none. `model`: what answered, where the object does not say."""
    if not isinstance(told, Mapping):
        return None
    named = told.get("model")
    model = named if isinstance(named, str) else model
    text = orjson.dumps({"usage": dict(told)}, default=str, option=orjson.OPT_NON_STR_KEYS)
    if len(text) > OBJECT_BYTES_MAX:
        return None
    found = read_end(AUTO, text, whole=True).usage
    quantities = dict(found.quantities) if found is not None else _own(told)
    if found is None and not quantities:
        return None
    return usage_of(quantities, found.total if found is not None else None, model)


def usage_of(quantities: Mapping[str, Number], total: Number | None, model: str | None) -> Usage:
    """A usage of these quantities, and a total that may be more than they are together."""
    tokens = [number for name, number in quantities.items() if name in TOKENS]
    return Usage(
        profile="told",
        total=max(total or 0, sum(tokens) if tokens else sum(quantities.values())),
        quantities={name: number for name, number in quantities.items() if number},
        model=model,
    )


def _own(told: Mapping[object, object]) -> dict[str, Number]:
    """Quantities by the names that rate cards have for them; nothing where one of them is none."""
    quantities: dict[str, Number] = {}
    for name, value in told.items():
        if name == "model":
            continue
        is_dimension = isinstance(name, str) and re.fullmatch(DIMENSION, name) and name not in OF_THE_LINE
        number = read_number(str(value).encode()) if isinstance(value, int | str | Decimal | float) else None
        if not is_dimension or number is None or isinstance(value, bool) or len(quantities) == DIMENSIONS_MAX:
            return {}
        quantities[str(name)] = number
    return quantities
