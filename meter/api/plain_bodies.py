"""The bodies that nearly all requests have, read by one pattern: a third of what reading and validating JSON costs.

A pattern matches only what the models of meter/contract/requests.py read to the same values. Whatever else a body may
be, they read it (`None` here), and they alone say what is wrong with it: tests/api/test_plain_bodies.py compares.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from meter.amount import UNITS_MAX, AmountScale
from meter.contract.requests import CommitRequest, CommitShortfall, Over, ReleaseRequest
from meter.http.exchange import Request
from meter.http.rendered import JSON_TYPE
from meter.keys import USER_ID

_USER: Final = rf'"user_id": ?"({USER_ID.pattern})"'
_AMOUNT: Final = r'"amount": ?(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,12}))?'
_TTL: Final = r'(?:, ?"ttl_seconds": ?([1-9][0-9]{0,9}))?'
_DEDUCT: Final = re.compile(rf"\{{{_USER}, ?{_AMOUNT}\}}".encode())
_RESERVE: Final = re.compile(rf"\{{{_USER}, ?{_AMOUNT}{_TTL}\}}".encode())
_COMMIT: Final = re.compile(rf"\{{{_AMOUNT}\}}".encode())
_ALL_OF_IT: Final = CommitRequest()
_RELEASE: Final = ReleaseRequest()


class PlainDeduct(NamedTuple):
    """A `DeductRequest` that names user and amount."""

    user_id: str
    amount: int
    shortfall: str = "reject"
    api_key: None = None
    usage: None = None
    amount_without_price: None = None
    tags: None = None
    description: None = None
    reference: None = None
    metadata: None = None


class PlainReserve(NamedTuple):
    """A `ReserveRequest` that names user and amount, and perhaps how long."""

    user_id: str
    amount: int
    ttl_seconds: int | None
    reservation_id: None = None
    api_key: None = None
    usage: None = None
    amount_without_price: None = None
    tags: None = None
    description: None = None
    reference: None = None
    metadata: None = None


class PlainCommit(NamedTuple):
    """A `CommitRequest` that names an amount."""

    amount: int
    over: Over = "cap"
    shortfall: CommitShortfall = "partial"
    usage: None = None
    description: None = None
    reference: None = None
    metadata: None = None


class PlainBodies:
    """Reads bodies of one deployment's amounts."""

    def __init__(self, scale: AmountScale) -> None:
        self._places = scale.decimal_places
        self._units_per_credit = scale.units_per_credit

    def deduct(self, request: Request) -> PlainDeduct | None:
        """The body of a deduct."""
        found = _DEDUCT.fullmatch(request.body)
        if found is None or request.headers.get(b"content-type") != JSON_TYPE:
            return None
        user_id, whole, part = found.groups()
        amount = self._units(whole, part)
        if amount is None:
            return None
        return tuple.__new__(
            PlainDeduct, (user_id.decode("ascii"), amount, "reject", None, None, None, None, None, None, None)
        )

    def reserve(self, request: Request) -> PlainReserve | None:
        """The body of a reserve."""
        found = _RESERVE.fullmatch(request.body)
        if found is None or request.headers.get(b"content-type") != JSON_TYPE:
            return None
        user_id, whole, part, seconds = found.groups()
        amount = self._units(whole, part)
        if amount is None:
            return None
        return PlainReserve(user_id.decode("ascii"), amount, None if seconds is None else int(seconds))

    def commit(self, request: Request) -> PlainCommit | CommitRequest | None:
        """The body of a commit, which may have none."""
        if not request.body:
            return _ALL_OF_IT
        found = _COMMIT.fullmatch(request.body)
        if found is None or request.headers.get(b"content-type") != JSON_TYPE:
            return None
        amount = self._units(*found.groups())
        return None if amount is None else PlainCommit(amount)

    def release(self, request: Request) -> ReleaseRequest | None:
        """The body of a release, which has none."""
        return None if request.body else _RELEASE

    def _units(self, whole: bytes, part: bytes | None) -> int | None:
        units = int(whole) * self._units_per_credit
        if part is not None:
            if len(part) > self._places:
                return None
            units += int(part.ljust(self._places, b"0"))
        return units if units <= UNITS_MAX else None
