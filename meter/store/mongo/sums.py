"""The steps of the sums of transactions."""

from __future__ import annotations

from typing import Any

from meter.clock import DAY_MS
from meter.store.sums import CHARGED_KINDS, SUMMED_KINDS, Wanted

Document = dict[str, Any]


def sums_of(wanted: Wanted, after: str, limit: int) -> list[Document]:
    """Sums by key, in the order of keys, after that one."""
    keys: Document = {
        "user": "$user_id",
        "day": {"$toLong": {"$floor": {"$divide": ["$created_at_ms", DAY_MS]}}},
        "plan": "$plan_id",
        "metadata": {"$toString": f"$metadata.{wanted.member}"},
    }
    steps = _by_plan(wanted) if wanted.by == "plan" else [{"$match": _chosen(wanted)}]
    is_charge = {"$in": ["$kind", list(CHARGED_KINDS)]}
    group: Document = {
        "_id": keys[wanted.by],
        "charges": {"$sum": {"$cond": [is_charge, 1, 0]}},
        "charged": {"$sum": {"$cond": [is_charge, "$amount", 0]}},
        "refunded": {"$sum": {"$cond": [{"$eq": ["$kind", "refund"]}, "$amount", 0]}},
        "granted": {"$sum": {"$cond": [{"$eq": ["$kind", "grant"]}, "$amount", 0]}},
    }
    behind: Document = {"$ne": None}
    if after:
        behind["$gt"] = int(after) if wanted.by == "day" else after
    return [*steps, {"$group": group}, {"$match": {"_id": behind}}, {"$sort": {"_id": 1}}, {"$limit": limit}]


def _by_plan(wanted: Wanted) -> list[Document]:
    """The transactions that are added up, each with the plan that its user had then: one that is over, or the one that
    lasts.
    """
    at_ms = "$created_at_ms"
    over = [{"$lte": ["$plan.from_ms", at_ms]}, {"$gt": ["$plan.until_ms", at_ms]}]
    since_ms = {"$ifNull": ["$plan.plan_since_ms", "$plan.created_at_ms"]}
    lasting: list[Document] = [{"$ne": ["$plan.state", "ended"]}, {"$lte": [since_ms, at_ms]}]
    others = _with_plans(wanted, "subscriptions", lasting)
    return [*_with_plans(wanted, "past_plans", over), {"$unionWith": {"coll": "transactions", "pipeline": others}}]


def _with_plans(wanted: Wanted, rows: str, when: list[Document]) -> list[Document]:
    same = {"localField": "user_id", "foreignField": "user_id"}
    return [
        {"$match": _chosen(wanted)},
        {"$lookup": {"from": rows, "as": "plan", **same}},
        {"$unwind": "$plan"},
        {"$match": {"$expr": {"$and": when}}},
        {"$project": {"kind": 1, "amount": 1, "plan_id": "$plan.plan_id"}},
    ]


def _chosen(wanted: Wanted) -> Document:
    chosen: Document = {"kind": {"$in": list(SUMMED_KINDS)}}
    if wanted.user_id is not None:
        chosen["user_id"] = wanted.user_id
    times = {"$gte": wanted.from_ms, "$lt": wanted.to_ms}
    if any(value is not None for value in times.values()):
        chosen["created_at_ms"] = {name: value for name, value in times.items() if value is not None}
    return chosen
