"""How much a period gives, for how long, and what becomes of it (docs/plans.md, rules 8 to 12). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from meter.clock import DAY_MS, NEVER_MS
from meter.engine.at_end import NOTHING_AT_END, AtEnd
from meter.store.plan_rows import PlanTermsRow

SOURCE_MAX_CHARS = 32


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant to be made; times in milliseconds."""

    grant_id: str
    amount: int
    priority: int
    effective_at_ms: int
    expires_at_ms: int
    source: str
    at_end: AtEnd
    only: str
    """The tags of what it may be spent on (meter/engine/restrictions.py); "" for anything."""


@dataclass(frozen=True, slots=True)
class Given:
    """Units that were given for a time, whatever became of them."""

    grant_id: str
    amount: int
    from_ms: int
    until_ms: int

    def share(self, from_ms: int, until_ms: int) -> Fraction:
        """The units that count for a part of the time: a grant counts evenly."""
        common = min(self.until_ms, until_ms) - max(self.from_ms, from_ms)
        return Fraction(self.amount * max(0, common), self.until_ms - self.from_ms)


def owed(limit: int, period: tuple[int, int], at_ms: int, given: Iterable[Given]) -> int:
    """What a limit still gives for the rest of a period (its start and end) from `at_ms` on."""
    start, end = period
    whole = Fraction(limit * (end - at_ms), end - start)
    return max(0, int(whole - sum(one.share(at_ms, end) for one in given)))  # int() of what is positive rounds down


def grants_of(
    terms: PlanTermsRow,
    name: str,
    amount: int,
    *,
    group: str,
    renews: bool,
    from_ms: int,
    counted_from_ms: int,
    until_ms: int,
    now_ms: int,
) -> list[NewGrant]:
    """The grant of an amount from `from_ms` to the period's end `until_ms`, or to the end of its validity, which counts
    from `counted_from_ms`. Of one that would have ended by now the rest that rolled over, if that lives.
    """
    expires_ms = until_ms
    if terms.validity_days is not None:
        expires_ms = counted_from_ms + terms.validity_days * DAY_MS
    expires_ms = min(expires_ms, NEVER_MS)
    if amount <= 0 or expires_ms <= from_ms:
        return []
    at_end = AtEnd(plan_group=group, renews=renews and expires_ms == until_ms)
    if terms.rollover_days is not None:
        at_end = at_end._replace(rollover_max=_cap(terms, amount), rollover_ms=terms.rollover_days * DAY_MS)
    source, only = f"plan:{terms.plan_id}"[:SOURCE_MAX_CHARS], terms.only or ""
    if expires_ms > now_ms:
        return [NewGrant(name, amount, terms.priority, from_ms, expires_ms, source, at_end, only)]
    rest, rest_ends_ms = min(at_end.rollover_max or 0, amount), min(expires_ms + at_end.rollover_ms, NEVER_MS)
    if rest <= 0 or rest_ends_ms <= now_ms:
        return []
    return [NewGrant(rest_of(name), rest, terms.priority, expires_ms, rest_ends_ms, source, NOTHING_AT_END, only)]


def rest_of(name: str) -> str:
    """The id of what rolls over of a grant: the scripts give it that id too, at its end."""
    return f"{name}.rollover"


def dead_until_ms(terms: PlanTermsRow, now_ms: int) -> tuple[str, int]:
    """("start" | "end", time): of a period that starts, or ends, at or before that time nothing is left by now."""
    span_ms = (terms.rollover_days or 0) * DAY_MS
    if terms.validity_days is None:
        return "end", now_ms - span_ms
    return "start", now_ms - span_ms - terms.validity_days * DAY_MS


def read_given(rows: object, otherwise: Sequence[Given]) -> list[Given]:
    """What was given, as a row keeps it."""
    if not isinstance(rows, list):
        return list(otherwise)
    return [Given(str(name), int(amount), int(start), int(end)) for name, amount, start, end in rows]


def _cap(terms: PlanTermsRow, amount: int) -> int:
    """How much of an amount may live on: a part of the limit has that part of the cap."""
    if terms.rollover_percent is None:
        return (terms.rollover_max or 0) * amount // terms.credit_limit
    return amount * terms.rollover_percent // 100
