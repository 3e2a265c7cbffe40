"""What a gateway's configuration chose, by the query of the authorizer's path. Every function raises `Answered`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from meter.amount import AmountScale
from meter.errors import InvalidAmount
from meter.http.exchange import Request
from meter.http.rendered import Answered, validation_problem

MODES = ("reserve", "deduct", "check")
DIALECTS = ("", "nginx")


class Choices(NamedTuple):
    """`amount` (a decimal) beats the header and the default."""

    mode: str
    nginx: bool = False
    amount: str = ""


def choices_of(request: Request, default: Choices) -> Choices:
    """The choices of a request. What follows the authorizer's path, and a query behind that, are the client's."""
    if not request.query or "rest" in request.path:
        return default
    chosen = _choices(request.query, default.mode)
    uri = request.headers.get(b"x-forwarded-uri", b"")
    if uri.partition(b"?")[2].decode("latin-1") == request.query:
        # A gateway that puts the client's query behind our path would let the client choose the mode.
        detail = "must be the gateway's own, but is the client's: give the authorize URI a query, such as ?mode=reserve"
        raise Answered(validation_problem([("", detail)]))
    return chosen


@lru_cache(maxsize=64)
def fixed_price(scale: AmountScale, amount: str) -> int:
    """Units of the amount that was chosen."""
    try:
        units = scale.units(amount)
    except InvalidAmount as error:
        raise Answered(validation_problem([("/amount", str(error))])) from None
    if units < 0:
        raise Answered(validation_problem([("/amount", "must not be negative")]))
    return units


@lru_cache(maxsize=64)
def _choices(query: str, mode: str) -> Choices:
    pairs = parse_qsl(query, keep_blank_values=True)
    chosen = dict(pairs)
    faults = [(f"/{name}", "is not known here") for name in chosen.keys() - {"mode", "dialect", "amount"}]
    if len(chosen) != len(pairs):
        faults.append(("", "a query parameter is given twice"))
    if chosen.get("mode", mode) not in MODES:
        faults.append(("/mode", f"must be one of {', '.join(MODES)}"))
    if chosen.get("dialect", "") not in DIALECTS:
        faults.append(("/dialect", "must be nginx"))
    if faults:
        raise Answered(validation_problem(faults))
    return Choices(chosen.get("mode", mode), chosen.get("dialect") == "nginx", chosen.get("amount", ""))
