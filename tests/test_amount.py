"""Amounts: what is accepted, what is refused, and that nothing is ever rounded."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.amount import UNITS_MAX, AmountScale, is_countable
from meter.errors import InvalidAmount

SIX = AmountScale(6)
WHOLE = AmountScale(0)


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (0, 0),
        (-1, -1_000_000),
        (30, 30_000_000),
        (0.5, 500_000),
        (0.000001, 1),
        (1e-6, 1),
        (0.1, 100_000),
        (1.1, 1_100_000),
        ("0.000001", 1),
        ("12.5", 12_500_000),
        ("-0.000001", -1),
        ("007.10", 7_100_000),
        ("1.000000000", 1_000_000),
        ("9007199254.740991", UNITS_MAX),
        ("-9007199254.740991", -UNITS_MAX),
        (Decimal("9007199254.740991"), UNITS_MAX),
        (Decimal("1E+3"), 1_000_000_000),
        (Decimal("0E+999999"), 0),
        (1e3, 1_000_000_000),
    ],
)
def test_six_places(value: object, units: int) -> None:
    assert SIX.units(value) == units


@pytest.mark.parametrize("value", [10**14, "100000000000000", 1e14, 2**53 - 1, str(2**53 - 1), -(2**53) + 1])
def test_no_places(value: object) -> None:
    assert WHOLE.units(value) == int(str(value).removesuffix(".0").replace("1e+14", str(10**14)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "must be a number"),
        (False, "must be a number"),
        (None, "must be a number"),
        ("", "must be a number"),
        ("1e3", "must be a number"),
        ("NaN", "must be a number"),
        ("+1", "must be a number"),
        ("1.", "must be a number"),
        (".5", "must be a number"),
        (" 1", "must be a number"),
        ("1\n", "must be a number"),
        ("1,5", "must be a number"),
        ("0x10", "must be a number"),
        ("\u0661", "must be a number"),
        ("9" * 33, "must be a number"),
        ([1], "must be a number"),
        (b"1", "must be a number"),
        (float("nan"), "must be a finite number"),
        (float("inf"), "must be a finite number"),
        (Decimal("-Infinity"), "must be a finite number"),
        (Decimal("sNaN"), "must be a finite number"),
        ("0.0000001", "has more than 6 decimal places"),
        (0.1234567, "has more than 6 decimal places"),
        ("1.00000000000000000000000000000001", "has more than 6 decimal places"),
        (Decimal("1." + "0" * 200 + "1"), "has more than 6 decimal places"),
        (Decimal("1E-999999"), "has more than 6 decimal places"),
        ("9007199254.740992", "must lie within"),
        ("-9007199254.740992", "must lie within"),
        (10**14, "must lie within"),
        (2**53, "must lie within"),
        (10**400, "must lie within"),
        (1e300, "must lie within"),
        (Decimal("1E+999999"), "must lie within"),
        (Decimal("-1E+40"), "must lie within"),
    ],
)
def test_what_is_no_amount(value: object, reason: str) -> None:
    with pytest.raises(InvalidAmount, match=reason):
        SIX.units(value)


@pytest.mark.parametrize("value", [2**53, "9007199254740992", float(2**53), 0.5, "0.0"[:2] + "1"])
def test_what_is_no_whole_amount(value: object) -> None:
    with pytest.raises(InvalidAmount):
        WHOLE.units(value)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (500_000, "0.5"),
        (30_000_000, "30"),
        (-12_000_001, "-12.000001"),
        (10**14, "100000000"),
        (UNITS_MAX, "9007199254.740991"),
    ],
)
def test_text_is_the_shortest_plain_decimal(units: int, text: str) -> None:
    assert SIX.text(units) == text
    assert SIX.credits(units) == Decimal(text)


@given(st.integers(-UNITS_MAX, UNITS_MAX), st.integers(0, 12))
def test_text_and_back(units: int, places: int) -> None:
    scale = AmountScale(places)

    assert scale.units(scale.text(units)) == units
    assert scale.units(scale.credits(units)) == units


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_any_decimal_is_an_amount_or_a_named_fault(value: Decimal) -> None:
    try:
        units = SIX.units(value)
    except InvalidAmount:
        return
    assert Decimal(units).scaleb(-6) == value


@given(st.text() | st.floats() | st.integers() | st.booleans() | st.none())
def test_anything_is_an_amount_or_a_named_fault(value: object) -> None:
    try:
        units = SIX.units(value)
    except InvalidAmount:
        return
    assert -UNITS_MAX <= units <= UNITS_MAX


@pytest.mark.parametrize(
    ("text", "countable"),
    [
        *((text, True) for text in ("0", "0E+999999999", "1E-32", "1E+32")),
        *((text, False) for text in ("1E-33", "1E+33", "1E-999999999999999999", "NaN", "-Infinity")),
    ],
)
def test_what_may_be_written_out(text: str, countable: bool) -> None:
    assert is_countable(Decimal(text)) is countable
