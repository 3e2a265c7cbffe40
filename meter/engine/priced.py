"""The operations whose amount is what a usage costs: declared as those of meter/engine/operations.py are.

Each answers as its namesake does, with the price behind it (meter/engine/prices.py).
"""

from __future__ import annotations

from meter.engine.answers import (
    BUDGET_REACHED,
    INSUFFICIENT,
    MODEL_NOT_ALLOWED,
    NOT_PRICED,
    OUTBOX_FULL,
    OVERFLOW,
    RATE_LIMITED,
    RATES_MISSING,
    SUSPENDED,
    UNBOUNDED,
    UNCOUNTABLE,
    UNKNOWN_MODEL,
    UNPRICED,
    Declared,
    Operation,
    Subject,
    names,
)
from meter.engine.asked import UNKEYED, Asked, fingerprint_of, keyed
from meter.engine.operations import COMMIT, DEDUCT, RESERVE

_COSTS = (UNKNOWN_MODEL, UNPRICED, UNCOUNTABLE, RATES_MISSING, MODEL_NOT_ALLOWED)

DEDUCT_USAGE = Declared(
    "deduct_usage",
    Subject.USER,
    names("user_id usage shortfall amount"),
    DEDUCT.answer,
    refusals=(INSUFFICIENT, BUDGET_REACHED, SUSPENDED, RATE_LIMITED, OVERFLOW, OUTBOX_FULL, *_COSTS),
    books=DEDUCT.books,
    answered=DEDUCT.answered,
)


def deduct_usage(
    user_id: str, usage: str, shortfall: str = "reject", asked: Asked = UNKEYED, *, amount: int | None = None
) -> Operation:
    """Spends what a usage costs (`usage_text` of meter/engine/prices.py); an amount where there is no card."""
    return keyed("deduct_usage", asked, (user_id, usage, shortfall, _units(amount)))


RESERVE_USAGE = Declared(
    "reserve_usage",
    Subject.USER,
    names("user_id reservation_id usage ttl_ms chosen at_end amount"),
    RESERVE.answer,
    refusals=(*RESERVE.refusals, UNBOUNDED, *_COSTS),
    books=RESERVE.books,
    answered=RESERVE.answered,
)


def reserve_usage(
    user_id: str,
    reservation_id: str,
    usage: str,
    ttl_ms: int,
    *,
    chosen: bool,
    at_end: str = "release",
    asked: Asked = UNKEYED,
    amount: int | None = None,
) -> Operation:
    """Holds what a usage costs at most; see `operations.reserve`. An amount is held where there is no card."""
    own = (user_id, reservation_id, usage, str(ttl_ms), "1" if chosen else "0", at_end, _units(amount))
    body = own if chosen else (user_id, *own[2:])
    fingerprint = fingerprint_of("reserve_usage", body, asked.body) if asked.key or chosen else ""
    return ("reserve_usage", asked.key, fingerprint, asked.row, *own)


def reserve_usage_for_request(
    user_id: str, reservation_id: str, usage: str, ttl_ms: int, *, at_end: str, asked: Asked, amount: int
) -> Operation:
    """The same for a request; see `operations.reserve_for_request`. A usage without a model ("-") holds the amount,
    too, and is priced when the model is known.
    """
    own = (user_id, reservation_id, usage, str(ttl_ms), "request", at_end, str(amount))
    return ("reserve_usage", "", "", asked.row, *own)


COMMIT_USAGE = Declared(
    "commit_usage",
    Subject.RESERVATION,
    names("reservation_id usage over shortfall amount"),
    COMMIT.answer,
    refusals=(*COMMIT.refusals, NOT_PRICED, *_COSTS),
    books=COMMIT.books,
    answered=COMMIT.answered,
)


def commit_usage(
    reservation_id: str,
    usage: str,
    over: str = "cap",
    asked: Asked = UNKEYED,
    *,
    shortfall: str = "partial",
    amount: int | None = None,
) -> Operation:
    """Settles a reservation for what a usage costs by the version that priced its hold; an amount where none did."""
    return keyed("commit_usage", asked, (reservation_id, usage, over, shortfall, _units(amount)))


QUOTE = Declared(
    "quote",
    Subject.USER,
    names("user_id usage amount"),
    names("user_id amount would violations"),
    refusals=(UNBOUNDED, *_COSTS),
)


def quote(user_id: str, *, usage: str = "", amount: int | None = None, tags: str = "") -> Operation:
    """What a reserve of a usage, or of an amount, would hold now; `tags` are what it is for."""
    return ("quote", "", "", Asked(tags=tags).row, user_id, usage, _units(amount))


def _units(amount: int | None) -> str:
    return "" if amount is None else str(amount)


DECLARED = (DEDUCT_USAGE, RESERVE_USAGE, COMMIT_USAGE, QUOTE)
"""What callers can ask for besides."""
