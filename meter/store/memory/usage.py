"""The usage figures, in this process's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from meter.clock import DAY_MS, HOUR_MS
from meter.store.memory.sums import had_by_user
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.row import Row
from meter.store.rows import TransactionRow, WatermarkRow
from meter.store.usage import Added, Key, UsageSum, UsageWanted, sum_of
from meter.store.usage_rows import Counted, UsageGapRow, UsageQuantityRow, UsageRow


class MemoryUsage:
    """A part of `MemoryStore`, which gives the rows."""

    def _rows_of(self, model: type[Row]) -> dict[Any, Row]:
        raise NotImplementedError

    @property
    def _marks(self) -> dict[int, WatermarkRow]:
        raise NotImplementedError

    async def usage_values(self, paths: Sequence[str], from_ms: int, to_ms: int) -> list[tuple[str, str, str]]:
        rows = [row for row in self._counted(UsageRow) if row.path in paths and from_ms <= row.bucket_ms < to_ms]
        return sorted({(row.path, row.model, row.feature) for row in rows})

    async def fill_usage_gap(self, gap: UsageGapRow, after_seq: int, added: Added) -> bool:
        gaps, key = self._rows_of(UsageGapRow), (gap.partition, gap.until_seq)
        stored = gaps.get(key)
        if not isinstance(stored, UsageGapRow) or stored.version != gap.version:
            return False
        del gaps[key]
        if after_seq < gap.until_seq:
            gaps[key] = gap.model_copy(update={"after_seq": after_seq, "version": gap.version + 1})
        self._add(added)
        return True

    async def begin_rollup(self, from_ms: int, bucket_minutes: int, version: int) -> int:
        gaps = self._rows_of(UsageGapRow)
        from_ms = min([from_ms, *(row.from_ms for row in gaps.values() if isinstance(row, UsageGapRow))])
        if {row.bucket_minutes for row in self._marks.values()} - {None, bucket_minutes}:
            from_ms = 0
        for model in (UsageRow, UsageQuantityRow):
            rows = self._rows_of(model)
            for key in [key for key, row in rows.items() if isinstance(row, Counted) and row.bucket_ms >= from_ms]:
                del rows[key]
        gaps.clear()
        for at, mark in self._marks.items():
            self._marks[at] = mark.model_copy(update={"counted_seq": mark.seq, "bucket_minutes": bucket_minutes})
            gap = UsageGapRow(partition=at, until_seq=mark.seq, after_seq=0, from_ms=from_ms, version=version)
            gaps |= {(at, mark.seq): gap} if mark.seq else {}
        return sum(mark.seq for mark in self._marks.values())

    async def watermarks(self) -> list[WatermarkRow]:
        return [self._marks[partition] for partition in sorted(self._marks)]

    async def usage_sums(self, wanted: UsageWanted, after: Key, limit: int) -> list[UsageSum]:
        found: dict[Key, tuple[list[int], dict[str, int]]] = {}
        plans = self._plans()
        for row in filter(lambda row: _is_wanted(row, wanted), self._counted(UsageRow)):
            for key in _keys(row, wanted, plans):
                sums, _ = found.setdefault(key, ([0, 0, 0], {}))
                for at, name in enumerate(UsageRow.SUMS):
                    sums[at] += getattr(row, name)
        for part in filter(lambda row: _is_wanted(row, wanted), self._counted(UsageQuantityRow)):
            for key in _keys(part, wanted, plans):
                _, quantities = found[key]
                quantities[part.dimension] = quantities.get(part.dimension, 0) + part.quantity
        keys = [key for key in sorted(found) if not after or key > after]
        return [sum_of(key, found[key][0], found[key][1]) for key in keys[:limit]]

    async def transactions(self, transaction_ids: Sequence[str]) -> dict[str, TransactionRow]:
        rows = self._rows_of(TransactionRow)
        return {name: row for name in transaction_ids if isinstance(row := rows.get(name), TransactionRow)}

    async def ledger(self, partition: int, after_seq: int, until_seq: int, limit: int) -> list[TransactionRow]:
        rows = [row for row in self._rows_of(TransactionRow).values() if isinstance(row, TransactionRow)]
        found = [row for row in rows if row.partition == partition and after_seq < row.seq <= until_seq]
        return sorted(found, key=lambda row: row.seq)[:limit]

    def _plans(self) -> dict[str, list[PastPlanRow]]:
        over = [row for row in self._rows_of(PastPlanRow).values() if isinstance(row, PastPlanRow)]
        present = [row for row in self._rows_of(SubscriptionRow).values() if isinstance(row, SubscriptionRow)]
        return had_by_user(over, present)

    def _rename_usage(self, partition: int, was: str, path: str) -> None:
        gaps = self._rows_of(UsageGapRow)
        for key, row in gaps.items():
            if isinstance(row, UsageGapRow) and row.partition == partition:
                gaps[key] = row.model_copy(update={"version": row.version + 1})
        for model in (UsageRow, UsageQuantityRow):
            rows = self._rows_of(model)
            for key in [key for key in rows if key[0] == was]:
                rows[path, *key[1:]] = rows.pop(key).model_copy(update={"path": path})

    def _add(self, added: Added) -> None:
        parts: list[Iterable[Row]] = [added.figures, added.quantities]
        for row in (row for part in parts for row in part):
            rows, key = self._rows_of(type(row)), tuple(getattr(row, name) for name in row.KEY)
            before = rows.get(key)
            sums = {name: getattr(row, name) + (getattr(before, name) if before else 0) for name in row.SUMS}
            rows[key] = row.model_copy(update=sums)

    def _counted(self, model: type[Any]) -> list[Any]:
        return list(self._rows_of(model).values())


def _is_wanted(row: Counted, wanted: UsageWanted) -> bool:
    path = wanted.path
    return (
        (path is None or row.path == path or (not wanted.only and row.path.startswith(f"{path}/")))
        and (wanted.from_ms is None or row.bucket_ms >= wanted.from_ms)
        and (wanted.to_ms is None or row.bucket_ms < wanted.to_ms)
    )


def _keys(row: Counted, wanted: UsageWanted, plans: Mapping[str, Sequence[PastPlanRow]]) -> list[Key]:
    """One, or one for each plan that the user had when the bucket ended."""
    if "plan" not in wanted.group_by:
        return [_key(row, wanted, "")]
    end_ms = row.bucket_ms + wanted.bucket_ms
    had = [one.plan_id for one in plans.get(row.path, ()) if one.from_ms < end_ms <= one.until_ms]
    return [_key(row, wanted, plan) for plan in had or [""]]


def _key(row: Counted, wanted: UsageWanted, plan: str) -> Key:
    offsets = (one.offset_ms for one in wanted.offsets if row.bucket_ms < one.until_ms)
    offset = next(offsets, wanted.offsets[-1].offset_ms)
    at_ms = row.bucket_ms + offset
    told: Mapping[str, Callable[[], str | int]] = {
        "user": lambda: row.path,
        "model": lambda: row.model,
        "feature": lambda: row.feature,
        "key": lambda: row.key_id,
        "plan": lambda: plan,
        "rate_card_version": lambda: row.rate_card_version,
        "day": lambda: at_ms // DAY_MS,
        "hour": lambda: at_ms // HOUR_MS * HOUR_MS - offset,
    }
    return tuple(told[word]() if word in told else _level(row.path, word) for word in wanted.group_by)


def _level(path: str, word: str) -> str:
    return "/".join(path.split("/")[: int(word.removeprefix("level_"))])
