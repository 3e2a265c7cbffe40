"""The bounds that depend on a deployment's settings, written into the OpenAPI document.

The models (meter/contract) mark where one belongs by the member `MARK` of a schema, whose value names what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import nextafter
from typing import NamedTuple

from meter.amount import UNITS_MAX, AmountScale
from meter.config import Settings
from meter.contract.fields import AMOUNT, AMOUNT_TEXT, BATCH_MAX, MARK, POSITIVE_AMOUNT, RATE, SIGNED_AMOUNT, TTL
from meter.contract.rates import RATE_MAX_UNITS
from meter.errors import InvalidAmount
from meter.openapi.up_to import whole_numbers_up_to

JsonObject = dict[str, object]
POSITIVE = r"(?![0.]+$)"
"""Before a pattern of amounts: not one that is zero."""


class Bounds(NamedTuple):
    """What a deployment chose of what a caller may send."""

    decimal_places: int = 6
    ttl_max_seconds: int = 86_400
    batch_max: int = BATCH_MAX

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Those of a deployment."""
        longest = settings.reservation_ttl_max_seconds
        return cls(settings.decimal_places, longest, min(BATCH_MAX, settings.batch_max))


def amount_pattern(bounds: Bounds, units_max: int = UNITS_MAX) -> str:
    """What matches the texts of the amounts of up to `units_max` units in a deployment, without anchors."""
    whole, places = units_max // 10**bounds.decimal_places, bounds.decimal_places
    fraction = rf"(?:\.[0-9]{{1,{places}}}0{{0,12}})?" if places else r"(?:\.0{1,12})?"
    return f"0{{0,8}}(?:(?:{whole_numbers_up_to(whole - 1)}){fraction}|{whole})"


def bounded(value: object, bounds: Bounds) -> object:
    """JSON values with the schemas of this deployment where they are marked."""
    if isinstance(value, Mapping):
        if MARK in value:
            rest = {name: member for name, member in value.items() if name != MARK}
            return {**_schema(str(value[MARK]), bounds), **rest}
        return {name: bounded(member, bounds) for name, member in value.items()}
    return [bounded(member, bounds) for member in value] if isinstance(value, list) else value


def _schema(mark: str, bounds: Bounds) -> JsonObject:
    scale = AmountScale(bounds.decimal_places)
    schemas: dict[str, JsonObject] = {
        AMOUNT: _amount({"minimum": 0}, "", bounds),
        POSITIVE_AMOUNT: _amount({"exclusiveMinimum": 0}, POSITIVE, bounds),
        SIGNED_AMOUNT: _amount(
            {"minimum": -_largest_number(scale, UNITS_MAX), "not": {"const": 0}}, f"-?{POSITIVE}", bounds
        ),
        AMOUNT_TEXT: {"type": "string", "pattern": f"^(?:{amount_pattern(bounds)})?$"},
        RATE: _amount({"exclusiveMinimum": 0}, POSITIVE, bounds, RATE_MAX_UNITS),
        TTL: {"type": "number", "exclusiveMinimum": 0, "maximum": bounds.ttl_max_seconds},
    }
    return schemas[mark]


def _largest_number(scale: AmountScale, units_max: int) -> float:
    """The largest double that is an amount of up to `units_max` when it is read by its digits."""
    found = float(scale.text(units_max))
    while not _is_read(found, scale, units_max):
        found = nextafter(found, 0)
    return found


def _is_read(number: float, scale: AmountScale, units_max: int) -> bool:
    try:
        return scale.units(Decimal(repr(number))) <= units_max
    except InvalidAmount:
        return False


def _amount(least: JsonObject, before: str, bounds: Bounds, units_max: int = UNITS_MAX) -> JsonObject:
    most = _largest_number(AmountScale(bounds.decimal_places), units_max)
    step: JsonObject = {"type": "number", "multipleOf": float(f"1e-{bounds.decimal_places}")}
    if not bounds.decimal_places:
        step = {"type": "integer"}
    return {
        "anyOf": [
            {**step, **least, "maximum": most},
            {"type": "string", "pattern": f"^{before}{amount_pattern(bounds, units_max)}$"},
        ],
        "description": "Credits, an exact decimal; write it as a string where your language would round a number.",
    }
