"""What a question about usage means: which buckets, and which days and hours they are of. Pure.

Figures are kept by buckets, so a question that would cut one in two has no answer: it is refused, and told which
setting keeps smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from meter.clock import offsets_between
from meter.ledger.figures import MINUTE_MS
from meter.store.usage import LEVELS, UTC, Offset, UsageWanted

SETTING = "METER_USAGE_BUCKET_MINUTES"
TIMES = ("day", "hour")


@dataclass(frozen=True, slots=True)
class Unaligned:
    """Why there is no answer, and which parameter is to blame."""

    parameter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: times in milliseconds, `from_ms` inclusive, `to_ms` exclusive."""

    group_by: tuple[str, ...] = ()
    path: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    zone: ZoneInfo | None = None


def wanted_of(asked: Asked, bucket_minutes: int, span: tuple[int, int]) -> UsageWanted | Unaligned:
    """What to ask the store for. `span`: where its figures begin and end, at the latest."""
    bucket_ms = bucket_minutes * MINUTE_MS
    for parameter, at_ms in (("from", asked.from_ms), ("to", asked.to_ms)):
        if at_ms is not None and at_ms % bucket_ms:
            return Unaligned(parameter, f"figures are kept by {bucket_minutes} minutes ({SETTING}), and it is in one")
    offsets: tuple[Offset, ...] = UTC
    if asked.zone is not None and set(TIMES) & set(asked.group_by):
        since_ms = span[0] if asked.from_ms is None else asked.from_ms
        until_ms = span[1] if asked.to_ms is None else asked.to_ms
        offsets = tuple(Offset(*one) for one in offsets_between(asked.zone, since_ms, max(since_ms, until_ms)))
        if any(one.offset_ms % bucket_ms for one in offsets) or any(one.until_ms % bucket_ms for one in offsets[:-1]):
            reason = f"its days and hours begin in the middle of {bucket_minutes} minutes, by which figures are kept"
            return Unaligned("time_zone", f"{reason} ({SETTING})")
    group_by = tuple(_below(asked.path) if word == "path" else word for word in asked.group_by)
    return UsageWanted(group_by, asked.path, asked.from_ms, asked.to_ms, offsets, bucket_ms=bucket_ms)


def _below(path: str | None) -> str:
    """The level right below a path: its children."""
    depth = 0 if path is None else path.count("/") + 1
    return LEVELS[min(depth, len(LEVELS) - 1)]
