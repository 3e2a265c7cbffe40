"""What is asked of a store about usage: the figures that a flush adds to, and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from meter.clock import HOUR_MS
from meter.store.rows import TransactionRow, WatermarkRow
from meter.store.sums import whole
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

LEVELS = tuple(f"level_{depth}" for depth in range(1, 7))
"""The levels of a path: its first segment, its first two, …"""

Key = tuple[str | int, ...]
"""A value for each word of `group_by`. Days count from 1970 in their zone, hours are milliseconds."""


@dataclass(frozen=True, slots=True)
class Added:
    """What is added to the figures, one row for each key."""

    figures: Sequence[UsageRow] = ()
    quantities: Sequence[UsageQuantityRow] = ()


NOTHING_ADDED = Added()


class Offset(NamedTuple):
    """How far a zone is ahead of UTC before that time."""

    until_ms: int
    offset_ms: int


UTC = (Offset(2**53, 0),)


@dataclass(frozen=True, slots=True)
class UsageWanted:
    """Figures of a path and all below it (None: of all) by some of `user model feature key rate_card_version plan day
    hour` and levels. `from_ms` inclusive, `to_ms` exclusive, both where buckets begin. `offsets` of the zone of days
    and hours, in the order of their times; the last has no end. `only`: of the path alone. A bucket is of the plans
    that its user had when it ended, "" of none.
    """

    group_by: tuple[str, ...]
    path: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    offsets: tuple[Offset, ...] = UTC
    only: bool = False
    bucket_ms: int = HOUR_MS


class UsageSum(NamedTuple):
    """The figures of one key: how many charges, units of charges and refunds, and quantities by dimension."""

    key: Key
    requests: int
    charged: int
    refunded: int
    quantities: Mapping[str, int]


def sum_of(key: Key, numbers: Sequence[object], quantities: Mapping[str, int]) -> UsageSum:
    """A sum as a driver gives it."""
    requests, charged, refunded = map(whole, numbers)
    return UsageSum(key, requests, charged, refunded, quantities)


def next_path(path: str) -> str:
    """What comes right behind all paths below a path, by bytes: `0` follows `/`."""
    return f"{path}0"


class UsageStore(Protocol):
    """A part of every store. Every method raises `StoreUnavailable`; each is atomic."""

    async def usage_values(self, paths: Sequence[str], from_ms: int, to_ms: int) -> list[tuple[str, str, str]]:
        """Which (path, model, feature) there are in the figures of that time, each once."""
        ...

    async def fill_usage_gap(self, gap: UsageGapRow, after_seq: int, added: Added) -> bool:
        """Adds to the figures what a gap has up to `after_seq`; at its end the gap goes. False, and nothing changes,
        when the gap is not what it was any more: another process was first, or an account has another name now.
        """
        ...

    async def begin_rollup(self, from_ms: int, bucket_minutes: int, version: int) -> int:
        """Forgets the figures from a time on; all that partitions have in the ledger is a gap from then on, in the
        place of older gaps, whose time counts where it is earlier; with other buckets, from the beginning. Answers how
        many transactions that may be. The gaps have a `version` that none had before. No flush happens meanwhile, and
        those that were computed with other buckets are fenced.
        """
        ...

    async def watermarks(self) -> list[WatermarkRow]:
        """Of all partitions, also of those of before there were others."""
        ...

    async def usage_sums(self, wanted: UsageWanted, after: Key, limit: int) -> list[UsageSum]:
        """Sums by key, in an order of the store's own that pages may follow, after that key (() is none)."""
        ...

    async def transactions(self, transaction_ids: Sequence[str]) -> dict[str, TransactionRow]:
        """Those of some transactions that exist, by id."""
        ...

    async def ledger(self, partition: int, after_seq: int, until_seq: int, limit: int) -> list[TransactionRow]:
        """The transactions of a partition by seq, behind `after_seq`, up to `until_seq`."""
        ...
