"""Billing periods by the calendar: the n-th period always counts from the anchor, so 31 January is followed by
28 (or 29) February and then by 31 March. Wall-clock time of a zone, answered as UTC milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.relativedelta import relativedelta

BILLING_PERIODS = ("daily", "weekly", "monthly", "yearly")


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
    if billing_period == "daily":
        return relativedelta(days=number)
    if billing_period == "weekly":
        return relativedelta(weeks=number)
    if billing_period == "monthly":
        return relativedelta(months=number)
    if billing_period == "yearly":
        return relativedelta(years=number)
    raise ValueError(f"{billing_period!r} is no billing period")
