"""Options are checked once, and a complaint names the option as the command line does."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from meter.replay import OptionError, ReplayOptions, parse_credit, parse_estimate, parse_speed

TRACE = Path("trace.csv")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"url": "127.0.0.1:8000"}, "--url is '127.0.0.1:8000'"),
        ({"url": "http://"}, "--url"),
        ({"url": "http://h:99999"}, "--url"),
        ({"speed": 0.0}, "--speed"),
        ({"speed": float("nan")}, "--speed"),
        ({"speed": float("inf")}, "--speed"),
        ({"users": 0}, "--users is 0"),
        ({"estimate": -1}, "--estimate"),
        ({"release_share": 1.1}, "--release-share"),
        ({"rows_max": 0}, "--rows"),
        ({"credit": Decimal(0)}, "--credit"),
        ({"credit": Decimal("NaN")}, "--credit"),
        ({"prefix": "a/b"}, "--prefix"),
        ({"prefix": "a" * 65}, "--prefix"),
        ({"prefix": ""}, "--prefix"),
        ({"concurrency": 0}, "--concurrency"),
        ({"patience_seconds": 0.0}, "--patience"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(OptionError, match="^" + complaint):
        ReplayOptions(TRACE, **options)  # type: ignore[arg-type]


def test_texts_of_the_command_line_are_read() -> None:
    assert parse_speed("max") is None
    assert parse_speed("2.5") == 2.5
    assert parse_estimate("exact") is None
    assert parse_estimate("256") == 256
    with pytest.raises(OptionError, match="--speed is 'fast', not a number or max"):
        parse_speed("fast")
    with pytest.raises(OptionError, match=r"--estimate is '1\.5', not a whole number or exact"):
        parse_estimate("1.5")
    assert parse_credit("0.50") == Decimal("0.5")
    with pytest.raises(OptionError, match="--credit is 'much', not a number"):
        parse_credit("much")
