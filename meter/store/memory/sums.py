"""The sums of transactions, in this process's memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from meter.clock import DAY_MS, NEVER_MS
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.rows import TransactionRow
from meter.store.sums import CHARGED_KINDS, SUMMED_KINDS, Sum, Wanted


def sums_of(
    rows: Iterable[TransactionRow], had: Mapping[str, Sequence[PastPlanRow]], wanted: Wanted, after: str, limit: int
) -> list[Sum]:
    """Sums by key, in the order of keys, after that one. `had` are the plans of each user."""
    found: dict[int | str, list[int]] = {}
    for row in rows:
        if not _is_wanted(row, wanted):
            continue
        is_charge = row.kind in CHARGED_KINDS
        numbers = (
            int(is_charge),
            row.amount * is_charge,
            row.amount * (row.kind == "refund"),
            row.amount * (row.kind == "grant"),
        )
        for key in _keys(row, had, wanted):
            sums = found.setdefault(key, [0, 0, 0, 0])
            for n, number in enumerate(numbers):
                sums[n] += number
    behind = [key for key in sorted(found, key=lambda key: (isinstance(key, str), key)) if _is_behind(key, after)]
    return [Sum(str(key), *found[key]) for key in behind[:limit]]


def had_by_user(over: Iterable[PastPlanRow], subscriptions: Iterable[SubscriptionRow]) -> dict[str, list[PastPlanRow]]:
    """The plans of each user: those that are over, and those that last."""
    had: dict[str, list[PastPlanRow]] = {}
    for one in (*over, *(_lasting(row) for row in subscriptions if row.state != "ended")):
        had.setdefault(one.user_id, []).append(one)
    return had


def _lasting(row: SubscriptionRow) -> PastPlanRow:
    since_ms = row.created_at_ms if row.plan_since_ms is None else row.plan_since_ms
    return PastPlanRow(
        user_id=row.user_id, plan_group=row.plan_group, from_ms=since_ms, until_ms=NEVER_MS, plan_id=row.plan_id
    )


def _is_wanted(row: TransactionRow, wanted: Wanted) -> bool:
    return (
        row.kind in SUMMED_KINDS
        and wanted.user_id in (None, row.user_id)
        and (wanted.from_ms is None or row.created_at_ms >= wanted.from_ms)
        and (wanted.to_ms is None or row.created_at_ms < wanted.to_ms)
    )


def _keys(row: TransactionRow, had: Mapping[str, Sequence[PastPlanRow]], wanted: Wanted) -> Sequence[int | str]:
    if wanted.by == "user":
        return [row.user_id]
    if wanted.by == "day":
        return [row.created_at_ms // DAY_MS]
    if wanted.by == "plan":
        plans = had.get(row.user_id, ())
        return [one.plan_id for one in plans if one.from_ms <= row.created_at_ms < one.until_ms]
    value = row.metadata.get(wanted.member) if isinstance(row.metadata, dict) else None
    return [] if value is None else [value if isinstance(value, str) else json.dumps(value)]


def _is_behind(key: int | str, after: str) -> bool:
    return not after or (key > after if isinstance(key, str) else key > int(after))
