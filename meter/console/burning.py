"""The grants of a user in the order in which they burn, as a bar and as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from meter.console.figures import places_of, plain, share
from meter.contract.answers import Grant

_SCHEDULED = ("pending", "scheduled")
_WIDE_ENOUGH = Decimal("0.035")
"""Of the bar: what its number needs."""
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
SHADES = 3


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant, `number` in burn order (0: not yet), in one of three shades."""

    grant: Grant
    number: int
    name: str
    badge: tuple[str, str]

    @property
    def shade(self) -> int:
        """The shade of the bar and of the number."""
        return min(self.number, SHADES) if self.number <= SHADES else 2 + self.number % 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A grant of the bar: where it begins, how much of it is free and how much is held."""

    row: GrantRow
    start: str
    free: str
    held_start: str
    held: str
    has_number: bool


def rows_of(grants: Sequence[Grant]) -> list[GrantRow]:
    """Live grants in burn order, then those that are to come."""
    live = sorted((grant for grant in grants if grant.state not in _SCHEDULED), key=_order)
    burning = [grant for grant in live if grant.remaining or grant.reserved]
    to_come = sorted((grant for grant in grants if grant.state in _SCHEDULED), key=lambda grant: grant.effective_at)
    first_free = next((grant.grant_id for grant in burning if grant.remaining), "")
    rows = [GrantRow(grant, n, name_of(grant), _badge(grant, first_free)) for n, grant in enumerate(burning, 1)]
    return rows + [GrantRow(grant, 0, name_of(grant), _badge(grant, "")) for grant in to_come]


def name_of(grant: Grant) -> str:
    """What a grant is called: what it came from."""
    kind, _, which = grant.source.partition(":")
    names = {"plan": f"Plan {which}", "promo": f"Promo {which}", "rollover": "Rolled over"}
    return names.get(kind, "Credits added" if kind == "api" else grant.source)


def pieces_of(rows: Sequence[GrantRow]) -> list[Piece]:
    """The bar: as long as what is free and held."""
    burning = [row for row in rows if row.number]
    whole = sum((row.grant.remaining + row.grant.reserved for row in burning), Decimal(0))
    found, start = [], Decimal(0)
    for row in burning:
        free, held = row.grant.remaining, row.grant.reserved
        found.append(
            Piece(
                row,
                share(start, whole),
                share(free, whole),
                share(start + free, whole),
                share(held, whole) if held else "",
                whole > 0 and (free + held) / whole >= _WIDE_ENOUGH,
            )
        )
        start += free + held
    return found


def sentence_of(rows: Sequence[GrantRow]) -> str:
    """The bar in words."""
    burning = [row for row in rows if row.number]
    places = places_of(row.grant.remaining + row.grant.reserved for row in burning)
    told = ", ".join(
        f"{row.name.lower()} {plain(row.grant.remaining + row.grant.reserved, places)}" for row in burning[:6]
    )
    held = sum((row.grant.reserved for row in burning), Decimal(0))
    rest = f" and {len(burning) - 6} more" if len(burning) > 6 else ""
    return f"{len(burning)} grants in burn order: {told}{rest}; {plain(held, places_of([held]))} of it is held."


def _order(grant: Grant) -> tuple[int, datetime, datetime, datetime, str]:
    return (grant.priority, grant.expires_at or _NEVER, grant.effective_at, grant.created_at, grant.grant_id)


def _badge(grant: Grant, first_free: str) -> tuple[str, str]:
    if grant.state in _SCHEDULED:
        return "info", grant.state
    if grant.state == "active":
        return "ok", "burns next" if grant.grant_id == first_free else "active"
    if grant.state == "exhausted" and grant.reserved:
        return "held", "all held"
    return "gone", "used up" if grant.state == "exhausted" else grant.state
