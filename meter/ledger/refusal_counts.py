"""How often users were refused, by hour and reason: added up here and written with the refusals themselves, so that a
flood of them is a number, whatever is kept of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meter.clock import HOUR_MS
from meter.store.base import Store
from meter.store.rows import RefusalCountRow

EVERYBODY = ""
WAITING_MAX = 5_000
"""Users and reasons between two writes; what is beyond counts for everybody alone."""
PAGE = 500
ROWS_MAX = 50_000
"""Rows that one question looks at."""
TRIES = 5
"""Another process may write the same row."""


@dataclass(frozen=True, slots=True)
class TooMany:
    """More was counted in that time than one question may look at."""


class RefusalCounts:
    """What one process counted and has not written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: Counter[tuple[str, str]] = Counter()

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to write."""
        return bool(self._waiting)

    def add(self, user_id: str, reason: str) -> None:
        """Counts one. Neither waits nor raises."""
        self._waiting[EVERYBODY, reason] += 1
        if user_id and ((user_id, reason) in self._waiting or len(self._waiting) < WAITING_MAX):
            self._waiting[user_id, reason] += 1

    async def write(self, now_ms: int) -> None:
        """Adds what waits to what is counted of this hour. Raises `StoreUnavailable`: what is not written waits on."""
        hour_ms = now_ms - now_ms % HOUR_MS
        for (user_id, reason), count in list(self._waiting.items()):
            if await self._added(RefusalCountRow(user_id=user_id, hour_ms=hour_ms, reason=reason, refusals=count)):
                self._waiting[user_id, reason] -= count
                if not self._waiting[user_id, reason]:
                    del self._waiting[user_id, reason]

    async def _added(self, new: RefusalCountRow) -> bool:
        for _ in range(TRIES):
            row = await self._store.get(RefusalCountRow, new.user_id, new.hour_ms, new.reason)
            if row is None:
                if await self._store.insert(new):
                    return True
                continue
            more = {"refusals": row.refusals + new.refusals, "version": row.version + 1}
            if await self._store.swap(row.model_copy(update=more)):
                return True
        return False


async def counted(
    store: Store, group_by: Sequence[str], from_ms: int, to_ms: int
) -> list[tuple[Mapping[str, str | int], int]] | TooMany:
    """How often was refused in that time, by some of user, reason and hour, the most first."""
    mine = {} if "user" in group_by else {"user_id": EVERYBODY}
    sums: Counter[tuple[str | int, ...]] = Counter()
    after: tuple[int | str, ...] = (from_ms - 1, "\U0010ffff", "")
    for _ in range(ROWS_MAX // PAGE):
        rows = await store.find(RefusalCountRow, mine, order_by="hour_ms", after=after, until=to_ms - 1, limit=PAGE)
        for row in rows:
            if "user" in group_by and row.user_id == EVERYBODY:
                continue
            parts: dict[str, str | int] = {"user": row.user_id, "reason": row.reason, "hour": row.hour_ms}
            sums[tuple(parts[word] for word in group_by)] += row.refusals
        if len(rows) < PAGE:
            ordered = sorted(sums.items(), key=lambda one: (-one[1], one[0]))
            return [(dict(zip(group_by, key, strict=True)), count) for key, count in ordered]
        after = (rows[-1].hour_ms, rows[-1].user_id, rows[-1].reason)
    return TooMany()


async def forget_counts(store: Store, before_ms: int, pages: int = 20) -> None:
    """Removes what was counted before a time, some thousand rows at the most."""
    for _ in range(pages):
        rows = await store.find(RefusalCountRow, {}, order_by="hour_ms", until=before_ms - 1, limit=PAGE)
        await store.remove(rows)
        if len(rows) < PAGE:
            return
