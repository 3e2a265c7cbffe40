"""Users in a SQL database, by what they have and did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, String, and_, cast, exists, func, or_, select

from meter.store.plan_rows import SubscriptionRow
from meter.store.records import R
from meter.store.rows import AccountRow
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.queries import Statement
from meter.store.sql.tables import table_of
from meter.store.usage_rows import UsageRow
from meter.store.users import UserFound, UsersWanted, end_of

_table = table_of(AccountRow)
_accounts, _used, _subscriptions = _table.c, table_of(UsageRow).c, table_of(SubscriptionRow).c
_SPENT = func.sum(_used.charged - _used.refunded)


class SqlUsers:
    """A part of `SqlStore`, which gives the connections."""

    _dialect: SqlDialect

    async def _all(self, model: type[R], statement: Statement) -> list[R]:
        raise NotImplementedError

    async def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    async def users(self, wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> Sequence[UserFound]:
        found = await self._all(AccountRow, _page(wanted, after, limit))
        if not found:
            return []
        ids = [row.user_id for row in found]
        paths, payers = self._dialect.among([_used.path], ids), self._dialect.among([_subscriptions.user_id], ids)
        today = select(_used.path, _SPENT).where(paths, _used.bucket_ms >= wanted.since_ms).group_by(_used.path)
        spent = {path: int(units) for path, units in await self._rows(today)}
        subscribed = select(_subscriptions.user_id, _subscriptions.plan_id).where(
            payers, _subscriptions.state != "ended"
        )
        plans: dict[str, list[str]] = {}
        for user_id, plan_id in await self._rows(subscribed):
            plans.setdefault(user_id, []).append(plan_id)
        return [UserFound(row, spent.get(row.user_id, 0), tuple(sorted(plans.get(row.user_id, ())))) for row in found]


def _page(wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> Statement:
    source, value = _ordered(wanted)
    chosen = _chosen(wanted)
    if value is None:
        if after is not None:
            chosen.append(_accounts.user_id > after[1])
        return select(_table).where(*chosen).order_by(_accounts.user_id).limit(limit)
    if after is not None:
        beyond = value < after[0] if wanted.descending else value > after[0]
        chosen.append(or_(beyond, and_(value == after[0], _accounts.user_id > after[1])))
    order = value.desc() if wanted.descending else value.asc()
    return select(_table).select_from(source).where(*chosen).order_by(order, _accounts.user_id).limit(limit)


def _ordered(wanted: UsersWanted) -> tuple[FromClause, ColumnElement[Any] | None]:
    """Where the accounts come from, and by what they stand; None is by their ids."""
    if wanted.order == "user_id":
        return _table, None
    if wanted.order == "last_spent_at":
        return _table, func.coalesce(_accounts.last_spent_at_ms, 0)
    if wanted.order != "spent_today":
        return _table, _accounts[wanted.order]
    since = select(_used.path, _SPENT.label("spent")).where(_used.bucket_ms >= wanted.since_ms)
    today = since.group_by(_used.path).subquery("today")
    return _table.outerjoin(today, today.c.path == _accounts.user_id), func.coalesce(today.c.spent, 0)


def _chosen(wanted: UsersWanted) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = []
    if wanted.starts_with:
        chosen += [_accounts.user_id >= wanted.starts_with, _accounts.user_id < end_of(wanted.starts_with)]
    match wanted.state:
        case "active":
            chosen += [_accounts.suspended.is_(False), _accounts.available > 0]
        case "suspended":
            chosen.append(_accounts.suspended.is_(True))
        case "in_debt":
            chosen.append(_accounts.debt > 0)
        case "empty":
            chosen.append(_accounts.available == 0)
        case None:
            pass
    if wanted.plan_id is not None:
        same = (_subscriptions.user_id == _accounts.user_id, _subscriptions.plan_id == wanted.plan_id)
        chosen.append(exists().where(*same, _subscriptions.state != "ended"))
    if wanted.member is not None:
        name, text = wanted.member
        chosen.append(cast(_accounts.profile[name].as_string(), String(300)) == text)
    return chosen
