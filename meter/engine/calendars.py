"""The offsets of time zones from UTC, as the scripts read them (lua/state/calendar.lua)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from meter.clock import time_zone, utc_time

_FIRST_YEAR, _LAST_YEAR = 2020, 2100
_STEP = timedelta(days=1)
_MS = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


@lru_cache(64)
def calendar_text(zone_name: str) -> str:
    """Offsets in milliseconds, and until when each holds: up to the year 2100, from when on the last one does.

    Raises `UnknownTimeZone`.
    """
    zone = time_zone(zone_name)
    at, end = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR, 1, 1, tzinfo=UTC)
    offset = _offset(zone, at)
    words = [_ms(offset)]
    while at < end:
        following = at + _STEP
        if (next_offset := _offset(zone, following)) != offset:
            words += [_ms(_change(zone, at, following) - utc_time(0)), _ms(next_offset)]
            offset = next_offset
        at = following
    return " ".join(map(str, words))


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second at which the offset is that of `after`."""
    wanted = _offset(zone, after)
    while after - before > _SECOND:
        middle = before + ((after - before) // 2 // _SECOND) * _SECOND
        if _offset(zone, middle) == wanted:
            after = middle
        else:
            before = middle
    return after


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _ms(span: timedelta) -> int:
    return span // _MS
