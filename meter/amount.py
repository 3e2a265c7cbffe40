"""Amounts: exact decimals on the wire, integer units inside.

One credit is `10 ** decimal_places` units. No amount exceeds 2^53 - 1 units, the last integer that Lua,
JavaScript and IEEE doubles count exactly (DESIGN 4.1).
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact

from meter.errors import InvalidAmount

UNITS_MAX = 2**53 - 1

_EXPONENT_MAX = 32
_EXACT = Context(prec=128, traps=[Inexact])  # a digit that does not fit is a fault, never rounded away

_PLAIN_DECIMAL = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?")


class AmountScale:
    """Converts between decimal credits and integer units for one number of decimal places (0 to 12)."""

    __slots__ = ("decimal_places", "units_per_credit")

    def __init__(self, decimal_places: int) -> None:
        self.decimal_places = decimal_places
        self.units_per_credit = 10**decimal_places

    def units(self, value: object) -> int:
        """Units of a wire value: a JSON number, a plain decimal string or a `Decimal`.

        Raises `InvalidAmount` for everything else: booleans, exponents in strings, NaN, more decimal places
        than configured, and what lies outside ±(2^53 - 1) units.
        """
        if type(value) is int:
            return self._checked(value * self.units_per_credit)
        return self._checked(self._scaled(plain_decimal(value)))

    def text(self, units: int) -> str:
        """The shortest plain decimal of an amount, a valid JSON number: 30, 0.5, -12.000001."""
        if units % self.units_per_credit == 0:
            return str(units // self.units_per_credit)
        sign = "-" if units < 0 else ""
        whole, rest = divmod(abs(units), self.units_per_credit)
        return f"{sign}{whole}.{rest:0{self.decimal_places}d}".rstrip("0")

    def text_of(self, units: str) -> str:
        """`text` of an amount that is digits already, as lines of Redis have it: without making a number of it."""
        places = self.decimal_places
        if units[0] == "-" or not 0 < places < len(units):
            return self.text(int(units))
        rest = units[-places:].rstrip("0")
        return f"{units[:-places]}.{rest}" if rest else units[:-places]

    def credits(self, units: int) -> Decimal:
        """The amount as an exact `Decimal` of credits."""
        return Decimal(self.text(units))

    def _scaled(self, value: Decimal) -> int:
        if not value.is_finite():
            raise InvalidAmount("must be a finite number")
        if value.adjusted() > _EXPONENT_MAX and value:
            return UNITS_MAX + 1
        try:
            scaled = value.scaleb(self.decimal_places, _EXACT)
        except Inexact:
            scaled = Decimal("0.5")
        if scaled != scaled.to_integral_value():
            raise InvalidAmount(f"has more than {self.decimal_places} decimal places")
        return int(scaled)

    def _checked(self, units: int) -> int:
        if not -UNITS_MAX <= units <= UNITS_MAX:
            raise InvalidAmount(f"must lie within ±{self.text(UNITS_MAX)}")
        return units


def is_countable(value: Decimal) -> bool:
    """Whether a number is finite and near enough to 1 to be written out: `1e-999999` takes a million digits."""
    return value.is_finite() and (not value or -_EXPONENT_MAX <= value.adjusted() <= _EXPONENT_MAX)


def plain_decimal(value: object) -> Decimal:
    """The exact decimal of a wire value. Raises `InvalidAmount` for booleans, exponents in strings and other types.

    A `Decimal` comes back as it is, whatever its exponent: do not write it out before `is_countable` says so.
    """
    if isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str) and _PLAIN_DECIMAL.fullmatch(value):
        return Decimal(value)
    raise InvalidAmount('must be a number, or a plain decimal in a string such as "12.5"')
