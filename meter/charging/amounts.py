"""Numbers of upstreams as amounts of credits, and amounts as header values."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from meter.usage import Number


def plain(number: Number) -> int | str:
    """A number as an amount: an integer, or a decimal without an exponent."""
    return int(number) if is_whole(number) else f"{number:f}"


def is_whole(number: Number) -> bool:
    """Whether there is nothing behind the point."""
    return isinstance(number, int) or number == number.to_integral_value()


def rounded_up(number: Number, places: int) -> Number:
    """With at most that many decimal places."""
    return number if is_whole(number) else Decimal(number).quantize(Decimal(1).scaleb(-places), ROUND_CEILING)


def header_value(amount: Decimal) -> bytes:
    """The shortest plain decimal."""
    return f"{amount.normalize():f}".encode()
