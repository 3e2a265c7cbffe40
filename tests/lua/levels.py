"""Rules as the tests of the scripts set them."""

from __future__ import annotations

from meter.engine.operations import Operation, configure
from meter.engine.rules import KEPT, change_words

NAME = "b"


def budget(user: str, limit: int, window: str = "day", zone: str = "UTC") -> Operation:
    """A budget of that name."""
    return configure(user, budgets=change_words({NAME: (str(limit), window, zone, *[KEPT] * 4)}))


def rate(user: str, limit: int, kind: str = "requests", burst: str = KEPT, per_ms: str = KEPT) -> Operation:
    """A rate limit of that name."""
    return configure(user, rate_limits=change_words({NAME: (kind, str(limit), per_ms, burst, *[KEPT] * 3)}))


def none(user: str) -> Operation:
    """No budget of that name."""
    return configure(user, budgets=change_words({NAME: None}))
