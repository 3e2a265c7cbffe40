"""Times as the wire has them, and billing periods by the calendar.

The n-th period always counts from the anchor, so 31 January is followed by 28 (or 29) February and then by 31 March.
Wall-clock time of a zone, answered as UTC milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.relativedelta import relativedelta

NEVER_MS = 9999999999999
"""The end of what never ends; `NEVER` in lua/prelude.lua."""

DAY_MS = 86_400_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

BILLING_PERIODS = ("daily", "weekly", "monthly", "yearly")
_UNITS = dict(zip(BILLING_PERIODS, ("days", "weeks", "months", "years"), strict=True))


class UnknownTimeZone(ValueError):
    """No such IANA time zone."""


def time_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises `UnknownTimeZone`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownTimeZone(f"{name[:64]!r} is no time zone of the IANA database, such as Europe/Berlin") from None


def period_start_ms(anchor_ms: int, billing_period: str, number: int, zone: ZoneInfo) -> int:
    """The start of period `number` (0 starts at the anchor), which is the end of the one before it.

    A wall-clock time that a zone skips in spring is taken as the same moment after the gap.
    """
    anchor = datetime.fromtimestamp(anchor_ms / 1000, UTC).astimezone(zone)
    wall = anchor.replace(tzinfo=None) + _span(billing_period, number)
    return round(wall.replace(tzinfo=zone).astimezone(UTC).timestamp() * 1000)


def _span(billing_period: str, number: int) -> relativedelta:
    return relativedelta(**{_UNITS[billing_period]: number})  # type: ignore[arg-type]


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
