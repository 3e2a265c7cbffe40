"""Users on MongoDB, by what they have and did."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from meter.store.calls import T
from meter.store.mongo.documents import Document, rows_from
from meter.store.plan_rows import SubscriptionRow
from meter.store.row import Row
from meter.store.rows import AccountRow
from meter.store.usage_rows import UsageRow
from meter.store.users import UserFound, UsersWanted, end_of


class MongoUsers:
    """A part of `MongoStore`, which gives the connections."""

    async def _run(self, call: Callable[[], Coroutine[Any, Any, T]], *, timeout_seconds: float | None = None) -> T:
        raise NotImplementedError

    async def _aggregate(self, model: type[Row], steps: Sequence[Document]) -> list[Document]:
        raise NotImplementedError

    async def users(self, wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> Sequence[UserFound]:
        steps = _steps(wanted, after, limit)
        documents = await self._run(lambda: self._aggregate(AccountRow, steps))
        rows = rows_from(AccountRow, documents)
        if not rows:
            return []
        ids = [row.user_id for row in rows]
        today = [{"$match": {"path": {"$in": ids}, "bucket_ms": {"$gte": wanted.since_ms}}}, _SUMMED]
        spent = {one["_id"]: int(one["spent"]) for one in await self._run(lambda: self._aggregate(UsageRow, today))}
        mine = [{"$match": {"user_id": {"$in": ids}, "state": {"$ne": "ended"}}}]
        plans: dict[str, list[str]] = {}
        for one in await self._run(lambda: self._aggregate(SubscriptionRow, mine)):
            plans.setdefault(one["user_id"], []).append(one["plan_id"])
        return [UserFound(row, spent.get(row.user_id, 0), tuple(sorted(plans.get(row.user_id, ())))) for row in rows]


_NET: Document = {"$subtract": ["$charged", "$refunded"]}
_SUMMED: Document = {"$group": {"_id": "$path", "spent": {"$sum": _NET}}}


def _steps(wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> list[Document]:
    steps: list[Document] = [{"$match": _chosen(wanted)}]
    if wanted.plan_id is not None:
        theirs = {"localField": "user_id", "foreignField": "user_id", "from": SubscriptionRow.TABLE, "as": "theirs"}
        has = {"$elemMatch": {"plan_id": wanted.plan_id, "state": {"$ne": "ended"}}}
        steps += [{"$lookup": theirs}, {"$match": {"theirs": has}}]
    if wanted.order == "user_id":
        behind = [] if after is None else [{"$match": {"user_id": {"$gt": after[1]}}}]
        return [*steps, *behind, {"$sort": {"user_id": 1}}, {"$limit": limit}]
    steps += _valued(wanted)
    if after is not None:
        further = {"value": {"$lt" if wanted.descending else "$gt": after[0]}}
        steps.append({"$match": {"$or": [further, {"value": after[0], "user_id": {"$gt": after[1]}}]}})
    return [*steps, {"$sort": {"value": -1 if wanted.descending else 1, "user_id": 1}}, {"$limit": limit}]


def _valued(wanted: UsersWanted) -> list[Document]:
    """Each account with the value by which it stands."""
    if wanted.order == "last_spent_at":
        return [{"$addFields": {"value": {"$ifNull": ["$last_spent_at_ms", 0]}}}]
    if wanted.order != "spent_today":
        return [{"$addFields": {"value": f"${wanted.order}"}}]
    used = {"localField": "user_id", "foreignField": "path", "from": UsageRow.TABLE, "as": "used"}
    today = {"$filter": {"input": "$used", "as": "one", "cond": {"$gte": ["$$one.bucket_ms", wanted.since_ms]}}}
    net = {"$subtract": ["$$one.charged", "$$one.refunded"]}
    return [
        {"$lookup": used},
        {"$addFields": {"value": {"$sum": {"$map": {"input": today, "as": "one", "in": net}}}}},
    ]


def _chosen(wanted: UsersWanted) -> Document:
    chosen: Document = {}
    if wanted.starts_with:
        chosen["user_id"] = {"$gte": wanted.starts_with, "$lt": end_of(wanted.starts_with)}
    match wanted.state:
        case "active":
            chosen |= {"suspended": {"$ne": True}, "available": {"$gt": 0}}
        case "suspended":
            chosen["suspended"] = True
        case "in_debt":
            chosen["debt"] = {"$gt": 0}
        case "empty":
            chosen["available"] = 0
        case None:
            pass
    if wanted.member is not None:
        name, text = wanted.member
        values: list[object] = [text]
        with suppress(ValueError):
            values.append(int(text))
        chosen[f"profile.{name}"] = {"$in": values}
    return chosen
