"""A second reading of docs/plans.md: slow, eager, by steps, and without a line in common with what it is compared with.

One user, one group, UTC. Time is whole hours since an epoch; every period is given when it begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Paper:
    """What a plan says: how much, each what, valid how long, and what of the rest lives on: (percent, days), or at most
    `cap` of a whole limit."""

    limit: int
    unit: str
    valid_days: int | None = None
    roll: tuple[int, int] | None = None
    cap: int | None = None
    priority: int = 10

    def lives_on(self, amount: int) -> int:
        """The most of an amount that rolls over."""
        if self.roll is None:
            return 0
        return amount * self.roll[0] // 100 if self.cap is None else amount * self.cap // self.limit


@dataclass
class Lot:
    """Credits; `gone` is when they were voided, `owner` the subscription that gave them."""

    amount: int
    begins: datetime
    ends: datetime
    rest: int = 0
    rest_days: int = 0
    gone: datetime | None = None
    priority: int = 10
    owner: int = 0
    left: int = -1
    rolled: bool = False

    def __post_init__(self) -> None:
        self.left = self.amount

    def worth(self, at: datetime) -> int:
        """What is left of it; no earlier moment may be asked for afterwards."""
        if self.gone is not None and self.gone <= at:
            return 0
        if not self.rolled and self.ends <= at:
            self.rolled, self.left = True, min(self.rest, self.left)
            self.begins, self.ends = self.ends, self.ends + timedelta(days=self.rest_days)
        return self.left if self.begins <= at < self.ends else 0

    @property
    def place(self) -> tuple[int, datetime, datetime]:
        """Who comes first is spent first."""
        return self.priority, self.ends, self.begins


def later(anchor: datetime, unit: str, number: int) -> datetime:
    """By the calendar, one unit after the other."""
    if unit in ("daily", "weekly"):
        return anchor + timedelta(days=number * (1 if unit == "daily" else 7))
    year, month = anchor.year, anchor.month
    for _ in range(number * (1 if unit == "monthly" else 12)):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    for day in (anchor.day, 30, 29, 28):
        if day <= anchor.day:
            try:
                return anchor.replace(year=year, month=month, day=day)
            except ValueError:
                continue
    raise AssertionError


@dataclass
class Reading:
    """What is so, at every moment, by the rules."""

    plans: dict[str, list[tuple[datetime | None, Paper]]]
    plan: str | None = None
    unit: str = ""
    anchor: datetime = datetime(2000, 1, 1)
    number: int = 0
    starts: datetime = datetime(2000, 1, 1)
    ends: datetime = datetime(2000, 1, 1)
    renews: bool = True
    coming: str | None = None
    void_at_end: bool = False
    running: bool = False
    lots: list[Lot] = field(default_factory=list)
    spans: list[tuple[Lot, int, datetime, datetime]] = field(default_factory=list)
    """Of the current period: (lot, amount, from, until)."""
    owner: int = 0
    is_open: bool = False
    """Whether nobody can say what was spent: two subscriptions gave lots alike, and ids of theirs decided."""

    def paper(self, plan: str, begins: datetime) -> Paper:
        """Rule 4: of the last change before the period began."""
        known = [paper for since, paper in self.plans[plan] if since is None or since < begins]
        return known[-1]

    def pass_time(self, to: datetime) -> None:
        """Rules 1 to 5."""
        while self.running and self.ends <= to:
            at = self.ends
            if self.coming is not None:
                self._begin(self.coming, self.paper(self.coming, at), at, self.spans)
            elif not self.renews:
                self._stop(at, void=self.void_at_end)
            else:
                assert self.plan is not None
                paper = self.paper(self.plan, at)
                if paper.unit != self.unit:
                    self._begin(self.plan, paper, at, self.spans)
                else:
                    self.number += 1
                    self.starts, self.ends = at, later(self.anchor, self.unit, self.number + 1)
                    self._give_whole(paper, at, self.spans)

    def put(self, plan: str, paper: Paper, at: datetime) -> None:
        self.plans[plan].append((at, paper))

    def assign(self, plan: str, renews: bool | None, at: datetime) -> bool:
        self.pass_time(at)
        if self.running:
            if self.plan != plan:
                return False
            if renews is not None and renews != self.renews:
                self.renews = renews
                self.void_at_end = self.void_at_end and not renews
            return True
        self.renews, self.void_at_end = renews is not False, False
        self._begin(plan, self.plans[plan][-1][1], at, [])
        return True

    def change(self, plan: str, when: str, how: str, at: datetime) -> bool:
        self.pass_time(at)
        if not self.running:
            return False
        if plan == self.plan:
            self.coming = None
            return True
        paper = self.plans[plan][-1][1]
        if when == "period_end":
            self.coming = plan
        elif how == "none":
            for lot, *_ in self.spans:
                lot.gone = at
            self._begin(plan, paper, at, [])
        elif paper.unit != self.unit:
            self._begin(plan, paper, at, self.spans)
        else:
            self.plan, self.coming = plan, None
            part = self._still(paper.limit, at, self.spans)
            counted = self.starts
            self._give(paper, part, at, counted)
        return True

    def end(self, when: str, unspent: str, at: datetime) -> bool:
        self.pass_time(at)
        if self.plan is None:
            return False
        if not self.running:
            if unspent == "void" and not self.void_at_end:
                self._stop(at, void=True)
                self.void_at_end = True
        elif when == "now":
            self.void_at_end = unspent == "void"
            self._stop(at, void=self.void_at_end)
        else:
            self.renews, self.coming, self.void_at_end = False, None, unspent == "void"
        return True

    def worth(self, at: datetime) -> int:
        self.pass_time(at)
        return sum(lot.worth(at) for lot in self.lots)

    def spend(self, amount: int, at: datetime) -> int:
        """As much of it as there is; answers how much."""
        self.pass_time(at)
        alive = [lot for lot in self.lots if lot.worth(at)]
        wanted = amount
        for lot in sorted(alive, key=lambda lot: lot.place):  # those alike in the order in which they were given
            like = [other for other in alive if other.place == lot.place and other.owner != lot.owner]
            self.is_open = self.is_open or (wanted > 0 and bool(like))
            taken = min(wanted, lot.left)
            lot.left, wanted = lot.left - taken, wanted - taken
        return amount - wanted

    def _begin(self, plan: str, paper: Paper, at: datetime, before: list[tuple[Lot, int, datetime, datetime]]) -> None:
        self.plan, self.unit, self.anchor, self.number, self.coming = plan, paper.unit, at, 0, None
        self.owner += 1
        self.starts, self.ends, self.running = at, later(at, paper.unit, 1), True
        self._give_whole(paper, at, before)

    def _stop(self, at: datetime, *, void: bool) -> None:
        self.running, self.coming = False, None
        for lot, *_ in self.spans:
            if void and (lot.gone is None or at < lot.gone):
                lot.gone = at

    def _give_whole(self, paper: Paper, at: datetime, before: list[tuple[Lot, int, datetime, datetime]]) -> None:
        self.spans = [span for span in before if span[3] > at]
        self._give(paper, self._still(paper.limit, at, self.spans), at, at)

    def _still(self, limit: int, at: datetime, spans: list[tuple[Lot, int, datetime, datetime]]) -> int:
        """Rules 9 and 10, in whole hours."""
        wanted = Fraction(limit * ((self.ends - at) // HOUR), (self.ends - self.starts) // HOUR)
        for _, amount, since, until in spans:
            shared = (min(until, self.ends) - max(since, at)) // HOUR
            wanted -= Fraction(amount * max(0, shared), (until - since) // HOUR)
        return max(0, wanted.numerator // wanted.denominator)

    def _give(self, paper: Paper, amount: int, at: datetime, counted: datetime) -> None:
        ends = self.ends if paper.valid_days is None else counted + timedelta(days=paper.valid_days)
        if amount == 0 or ends <= at:
            return
        lot = Lot(amount, at, ends, paper.lives_on(amount), priority=paper.priority, owner=self.owner)
        if paper.roll is not None:
            lot.rest_days = paper.roll[1]
        self.lots.append(lot)
        self.spans.append((lot, amount, at, self.ends))
