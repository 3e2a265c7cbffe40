"""How long credits last at the pace of late: a walk forward over what ends, begins and renews, in burn order. Pure.

Amounts are units and times milliseconds; the walk is exact, so that what it says does not depend on how it is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, pstdev
from typing import Literal, NamedTuple

from meter.clock import DAY_MS
from meter.engine.at_end import NOTHING_AT_END, AtEnd

HORIZON_MS = 366 * DAY_MS
"""How far ahead is looked."""
HISTORY_MS = DAY_MS
"""With less than that behind there is no pace."""
WINDOW_MS = 7 * DAY_MS
"""Whose charges make the pace: a week has its weekend, and a change of habit is seen within days."""
MARGIN = Fraction(5, 4)
"""What was told is told again when the credits have lasted a quarter longer than that in between."""

Confidence = Literal["low", "medium", "high"]


class Lot(NamedTuple):
    """Free credits from a time until another."""

    amount: Fraction | int
    priority: int
    effective_at_ms: int
    expires_at_ms: int
    created_at_ms: int
    grant_id: str
    at_end: AtEnd = NOTHING_AT_END

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """What burns first comes first."""
        return self.priority, self.expires_at_ms, self.effective_at_ms, self.created_at_ms, self.grant_id


@dataclass(frozen=True, slots=True)
class Pace:
    """What was spent in a time: charges less refunds, never less than nothing; credits that came in do not count."""

    units: int
    span_ms: int
    confidence: Confidence = "low"

    @property
    def per_ms(self) -> Fraction:
        """Units a millisecond."""
        return Fraction(max(0, self.units), self.span_ms)

    @property
    def per_day(self) -> int:
        """Units a day, rounded down."""
        return int(self.per_ms * DAY_MS)


@dataclass(frozen=True, slots=True)
class Forecast:
    """When nothing is left (None: not within the horizon), when credits come next (None: nothing is known to), and
    whether there is something left until then.
    """

    runs_out_at_ms: int | None
    next_credits_at_ms: int | None

    @property
    def is_covered(self) -> bool | None:
        """None where no credits are to come."""
        if self.next_credits_at_ms is None:
            return None
        return self.runs_out_at_ms is None or self.runs_out_at_ms >= self.next_credits_at_ms


def forecast(lots: Iterable[Lot], debt: int, pace: Pace, now_ms: int) -> Forecast:
    """Walks from now on. Debt is paid by the first credits that come in."""
    alive = [lot for lot in lots if lot.expires_at_ms > now_ms]
    coming = sorted((lot for lot in alive if lot.effective_at_ms > now_ms), key=lambda lot: lot.effective_at_ms)
    walk = _Walk([lot for lot in alive if lot.effective_at_ms <= now_ms], debt, pace.per_ms, now_ms)
    next_ms = coming[0].effective_at_ms if coming else None
    end_ms = now_ms + HORIZON_MS
    while walk.at_ms < end_ms:
        if walk.total <= 0:
            return Forecast(walk.at_ms, next_ms)
        ends_ms = min((lot.expires_at_ms for lot in walk.lots), default=end_ms)
        until_ms = min(ends_ms, coming[0].effective_at_ms if coming else end_ms, end_ms)
        empty_ms = walk.burn(until_ms)
        if empty_ms is not None:
            return Forecast(empty_ms, next_ms)
        while coming and coming[0].effective_at_ms <= until_ms:
            walk.begin(coming.pop(0))
        walk.end()
    return Forecast(None, next_ms)


class _Walk:
    """Credits while time passes."""

    def __init__(self, lots: Iterable[Lot], debt: int, per_ms: Fraction, at_ms: int) -> None:
        self.lots = sorted(lots, key=lambda lot: lot.order)
        self.at_ms = at_ms
        self._debt: Fraction | int = debt
        self._per_ms = per_ms

    @property
    def total(self) -> Fraction | int:
        return sum(lot.amount for lot in self.lots)

    def burn(self, until_ms: int) -> int | None:
        """Spends up to a time; answers when everything is spent before that."""
        left = self._per_ms * (until_ms - self.at_ms)
        if self.total < left:
            return self.at_ms + int(self.total / self._per_ms)
        rest: list[Lot] = []
        for lot in self.lots:
            spent = min(left, lot.amount)
            left -= spent
            if lot.amount > spent:
                rest.append(lot._replace(amount=lot.amount - spent))
        self.lots, self.at_ms = rest, until_ms
        return None

    def begin(self, lot: Lot) -> None:
        paid = min(self._debt, lot.amount)
        self._debt -= paid
        self._add(lot._replace(amount=lot.amount - paid))

    def end(self) -> None:
        """What has ended goes, and what of it rolls over begins."""
        over = [lot for lot in self.lots if lot.expires_at_ms <= self.at_ms]
        self.lots = [lot for lot in self.lots if lot.expires_at_ms > self.at_ms]
        for lot in over:
            if lot.at_end.rollover_max is not None:
                ends_ms = lot.expires_at_ms + lot.at_end.rollover_ms
                rest = min(lot.amount, lot.at_end.rollover_max)
                self._add(lot._replace(amount=rest, expires_at_ms=ends_ms, at_end=NOTHING_AT_END))

    def _add(self, lot: Lot) -> None:
        if lot.amount > 0 and lot.expires_at_ms > self.at_ms:
            self.lots = sorted([*self.lots, lot], key=lambda one: one.order)


def confidence_of(days: Sequence[int], span_ms: int) -> Confidence:
    """How far a pace is to be trusted: by how many days are behind it and how alike they are."""
    average = fmean(days) if days else 0
    spread = pstdev(days) / average if average > 0 else 0
    if span_ms < 3 * DAY_MS or spread > 1.5:
        return "low"
    return "high" if span_ms >= WINDOW_MS and spread <= 0.5 else "medium"


class Judged(NamedTuple):
    """What was told by now (days; None: nothing), and what is to be told."""

    told: int | None
    alert: int | None = None


def judged(days: Sequence[int], told: int | None, left_ms: int | None) -> Judged:
    """What is to be told when credits last for so long (None: beyond the horizon); `days` ascend. Told once on
    crossing, and again only after they have lasted longer than that with a margin.
    """
    crossed = [number for number in days if left_ms is not None and left_ms <= number * DAY_MS]
    if crossed and (told is None or crossed[0] < told):
        return Judged(crossed[0], crossed[0])
    if told is None or (left_ms is not None and left_ms <= told * DAY_MS * MARGIN):
        return Judged(told)
    kept = [number for number in days if left_ms is not None and left_ms <= number * DAY_MS * MARGIN and number > told]
    return Judged(kept[0] if kept else None)
