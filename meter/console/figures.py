"""Amounts and times as pages show them. Amounts are decimals from the call to the page, never a float."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from markupsafe import Markup

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
_NEAR = timedelta(days=2)


def places_of(amounts: Iterable[Decimal | None]) -> int:
    """How many decimals a column needs so that each of its amounts is exact; two where it needs any."""
    needed = max((_places(amount) for amount in amounts if amount is not None), default=0)
    return max(needed, 2) if needed else 0


def _places(amount: Decimal) -> int:
    exponent = amount.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def plain(amount: Decimal | None, places: int | None = None, *, signed: bool = False) -> str:
    """An amount as text: 1,830.25, with a true minus; 0 is "0", none is an en dash. Never fewer places than it has."""
    if amount is None:
        return NONE
    if not amount:
        return "0"
    sign = MINUS if amount < 0 else "+" if signed else ""
    needed = places_of([amount])
    return f"{sign}{abs(amount):,.{needed if places is None else max(places, needed)}f}"


def amount(value: Decimal | None, places: int | None = None, *, signed: bool = False) -> Markup:
    """The same with dimmer decimals."""
    text = plain(value, places, signed=signed)
    whole, point, decimals = text.partition(".")
    return Markup('{}<span class="dec">.{}</span>').format(whole, decimals) if point else Markup("{}").format(whole)


def share(part: Decimal, whole: Decimal) -> str:
    """A length of SVG: how much of a whole a part is."""
    return f"{max(Decimal(0), min(part / whole, Decimal(1))) * 100:.3f}%" if whole else "0%"


def duration(span: timedelta) -> str:
    """1 d 5 h, 14 h, 4 min 12 s: the two largest units, without those that are 0."""
    seconds = max(int(span.total_seconds()), 0)
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days >= 60:
        return f"{days // 30} months" if days < 730 else f"{days // 365} years"
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s"))
    first = next((place for place, (number, _) in enumerate(units) if number), 0)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number) or "0 s"


def clock(at: datetime, now: datetime) -> str:
    """1 Dec 00:00; with the year where it is another one, without the day where it is today."""
    at = at.astimezone(UTC)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    return f"{at.day} {at:%b %H:%M}" if at.year == now.year else f"{at.day} {at:%b %Y}"


def relative(at: datetime, now: datetime) -> str:
    """in 1 d 5 h, 12 s ago."""
    return f"in {duration(at - now)}" if at >= now else f"{duration(now - at)} ago"


def when(at: datetime | None, now: datetime) -> Markup:
    """A time with its exact value for whoever points at it."""
    if at is None:
        return Markup("{}").format(NONE)
    exact = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact, clock(at, now))


def nearly(at: datetime | None, now: datetime) -> str:
    """How long until then, or since; what lies further away than two days is told in months from a month on."""
    if at is None:
        return ""
    far = abs(at - now)
    return relative(at, now) if far <= _NEAR or far > timedelta(days=30) else f"in {far.days} days" if at > now else ""
