"""What counts as a number of credits or tokens in a JSON document.

Non-negative and finite, written as a JSON number of at most `NUMBER_BYTES_MAX` bytes (some providers put it into a
string), at most `NUMBER_MAX`, with at most `DECIMAL_PLACES_MAX` digits behind the point. Everything else (booleans,
null, NaN, negative numbers, exponents out of range) is no number here.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

Number = int | Decimal

NUMBER_BYTES_MAX = 64
NUMBER_MAX = 2**53 - 1
"""The largest integer that every JSON implementation agrees on; no amount may be larger."""
DECIMAL_PLACES_MAX = 64
"""Keeps `1e-999999999` away from code that would write out its zeros."""

_JSON_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def read_number(token: bytes) -> Number | None:
    """The number that `token` spells, an `int` where it has neither point nor exponent."""
    if len(token) > NUMBER_BYTES_MAX:
        return None
    match = _JSON_NUMBER.fullmatch(token)
    if match is None:
        return None
    number = int(token) if match.lastindex is None else _read_decimal(token)
    return number if number is not None and 0 <= number <= NUMBER_MAX else None


def _read_decimal(token: bytes) -> Number | None:
    try:
        number = Decimal(token.decode("ascii"))
    except InvalidOperation:  # the exponent does not even fit a Decimal
        return None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -DECIMAL_PLACES_MAX:
        return None
    return number.copy_abs() if number == 0 else number  # `-0.0` is 0
