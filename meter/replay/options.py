"""The options of a replay, checked once; the messages name them as the command line does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from meter.errors import MeterError
from meter.keys import OBJECT_ID

URL_DEFAULT = "http://127.0.0.1:8000"
PREFIX_MAX = 64
PATIENCE_MAX_SECONDS = 3600

_T = TypeVar("_T")


class OptionError(MeterError):
    """An option is wrong; the message says which one and what would be right."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay, and how. Raises `OptionError`."""

    trace: Path
    url: str = URL_DEFAULT
    speed: float | None = None
    """Times real time; None: as fast as `concurrency` allows."""
    users: int = 100
    estimate: int | None = 256
    """Reserved on top of the context; None: what the row really generated."""
    release_share: float = 0.0
    """Share of the granted rows that are released, as if their request had failed upstream."""
    rows_max: int | None = None
    credit: Decimal | None = None
    """Granted to each user; None: as much as the user's rows can take, so that nothing is refused."""
    seed: int = 0
    prefix: str | None = None
    """User ids are `<prefix>-<n>`; None: `replay-<run id>`, new in each run."""
    concurrency: int = 64
    patience_seconds: float = 30.0
    """How long a call is repeated before the run stops."""
    journal: Path | None = None
    card: Path | None = None
    """What a request costs: the body of `PUT /credits/rate-cards/…`. None: one credit is one token."""
    model_column: str | None = None
    """The column of the trace that has the model; None: `Model`, where there is one."""

    def __post_init__(self) -> None:
        checks = (
            (_is_http(self.url), f"--url is {self.url!r}, not like {URL_DEFAULT}"),
            (self.speed is None or 0 < self.speed < math.inf, f"--speed is {self.speed}, not above 0, or max"),
            (1 <= self.users <= 1_000_000, f"--users is {self.users}, not from 1 to 1000000"),
            (self.estimate is None or 0 <= self.estimate <= 10**9, "--estimate is not from 0 to 1000000000, or exact"),
            (0 <= self.release_share <= 1, f"--release-share is {self.release_share}, not from 0 to 1"),
            (self.rows_max is None or self.rows_max >= 1, f"--rows is {self.rows_max}, not 1 or more"),
            (
                self.credit is None or (self.credit.is_finite() and self.credit > 0),
                f"--credit is {self.credit}, not above 0",
            ),
            (_is_prefix(self.prefix), f"--prefix is {self.prefix!r}, not 1 to {PREFIX_MAX} of A-Z a-z 0-9 . _ : -"),
            (self.model_column is None or self.card is not None, "--model-column is of no use without --card"),
            (1 <= self.concurrency <= 10_000, f"--concurrency is {self.concurrency}, not from 1 to 10000"),
            (
                0 < self.patience_seconds <= PATIENCE_MAX_SECONDS,
                f"--patience is {self.patience_seconds:g}, not above 0 and up to {PATIENCE_MAX_SECONDS}",
            ),
        )
        for holds, complaint in checks:
            if not holds:
                raise OptionError(complaint)


def parse_speed(text: str) -> float | None:
    """The speed of an option: a number, or `max` (None). Raises `OptionError`."""
    return None if text == "max" else _number(text, float, "--speed is {!r}, not a number or max")


def parse_estimate(text: str) -> int | None:
    """The estimate of an option: a whole number, or `exact` (None). Raises `OptionError`."""
    return None if text == "exact" else _number(text, int, "--estimate is {!r}, not a whole number or exact")


def parse_credit(text: str) -> Decimal:
    """The credit of an option: a plain decimal. Raises `OptionError`."""
    try:
        return Decimal(text)
    except ArithmeticError:
        raise OptionError(f"--credit is {text!r}, not a number") from None


def _number(text: str, kind: Callable[[str], _T], complaint: str) -> _T:
    try:
        return kind(text)
    except ValueError:
        raise OptionError(complaint.format(text)) from None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_prefix(prefix: str | None) -> bool:
    return prefix is None or (len(prefix) <= PREFIX_MAX and OBJECT_ID.fullmatch(prefix) is not None)
