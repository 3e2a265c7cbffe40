"""The catalog on MongoDB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from meter.store.catalog import Change, Plain
from meter.store.mongo.documents import Document, beyond, documents_of, id_of, rows_from
from meter.store.mongo.flush import Fenced, MongoFlush, replacements
from meter.store.row import Row, VersionedRow

R = TypeVar("R", bound=Row)
T = TypeVar("T")

_DUPLICATE_KEY = 11000


class MongoCatalog:
    """Rows that people make and change; a part of `MongoStore`, which gives the collections."""

    async def _run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        raise NotImplementedError

    async def _transact(self, work: Callable[[MongoFlush], Awaitable[T]]) -> T:
        raise NotImplementedError

    def _collection(self, model: type[Row]) -> AsyncCollection[Document]:
        raise NotImplementedError

    async def get(self, model: type[R], *key: Plain) -> R | None:
        found = await self._run(lambda: self._collection(model).find_one({"_id": id_of(*key)}))
        return None if found is None else rows_from(model, [found])[0]

    async def insert(self, row: Row) -> bool:
        return await self._run(lambda: self._insert_one(row))

    async def insert_many(self, rows: Sequence[Row]) -> int:
        return await self._run(lambda: self._insert_new(rows)) if rows else 0

    async def swap(self, row: VersionedRow) -> bool:
        document = documents_of([row])[0]
        before = {"_id": document["_id"], "version": row.version - 1}
        done = await self._run(lambda: self._collection(type(row)).replace_one(before, document))
        return done.modified_count == 1

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        if not rows:
            return 0
        done = await self._run(lambda: self._collection(type(rows[0])).bulk_write(replacements(rows), ordered=False))
        return done.modified_count

    async def commit(self, change: Change) -> bool:
        try:
            await self._run(lambda: self._transact(lambda flush: flush.commit(change)))
        except Fenced:
            return False
        return True

    async def remove(self, rows: Sequence[Row]) -> None:
        if rows:
            ids = [document["_id"] for document in documents_of(rows)]
            await self._run(lambda: self._collection(type(rows[0])).delete_many({"_id": {"$in": ids}}))

    async def rewrite(self, old: Sequence[R], new: Sequence[R]) -> bool:
        try:
            await self._run(lambda: self._transact(lambda flush: flush.rewrite(old, new)))
        except Fenced:
            return False
        return True

    async def due(self, model: type[R], state: str, time: str, until: int, limit: int) -> list[R]:
        chosen: Document = {"state": state, time: {"$lte": until}}
        return await self._find(model, chosen, [(time, 1)], limit)

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
        order = list(dict.fromkeys((order_by, *model.KEY)))
        direction = -1 if descending else 1
        wanted: list[Document] = [dict(equal)]
        if until is not None:
            wanted.append({order_by: {"$lte": until}})
        if after is not None:
            wanted.append(beyond(order, after, descending=descending))
        return await self._find(model, {"$and": wanted}, [(name, direction) for name in order], limit)

    async def _find(self, model: type[R], chosen: Document, order: list[tuple[str, int]], limit: int) -> list[R]:
        found = await self._run(lambda: self._collection(model).find(chosen, limit=limit).sort(order).to_list())
        return rows_from(model, found)

    async def _insert_one(self, row: Row) -> bool:
        try:
            await self._collection(type(row)).insert_one(documents_of([row])[0])
        except DuplicateKeyError:
            return False
        return True

    async def _insert_new(self, rows: Sequence[Row]) -> int:
        try:
            await self._collection(type(rows[0])).insert_many(documents_of(rows), ordered=False)
        except BulkWriteError as error:
            faults: list[Document] = list(error.details.get("writeErrors", ()))
            if any(fault["code"] != _DUPLICATE_KEY for fault in faults):
                raise
            return len(rows) - len(faults)
        return len(rows)
