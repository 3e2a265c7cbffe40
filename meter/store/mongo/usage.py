"""The usage figures in MongoDB: reads as steps, and what changes them besides a flush."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from meter.clock import DAY_MS, HOUR_MS
from meter.store.mongo.documents import Document
from meter.store.mongo.flush import Fenced, MongoFlush
from meter.store.records import R
from meter.store.row import Row
from meter.store.rows import TransactionRow, WatermarkRow
from meter.store.usage import Added, Key, UsageSum, UsageWanted, next_path, sum_of
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

T = TypeVar("T")

ROLLUP_TIMEOUT_SECONDS = 600.0
_BETWEEN = "\x1e"
_FIELDS = {
    "user": "$path",
    "model": "$model",
    "feature": "$feature",
    "key": "$key_id",
    "rate_card_version": "$rate_card_version",
}


class MongoUsage:
    """What a store is asked about usage; a part of `MongoStore`, which gives the collections."""

    async def _run(self, call: Callable[[], Coroutine[Any, Any, T]], *, timeout_seconds: float | None = None) -> T:
        raise NotImplementedError

    async def _transact(self, work: Callable[[MongoFlush], Awaitable[T]]) -> T:
        raise NotImplementedError

    async def _all(
        self, model: type[R], chosen: Document, order: Sequence[str] = (), limit: int = 0, *, direction: int = 1
    ) -> list[R]:
        raise NotImplementedError

    async def _aggregate(self, model: type[Row], steps: Sequence[Document]) -> list[Document]:
        raise NotImplementedError

    async def usage_values(self, paths: Sequence[str], from_ms: int, to_ms: int) -> list[tuple[str, str, str]]:
        chosen = {"path": {"$in": list(paths)}, "bucket_ms": {"$gte": from_ms, "$lt": to_ms}}
        keys = {"path": "$path", "model": "$model", "feature": "$feature"}
        found = await self._run(lambda: self._aggregate(UsageRow, [{"$match": chosen}, *_grouped(keys, {})]))
        return [(one["path"], one["model"], one["feature"]) for one in found]

    async def fill_usage_gap(self, gap: UsageGapRow, after_seq: int, added: Added) -> bool:
        try:
            await self._run(lambda: self._transact(lambda flush: flush.fill_usage_gap(gap, after_seq, added)))
        except Fenced:
            return False
        return True

    async def begin_rollup(self, from_ms: int, bucket_minutes: int, version: int) -> int:
        def begin() -> Coroutine[Any, Any, int]:
            return self._transact(lambda flush: flush.begin_rollup(from_ms, bucket_minutes, version))

        return await self._run(begin, timeout_seconds=ROLLUP_TIMEOUT_SECONDS)

    async def watermarks(self) -> list[WatermarkRow]:
        return await self._all(WatermarkRow, {}, ("partition",))

    async def usage_sums(self, wanted: UsageWanted, after: Key, limit: int) -> list[UsageSum]:
        sums = {name: {"$sum": f"${name}"} for name in UsageRow.SUMS}
        made = {f"key{at}": _key(word, wanted) for at, word in enumerate(wanted.group_by)}
        keys = list(made)
        behind = [] if not after else [{"$match": _order(keys, after, "$gt")}]
        chosen = _steps(wanted)
        steps = [*chosen, *_grouped(made, sums), *behind, *_sorted(keys), {"$limit": limit}]
        found = await self._run(lambda: self._aggregate(UsageRow, steps))
        if not found:
            return []
        first, last = _key_of(found[0], wanted), _key_of(found[-1], wanted)
        within = [{"$match": {"$and": [_order(keys, first, "$gte"), _order(keys, last, "$lte")]}}] if keys else []
        by_dimension = _grouped({**made, "dimension": "$dimension"}, {"quantity": {"$sum": "$quantity"}})
        parts = [*chosen, *by_dimension, *within]
        quantities: dict[Key, dict[str, int]] = {}
        for one in await self._run(lambda: self._aggregate(UsageQuantityRow, parts)):
            quantities.setdefault(_key_of(one, wanted), {})[one["dimension"]] = int(one["quantity"])
        rows = [(_key_of(one, wanted), [one[name] for name in UsageRow.SUMS]) for one in found]
        return [sum_of(key, numbers, quantities.get(key, {})) for key, numbers in rows]

    async def transactions(self, transaction_ids: Sequence[str]) -> dict[str, TransactionRow]:
        found = await self._all(TransactionRow, {"_id": {"$in": list(transaction_ids)}})
        return {row.transaction_id: row for row in found}

    async def ledger(self, partition: int, after_seq: int, until_seq: int, limit: int) -> list[TransactionRow]:
        chosen = {"partition": partition, "seq": {"$gt": after_seq, "$lte": until_seq}}
        return await self._all(TransactionRow, chosen, ("seq",), limit)


def _steps(wanted: UsageWanted) -> list[Document]:
    """The wanted documents; each with the plans that its user had when its bucket ended, where those are asked for."""
    chosen: list[Document] = [{"$match": _chosen(wanted)}]
    if "plan" not in wanted.group_by:
        return chosen
    end_ms = {"$add": ["$bucket_ms", wanted.bucket_ms]}
    over: list[Document] = [{"$lt": ["$$one.from_ms", end_ms]}, {"$gte": ["$$one.until_ms", end_ms]}]
    since_ms = {"$ifNull": ["$$one.plan_since_ms", "$$one.created_at_ms"]}
    lasting: list[Document] = [{"$ne": ["$$one.state", "ended"]}, {"$lt": [since_ms, end_ms]}]
    same = {"localField": "path", "foreignField": "user_id"}
    return [
        *chosen,
        {"$lookup": {"from": "past_plans", "as": "over", **same}},
        {"$lookup": {"from": "subscriptions", "as": "lasting", **same}},
        {"$addFields": {"plan": {"$setUnion": [_had("$over", over), _had("$lasting", lasting)]}}},
        {"$unwind": {"path": "$plan", "preserveNullAndEmptyArrays": True}},
    ]


def _had(plans: str, when: Sequence[Document]) -> Document:
    some = {"$filter": {"input": plans, "as": "one", "cond": {"$and": list(when)}}}
    return {"$map": {"input": some, "as": "one", "in": "$$one.plan_id"}}


def _grouped(keys: Document, sums: Document) -> list[Document]:
    """Sums by keys, which are members of what is found; grouped by as one text, no part of which has `_BETWEEN`."""
    if not keys:
        return [{"$group": {"_id": None, **sums}}]
    parts: list[Document | str] = []
    for name in keys:
        parts += [_BETWEEN, {"$toString": f"${name}"}]
    firsts = {name: {"$first": f"${name}"} for name in keys}
    return [{"$addFields": keys}, {"$group": {"_id": {"$concat": parts}, **firsts, **sums}}]


def _sorted(keys: Sequence[str]) -> list[Document]:
    return [{"$sort": dict.fromkeys(keys, 1)}] if keys else []


def _order(keys: Sequence[str], values: Key, last: str) -> Document:
    """Whether keys are behind (`$gt`) or before (`$lt`) values, or the same where `last` says so."""
    strict = last.removesuffix("e")
    steps = [
        {**dict(zip(keys[:at], values, strict=False)), keys[at]: {last if at == len(keys) - 1 else strict: values[at]}}
        for at in range(len(keys))
    ]
    return {"$or": steps}


def _key_of(found: Document, wanted: UsageWanted) -> Key:
    parts = [found[f"key{at}"] for at in range(len(wanted.group_by))]
    return tuple(part if isinstance(part, str) else int(part) for part in parts)


def _chosen(wanted: UsageWanted) -> Document:
    chosen: Document = {}
    if wanted.path is not None and wanted.only:
        chosen["path"] = wanted.path
    elif wanted.path is not None:
        below = {"$gte": f"{wanted.path}/", "$lt": next_path(wanted.path)}
        chosen["$or"] = [{"path": wanted.path}, {"path": below}]
    times = {"$gte": wanted.from_ms, "$lt": wanted.to_ms}
    if limits := {name: value for name, value in times.items() if value is not None}:
        chosen["bucket_ms"] = limits
    return chosen


def _key(word: str, wanted: UsageWanted) -> Any:
    if word in _FIELDS:
        return _FIELDS[word]
    if word.startswith("level_"):
        return _level(int(word.removeprefix("level_")))
    if word == "plan":
        return {"$ifNull": ["$plan", ""]}
    *earlier, last = wanted.offsets
    offset: Any = last.offset_ms
    if earlier:
        branches = [{"case": {"$lt": ["$bucket_ms", one.until_ms]}, "then": one.offset_ms} for one in earlier]
        offset = {"$switch": {"branches": branches, "default": last.offset_ms}}
    local = {"$add": ["$bucket_ms", offset]}
    if word == "day":
        return {"$toLong": {"$floor": {"$divide": [local, DAY_MS]}}}
    return {"$subtract": [{"$subtract": [local, {"$mod": [local, HOUR_MS]}]}, offset]}


def _level(depth: int) -> Document:
    found = {"$regexFind": {"input": "$path", "regex": rf"^[^/]*(/[^/]*){{0,{depth - 1}}}"}}
    return {"$getField": {"field": "match", "input": found}}
