"""The catalog in this process's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import gt, lt
from typing import TypeVar

from meter.store.catalog import Change, Count, Plain
from meter.store.row import Row, VersionedRow

R = TypeVar("R", bound=Row)


class MemoryCatalog:
    """Rows that people make and change, by model and key. No method waits for anything, so each is atomic."""

    def __init__(self, rows: dict[type[Row], dict[tuple[object, ...], Row]]) -> None:
        self._rows = rows

    async def get(self, model: type[R], *key: Plain) -> R | None:
        found = self._rows.get(model, {}).get(key)
        return found if isinstance(found, model) else None

    async def insert(self, row: Row) -> bool:
        rows = self._rows.setdefault(type(row), {})
        wanted = [(unique, _values(row, unique)) for unique in row.UNIQUE if None not in _values(row, unique)]
        if _values(row, row.KEY) in rows or any(
            _values(other, unique) == values for unique, values in wanted for other in rows.values()
        ):
            return False
        rows[_values(row, row.KEY)] = row
        return True

    async def swap(self, row: VersionedRow) -> bool:
        rows, key = self._rows.setdefault(type(row), {}), _values(row, row.KEY)
        stored = rows.get(key)
        if not isinstance(stored, VersionedRow) or stored.version != row.version - 1:
            return False
        rows[key] = row
        return True

    async def due(self, model: type[R], state: str, time: str, until: int, limit: int) -> list[R]:
        return await self.find(model, {"state": state}, order_by=time, until=until, limit=limit)

    async def insert_many(self, rows: Sequence[Row]) -> int:
        return sum([await self.insert(row) for row in rows])

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        return sum([await self.swap(row) for row in rows])

    async def commit(self, change: Change) -> bool:
        counted = [(*self._place(one.row), one) for one in change.counts]
        if not all(_is_open(rows.get(key), one) for rows, key, one in counted):
            return False
        swaps = [(self._place(row), row) for row in change.swaps]
        stored = [(rows.get(key), row) for (rows, key), row in swaps]
        if any(not isinstance(old, VersionedRow) or old.version != row.version - 1 for old, row in stored):
            return False
        new = [(self._place(row), row) for row in change.new]
        if any(key in rows for (rows, key), _ in new):
            return False
        for rows, key, one in counted:
            more = {name: getattr(rows[key], name) + 1 for name in (one.column, "version")}
            rows[key] = rows[key].model_copy(update=more)
        for (rows, key), row in [*swaps, *new]:
            rows[key] = row
        for row in change.missing:
            rows, key = self._place(row)
            rows.setdefault(key, row)
        return True

    async def remove(self, rows: Sequence[Row]) -> None:
        for row in rows:
            stored, key = self._place(row)
            stored.pop(key, None)

    async def find(
        self,
        model: type[R],
        equal: Mapping[str, Plain],
        *,
        order_by: str,
        until: int | None = None,
        after: Sequence[Plain] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[R]:
        order = tuple(dict.fromkeys((order_by, *model.KEY)))
        beyond = lt if descending else gt
        found = [
            row
            for row in self._rows.get(model, {}).values()
            if isinstance(row, model)
            and all(getattr(row, name) == value for name, value in equal.items())
            and (until is None or getattr(row, order_by) <= until)
            and (after is None or beyond(_order_of(row, order), tuple(after)))
        ]
        return sorted(found, key=lambda row: _order_of(row, order), reverse=descending)[:limit]

    def _place(self, row: Row) -> tuple[dict[tuple[object, ...], Row], tuple[object, ...]]:
        return self._rows.setdefault(type(row), {}), _values(row, row.KEY)


def _values(row: Row, names: Sequence[str]) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in names)


def _is_open(stored: Row | None, count: Count) -> bool:
    """Whether one more may be counted."""
    return stored is not None and _values(stored, ("state",)) == (count.state,) and _counted(stored, count) < count.most


def _counted(stored: Row, count: Count) -> int:
    return int(getattr(stored, count.column))


def _order_of(row: Row, names: Sequence[str]) -> tuple[object, ...]:
    """What rows are ordered by: what is not there comes first."""
    return tuple("" if value is None else value for value in _values(row, names))
