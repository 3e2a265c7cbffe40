"""The catalog on MongoDB."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from meter.store.catalog import Plain
from meter.store.documents import Document, documents_of, id_of, rows_from
from meter.store.rows import Row, VersionedRow

R = TypeVar("R", bound=Row)
T = TypeVar("T")

_DUPLICATE_KEY = 11000


class MongoCatalog:
    """Rows that people make and change; a part of `MongoStore`, which gives the collections."""

    async def _run(self, call: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError

    def _collection(self, model: type[Row]) -> AsyncCollection[Document]:
        raise NotImplementedError

    async def get(self, model: type[R], *key: Plain) -> R | None:
        found = await self._run(self._collection(model).find_one({"_id": id_of(*key)}))
        return None if found is None else rows_from(model, [found])[0]

    async def insert(self, row: Row) -> bool:
        return await self._run(self._insert_one(row))

    async def insert_many(self, rows: Sequence[Row]) -> None:
        if rows:
            await self._run(self._insert_new(rows))

    async def swap(self, row: VersionedRow) -> bool:
        document = documents_of([row])[0]
        before = {"_id": document["_id"], "version": row.version - 1}
        done = await self._run(self._collection(type(row)).replace_one(before, document))
        return done.modified_count == 1

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        return sum([await self.swap(row) for row in rows])

    async def find(
        self,
        model: type[R],
        equal: Mapping[str, Plain],
        *,
        order_by: str,
        until: int | None = None,
        after: Sequence[Plain] | None = None,
        limit: int,
    ) -> list[R]:
        order = list(dict.fromkeys((order_by, *model.KEY)))
        wanted: list[Document] = [dict(equal)]
        if until is not None:
            wanted.append({order_by: {"$lte": until}})
        if after is not None:
            beyond = [
                {**{order[n]: after[n] for n in range(at)}, order[at]: {"$gt": after[at]}} for at in range(len(order))
            ]
            wanted.append({"$or": beyond})
        found = self._collection(model).find({"$and": wanted}, limit=limit).sort([(name, 1) for name in order])
        return rows_from(model, await self._run(found.to_list()))

    async def _insert_one(self, row: Row) -> bool:
        try:
            await self._collection(type(row)).insert_one(documents_of([row])[0])
        except DuplicateKeyError:
            return False
        return True

    async def _insert_new(self, rows: Sequence[Row]) -> None:
        try:
            await self._collection(type(rows[0])).insert_many(documents_of(rows), ordered=False)
        except BulkWriteError as error:
            faults: Iterable[Document] = error.details.get("writeErrors", ())
            if any(fault["code"] != _DUPLICATE_KEY for fault in faults):
                raise
