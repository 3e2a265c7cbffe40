"""The bounds of amounts and rates that the document names are those that bodies are read by."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from meter.amount import UNITS_MAX, AmountScale
from meter.contract.fields import AMOUNT, MARK, POSITIVE_AMOUNT, RATE, Amount, PositiveAmount
from meter.contract.rates import RATE_MAX_UNITS, Rate
from meter.openapi.bounds import Bounds, bounded

READ: dict[str, TypeAdapter[int]] = {
    AMOUNT: TypeAdapter(Amount),
    POSITIVE_AMOUNT: TypeAdapter(PositiveAmount),
    RATE: TypeAdapter(Annotated[Rate, Field()]),
}
MOST = {AMOUNT: UNITS_MAX, POSITIVE_AMOUNT: UNITS_MAX, RATE: RATE_MAX_UNITS}


def _is_read(mark: str, value: object, scale: AmountScale) -> bool:
    try:
        READ[mark].validate_python(value, context=scale)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("decimal_places", [0, 2, 6, 9])
@pytest.mark.parametrize("mark", [AMOUNT, POSITIVE_AMOUNT, RATE])
def test_what_the_document_allows_at_its_bounds_is_read(mark: str, decimal_places: int) -> None:
    """The largest number and text of the schema are read, and what lies a unit above them is refused by both."""
    scale = AmountScale(decimal_places)
    schema: Any = bounded({MARK: mark}, Bounds(decimal_places=decimal_places))
    number, text = schema["anyOf"]
    most = Decimal(repr(number["maximum"]))
    assert _is_read(mark, most, scale)
    assert scale.units(most) <= MOST[mark]
    above = scale.text(MOST[mark] + 1)
    assert not _is_read(mark, above, scale)
    assert not re.search(text["pattern"], above)
    whole = str(MOST[mark] // scale.units_per_credit)
    for value in (whole, "1", "0" + whole, "0", "0.0"):
        allowed = jsonschema.Draft202012Validator(text).is_valid(value)
        assert not allowed or _is_read(mark, value, scale), value
    assert re.search(text["pattern"], whole)
    assert bool(re.search(text["pattern"], "0")) == (mark == AMOUNT)
