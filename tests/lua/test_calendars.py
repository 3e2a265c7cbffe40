"""Windows by the calendar of a time zone (lua/operations/calendars.lua, lua/state/calendar.lua), against Python's."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from meter.clock import milliseconds, time_zone, utc_time
from meter.engine.rules import Budget, read_rule
from meter.engine.upkeep import calendars, rules
from tests.lua.levels import budget
from tests.partition import HOUR, Partition

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "America/Havana",
    "Africa/Cairo",
    "Pacific/Apia",
    "Australia/Lord_Howe",
)
MOMENTS = (
    *("2030-03-30T23:30:00Z", "2030-03-31T00:30:00Z", "2030-03-31T12:00:00Z", "2030-10-26T22:30:00Z"),
    *("2030-10-27T00:30:00Z", "2030-01-01T00:00:00Z", "2030-12-31T23:59:59.999Z", "2028-02-29T12:00:00Z"),
    *("2030-03-10T04:30:00Z", "2030-03-10T05:30:00Z", "2030-11-03T03:30:00Z", "2030-11-03T04:30:00Z"),
    *("2030-11-03T05:30:00Z", "2030-04-25T21:30:00Z", "2030-04-25T22:00:00Z", "2030-10-31T20:30:00Z"),
    *("2030-10-31T21:30:00Z", "2099-06-01T00:00:00Z", "2030-04-06T14:45:00Z", "2030-04-06T15:15:00Z"),
)


def _first_at(zone: ZoneInfo, wall: datetime) -> int:
    """The first moment at which the zone's clock shows a wall-clock time or a later one of the same or a later date."""
    at = milliseconds(wall.replace(tzinfo=zone)) - 26 * HOUR
    low, high = at, at + 52 * HOUR
    while high - low > 1:  # no zone goes back over the beginning of a day for longer than it lasts
        middle = (low + high) // 2
        if utc_time(middle).astimezone(zone).replace(tzinfo=None) >= wall:
            high = middle
        else:
            low = middle
    return high


def _begins(window: str, local: datetime) -> tuple[datetime, datetime]:
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if window == "day":
        return day, day + timedelta(days=1)
    if window == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _window(partition: Partition, window: str, zone: str, now_ms: int) -> Budget:
    partition.client.hset(partition.keys.meta, mapping={"clock_ms": now_ms})
    user = f"{window}-{zone}-{now_ms}".replace("/", ":")
    if zone != "UTC":
        assert partition.run(calendars([zone])).status == "ok"
    assert partition.run(budget(user, 5, window, zone)).status == "ok"
    [(word,)] = partition.run(rules(user)).items
    found = read_rule(word)
    assert isinstance(found, Budget)
    return found


@pytest.mark.parametrize("window", ["day", "week", "month"])
@pytest.mark.parametrize("zone", ZONES)
def test_windows_are_those_of_the_zones_clock(partition: Partition, zone: str, window: str) -> None:
    place = time_zone(zone)
    for moment in MOMENTS:
        now_ms = milliseconds(datetime.fromisoformat(moment))
        found = _window(partition, window, zone, now_ms)
        begins, ends = _begins(window, utc_time(now_ms).astimezone(place))
        assert found.starts_at_ms <= now_ms < found.ends_at_ms, moment
        assert (found.starts_at_ms, found.ends_at_ms) == (_first_at(place, begins), _first_at(place, ends)), moment


@pytest.mark.parametrize("zone", ZONES)
def test_hours_begin_with_the_minute_hand(partition: Partition, zone: str) -> None:
    for moment in MOMENTS:
        now_ms = milliseconds(datetime.fromisoformat(moment))
        found = _window(partition, "hour", zone, now_ms)
        assert found.starts_at_ms <= now_ms < found.ends_at_ms == found.starts_at_ms + HOUR
        is_of_halves = zone == "Australia/Lord_Howe"  # whose clocks change by half an hour
        assert utc_time(found.starts_at_ms).astimezone(time_zone(zone)).minute in ((0, 30) if is_of_halves else (0,))


def test_a_day_has_23_or_25_hours_where_the_clocks_change(partition: Partition) -> None:
    for moment, hours in (("2030-03-31T12:00:00Z", 23), ("2030-10-27T12:00:00Z", 25), ("2030-06-01T12:00:00Z", 24)):
        found = _window(partition, "day", "Europe/Berlin", milliseconds(datetime.fromisoformat(moment)))
        assert found.ends_at_ms - found.starts_at_ms == hours * HOUR
