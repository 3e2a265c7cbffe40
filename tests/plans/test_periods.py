"""Periods by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.clock import BILLING_PERIODS, UnknownTimeZone, period_start_ms, time_zone


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


@pytest.mark.parametrize("name", ["", "Mars/Base", "../etc/passwd", "/etc/passwd", "UTC\0", "x" * 300])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(UnknownTimeZone):
        time_zone(name)


@settings(max_examples=200, deadline=None)
@given(
    anchor_ms=st.integers(946_684_800_000, 4_102_444_800_000),
    period=st.sampled_from(BILLING_PERIODS),
    number=st.integers(0, 50),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"]
    ),
)
def test_periods_follow_each_other(anchor_ms: int, period: str, number: int, zone: str) -> None:
    found = time_zone(zone)
    assert period_start_ms(anchor_ms, period, number, found) < period_start_ms(anchor_ms, period, number + 1, found)
