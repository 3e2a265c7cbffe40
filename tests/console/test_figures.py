"""Amounts and times as pages show them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from meter.console.figures import MINUS, NONE, amount, clock, duration, nearly, places_of, plain, relative, share

NOW = datetime(2026, 11, 30, 18, 40, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "places", "told"),
    [
        ("1830.25", 2, "1,830.25"),
        ("-120", 2, "\N{MINUS SIGN}120.00"),
        ("0", 6, "0"),
        ("9007199254.740991", 2, "9,007,199,254.740991"),
        ("1E+3", 0, "1,000"),
        ("0.000001", 0, "0.000001"),
        ("0.1000000", 0, "0.10"),
    ],
)
def test_an_amount_is_exact_whatever_the_column_has(value: str, places: int, told: str) -> None:
    assert plain(Decimal(value), max(places, places_of([Decimal(value)]))) == told


def test_plus_is_for_credits_in_alone_and_none_is_a_dash() -> None:
    assert (plain(Decimal(5), signed=True), plain(Decimal(-5), signed=True), plain(None)) == ("+5", f"{MINUS}5", NONE)
    assert str(amount(Decimal("12.3"))) == '12<span class="dec">.30</span>'


def test_a_column_has_as_many_places_as_its_longest_amount() -> None:
    assert places_of([Decimal(1), Decimal("2.5"), None]) == 2
    assert places_of([Decimal(1), Decimal("2.000001")]) == 6
    assert places_of([Decimal("1.0"), Decimal(100)]) == 0 == places_of([])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (59, "59 s"), (252, "4 min 12 s"), (3600, "1 h"), (104_400, "1 d 5 h"), (29_000_000, "11 months")],
)
def test_a_span_is_told_by_its_two_largest_units(seconds: int, told: str) -> None:
    assert duration(timedelta(seconds=seconds)) == told


def test_times_are_as_short_as_they_may_be() -> None:
    assert clock(NOW - timedelta(hours=1), NOW) == "17:40:12"
    assert clock(NOW + timedelta(days=1), NOW) == "1 Dec 18:40"
    assert clock(NOW + timedelta(days=365), NOW) == "30 Nov 2027"
    assert relative(NOW + timedelta(hours=29), NOW) == "in 1 d 5 h"
    assert nearly(NOW - timedelta(seconds=12), NOW) == "12 s ago" and nearly(None, NOW) == ""


def test_a_share_is_a_length_and_never_outside() -> None:
    assert share(Decimal(1), Decimal(3)) == "33.333%"
    assert (share(Decimal(5), Decimal(3)), share(Decimal(-1), Decimal(3)), share(Decimal(1), Decimal(0))) == (
        "100.000%",
        "0.000%",
        "0%",
    )
