"""Periods by the calendar."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter import clock
from meter.clock import DAY_MS, UnknownTimeZone, period_number, period_start_ms, time_zone
from meter.contract.plans import BillingPeriod


def starts(anchor: str, period: str, count: int, zone: str = "UTC") -> list[str]:
    """Period starts as UTC times, from period 0 on."""
    anchor_ms = round(datetime.fromisoformat(anchor).timestamp() * 1000)
    found = [period_start_ms(anchor_ms, period, number, time_zone(zone)) for number in range(count)]
    return [datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") for ms in found]


def test_the_last_day_of_a_month_stays_the_last_day() -> None:
    assert starts("2027-01-31T00:00+00:00", "monthly", 5) == [
        "2027-01-31 00:00",
        "2027-02-28 00:00",
        "2027-03-31 00:00",
        "2027-04-30 00:00",
        "2027-05-31 00:00",
    ]
    assert starts("2028-01-31T00:00+00:00", "monthly", 2)[1] == "2028-02-29 00:00"


def test_the_29th_of_february_is_the_28th_in_other_years() -> None:
    found = starts("2028-02-29T10:00+00:00", "yearly", 5)
    assert [day[:10] for day in found] == ["2028-02-29", "2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]


def test_the_wall_clock_counts_across_daylight_saving() -> None:
    assert starts("2027-03-27T09:00+01:00", "daily", 3, "Europe/Berlin") == [
        "2027-03-27 08:00",
        "2027-03-28 07:00",
        "2027-03-29 07:00",
    ]
    assert starts("2027-10-30T09:00+02:00", "weekly", 2, "Europe/Berlin") == ["2027-10-30 07:00", "2027-11-06 08:00"]
    # 02:30 is skipped on 28 March: the same moment after the gap
    assert starts("2027-03-27T02:30+01:00", "daily", 3, "Europe/Berlin") == [
        "2027-03-27 01:30",
        "2027-03-28 01:30",
        "2027-03-29 00:30",
    ]


def test_the_day_is_that_of_the_zone() -> None:
    assert starts("2027-01-31T23:30-05:00", "monthly", 2, "America/New_York") == [
        "2027-02-01 04:30",
        "2027-03-01 04:30",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("", "Mars/Base", "../etc/passwd", "/etc/passwd", "UTC\0", "x" * 300, "right/Europe/Berlin", "posix/UTC"),
        *("localtime", "posixrules", "europe/berlin", "utc", "/usr/share/zoneinfo/UTC", "Europe", "Europe/", "Factory"),
        *("zone.tab", "Europe/../UTC", "Europe//Berlin", " UTC", "UTC\n", "UTC ", "tzdata.zi", "__init__.py"),
    ],
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    """P5: a zone is a name of the IANA list, the same everywhere, whatever files this machine has."""
    with pytest.raises(UnknownTimeZone):
        time_zone(name)


def test_zones_come_from_the_wheel_and_not_from_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """P5"""
    own = tmp_path / "Europe" / "Busingen"
    own.parent.mkdir()
    own.write_bytes(b"TZif2 of another year")
    before = zoneinfo.TZPATH
    clock._zone.cache_clear()
    zoneinfo.reset_tzpath([str(tmp_path)])
    try:
        assert time_zone("Europe/Busingen").utcoffset(datetime(2027, 7, 1)) == timedelta(hours=2)
    finally:
        zoneinfo.reset_tzpath(before)


def test_every_zone_of_the_list_is_there() -> None:
    names = resources.files("tzdata").joinpath("zones").read_text().split()
    assert len(names) > 500
    for name in names:
        if name != "Factory":
            assert time_zone(name).key == name


def test_a_time_that_the_anchors_zone_has_twice_is_kept() -> None:
    """The second 02:30 of the night in which the clocks go back; the next period begins at the first 02:30."""
    found = starts("2027-10-31T02:30+01:00", "daily", 2, "Europe/Berlin")
    assert found == ["2027-10-31 01:30", "2027-11-01 01:30"]


def test_a_day_that_a_zone_left_out_has_no_length() -> None:
    """Samoa went from 29 to 31 December 2011."""
    zone, anchor_ms = time_zone("Pacific/Apia"), 1_325_102_400_000  # 28 December 2011, 10:00 there
    ms = [period_start_ms(anchor_ms, "daily", number, zone) for number in range(5)]
    assert [after - before for before, after in pairwise(ms)] == [DAY_MS, DAY_MS, 0, DAY_MS]
    assert period_number(anchor_ms, "daily", ms[2], zone) == 3


ANCHORS_MS = st.integers(0, 4_102_444_800_000)
UNITS = st.sampled_from(get_args(BillingPeriod))
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe", "Cuba"]
)


@settings(max_examples=200, deadline=None)
@given(anchor_ms=ANCHORS_MS, period=UNITS, number=st.integers(0, 50), zone=ZONES)
def test_periods_follow_each_other(anchor_ms: int, period: str, number: int, zone: str) -> None:
    found = time_zone(zone)
    assert period_start_ms(anchor_ms, period, 0, found) == anchor_ms
    assert period_start_ms(anchor_ms, period, number, found) <= period_start_ms(anchor_ms, period, number + 1, found)


@settings(max_examples=300, deadline=None)
@given(anchor_ms=ANCHORS_MS, period=UNITS, number=st.integers(0, 20_000), zone=ZONES, off=st.integers(-2, 2))
def test_the_number_of_a_time_is_that_of_the_last_period_that_has_begun(
    anchor_ms: int, period: str, number: int, zone: str, off: int
) -> None:
    """P12b: computed, not counted; so this is fast for any anchor."""
    found = time_zone(zone)
    at_ms = max(
        anchor_ms, period_start_ms(anchor_ms, period, number % (200 if period == "yearly" else 2000), found) + off
    )
    there = period_number(anchor_ms, period, at_ms, found)
    assert period_start_ms(anchor_ms, period, there, found) <= at_ms
    assert at_ms < period_start_ms(anchor_ms, period, there + 1, found)


def test_a_far_anchor_asks_for_no_more_periods_than_a_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """P12b: five starts are computed for 20,819 daily periods."""
    asked: list[int] = []

    def counted(anchor_ms: int, unit: str, number: int, zone: ZoneInfo) -> int:
        asked.append(number)
        return period_start_ms(anchor_ms, unit, number, zone)

    monkeypatch.setattr(clock, "period_start_ms", counted)
    assert period_number(0, "daily", 1_798_761_600_000, time_zone("UTC")) == 20_819
    assert len(asked) <= 5
