"""Users, in this process's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meter.store.plan_rows import SubscriptionRow
from meter.store.row import Row
from meter.store.rows import AccountRow
from meter.store.usage_rows import UsageRow
from meter.store.users import UserFound, UsersWanted, value_of


class MemoryUsers:
    """A part of `MemoryStore`, which gives the rows."""

    def _rows_of(self, model: type[Row]) -> dict[Any, Row]:
        raise NotImplementedError

    async def users(self, wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> Sequence[UserFound]:
        spent: dict[str, int] = {}
        for row in self._rows_of(UsageRow).values():
            if isinstance(row, UsageRow) and row.bucket_ms >= wanted.since_ms:
                spent[row.path] = spent.get(row.path, 0) + row.charged - row.refunded
        plans: dict[str, list[str]] = {}
        for one in self._rows_of(SubscriptionRow).values():
            if isinstance(one, SubscriptionRow) and one.state != "ended":
                plans.setdefault(one.user_id, []).append(one.plan_id)
        found = [
            UserFound(row, spent.get(row.user_id, 0), tuple(sorted(plans.get(row.user_id, ()))))
            for row in self._rows_of(AccountRow).values()
            if isinstance(row, AccountRow) and _is_wanted(row, wanted)
        ]
        if wanted.plan_id is not None:
            found = [one for one in found if wanted.plan_id in one.plan_ids]
        sign = -1 if wanted.descending else 1

        def place(value: int, user_id: str) -> tuple[int, str]:
            return sign * value, user_id

        rows = {place(value_of(one, wanted.order), one.account.user_id): one for one in found}
        return [rows[at] for at in sorted(rows) if after is None or at > place(*after)][:limit]


def _is_wanted(row: AccountRow, wanted: UsersWanted) -> bool:
    match wanted.state:
        case "active":
            fits = not row.suspended and row.available > 0
        case "suspended":
            fits = row.suspended
        case "in_debt":
            fits = row.debt > 0
        case "empty":
            fits = row.available == 0
        case None:
            fits = True
    if wanted.member is not None:
        name, value = wanted.member
        profile = row.profile if isinstance(row.profile, dict) else {}
        fits = fits and name in profile and str(profile[name]) == value
    return fits and row.user_id.startswith(wanted.starts_with)
