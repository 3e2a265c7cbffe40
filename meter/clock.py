"""Times as the wire has them, and billing periods by the calendar.

A period is told by its anchor, unit, zone and number, and each is computed from these alone, whatever its number: 31
January is followed by 28 (or 29) February and then by 31 March. Wall-clock time of a zone, as UTC milliseconds.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

NEVER_MS = 9999999999999
"""The end of what never ends; `NEVER` in lua/prelude.lua."""

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

_DAYS = {"daily": 1, "weekly": 7}
_MONTHS = {"monthly": 1, "yearly": 12}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class UnknownTimeZone(ValueError):
    """No such IANA time zone."""


def time_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name, from the `tzdata` wheel: the same names and rules on every machine, whatever its own
    files are. Raises `UnknownTimeZone`.
    """
    if name not in zone_names():
        raise UnknownTimeZone(f"{name[:64]!r} is no time zone of the IANA database, such as Europe/Berlin")
    return _zone(name)


@cache
def zone_names() -> frozenset[str]:
    """The names of all zones."""
    names = resources.files("tzdata").joinpath("zones").read_text().split()
    return frozenset(names) - {"Factory"}  # what a clock is set to that nobody has set


@cache
def _zone(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def offsets_between(zone: ZoneInfo, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
    """How far a zone is ahead of UTC, as (until_ms, offset_ms) in the order of time; the last goes on behind `to_ms`.

    Zones change at most a few times a year; each change is looked for between two days of the same week.
    """
    found: list[tuple[int, int]] = []
    at_ms, offset = from_ms, _offset_ms(zone, from_ms)
    while at_ms < to_ms:
        following = min(at_ms + 7 * DAY_MS, to_ms)
        if _offset_ms(zone, following) != offset:
            low, high = at_ms, following
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset_ms(zone, middle) == offset else (low, middle)
            found.append((high, offset))
            following, offset = high, _offset_ms(zone, high)
        at_ms = following
    return [*found, (NEVER_MS, offset)]


def _offset_ms(zone: ZoneInfo, at_ms: int) -> int:
    offset = (_EPOCH + at_ms * _MS).astimezone(zone).utcoffset()
    return 0 if offset is None else offset // _MS


def period_start_ms(anchor_ms: int, billing_period: str, number: int, zone: ZoneInfo) -> int:
    """The start of period `number` (0 starts at the anchor), which is the end of the one before it.

    A wall-clock time that a zone skips in spring is taken as the same moment after the gap; of one that it has twice,
    the first. Where a zone left out a whole day, a daily period has no length.
    """
    if number == 0:
        return anchor_ms
    wall = utc_time(anchor_ms).astimezone(zone).replace(tzinfo=None)
    if billing_period in _DAYS:
        wall += timedelta(days=_DAYS[billing_period] * number)
    else:
        year, month = divmod(wall.year * 12 + wall.month - 1 + _MONTHS[billing_period] * number, 12)
        day = min(wall.day, monthrange(year, month + 1)[1])
        wall = wall.replace(year=year, month=month + 1, day=day)
    return (wall.replace(tzinfo=zone) - _EPOCH) // _MS


def period_number(anchor_ms: int, billing_period: str, at_ms: int, zone: ZoneInfo) -> int:
    """The number of the period that a time from the anchor on lies in; the last one, where several begin at once."""
    first, at = (utc_time(ms).astimezone(zone) for ms in (anchor_ms, at_ms))
    if billing_period in _DAYS:
        number = (at.date() - first.date()).days // _DAYS[billing_period]
    else:
        number = ((at.year - first.year) * 12 + at.month - first.month) // _MONTHS[billing_period]
    number += 2  # beyond it, however the clocks were changed in between
    while number > 0 and period_start_ms(anchor_ms, billing_period, number, zone) > at_ms:
        number -= 1
    return number


def time_text(ms: int) -> str:
    """A JSON string with an RFC 3339 time in UTC with milliseconds; null for never."""
    if ms >= NEVER_MS:
        return "null"
    seconds, rest = divmod(ms, 1000)
    return f'"{_second_text(seconds)}.{rest:03d}Z"'


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def utc_time(ms: int) -> datetime:
    """The time of milliseconds since 1970, exact."""
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, at least zero, at most the end of what never ends."""
    return max(0, min(NEVER_MS, round(time.timestamp() * 1000)))
