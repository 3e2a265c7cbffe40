"""The sums of transactions, in this process's memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from meter.clock import DAY_MS
from meter.store.rows import TransactionRow
from meter.store.sums import CHARGED_KINDS, SUMMED_KINDS, Sum, Wanted


def sums_of(
    rows: Iterable[TransactionRow], plans: Mapping[str, Sequence[str]], wanted: Wanted, after: str, limit: int
) -> list[Sum]:
    """Sums by key, in the order of keys, after that one. `plans` are those of each user."""
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
        for key in _keys(row, plans, wanted):
            sums = found.setdefault(key, [0, 0, 0, 0])
            for n, number in enumerate(numbers):
                sums[n] += number
    behind = [key for key in sorted(found, key=lambda key: (isinstance(key, str), key)) if _is_behind(key, after)]
    return [Sum(str(key), *found[key]) for key in behind[:limit]]


def _is_wanted(row: TransactionRow, wanted: Wanted) -> bool:
    return (
        row.kind in SUMMED_KINDS
        and wanted.user_id in (None, row.user_id)
        and (wanted.from_ms is None or row.created_at_ms >= wanted.from_ms)
        and (wanted.to_ms is None or row.created_at_ms < wanted.to_ms)
    )


def _keys(row: TransactionRow, plans: Mapping[str, Sequence[str]], wanted: Wanted) -> Sequence[int | str]:
    if wanted.by == "user":
        return [row.user_id]
    if wanted.by == "day":
        return [row.created_at_ms // DAY_MS]
    if wanted.by == "plan":
        return list(plans.get(row.user_id, ()))
    value = row.metadata.get(wanted.member) if isinstance(row.metadata, dict) else None
    return [] if value is None else [value if isinstance(value, str) else json.dumps(value)]


def _is_behind(key: int | str, after: str) -> bool:
    return not after or (key > after if isinstance(key, str) else key > int(after))
