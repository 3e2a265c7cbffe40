"""The catalog on MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from meter.store.catalog import Plain
from meter.store.documents import Document, documents_of, id_of, rows_from
from meter.store.rows import Row, VersionedRow

if TYPE_CHECKING:
    from collections.abc import Iterable

R = TypeVar("R", bound=Row)

_DUPLICATE_KEY = 11000


class MongoCatalog:
    """Rows that people make and change; a part of `MongoStore`, which gives the collections."""

    def _call(self) -> AbstractAsyncContextManager[AsyncClientSession | None]:
        raise NotImplementedError

    def _collection(self, model: type[Row]) -> AsyncCollection[Document]:
        raise NotImplementedError

    async def get(self, model: type[R], *key: Plain) -> R | None:
        async with self._call():
            found = await self._collection(model).find_one({"_id": id_of(*key)})
        return None if found is None else rows_from(model, [found])[0]

    async def insert(self, row: Row) -> bool:
        async with self._call():
            try:
                await self._collection(type(row)).insert_one(documents_of([row])[0])
            except DuplicateKeyError:
                return False
        return True

    async def insert_many(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        async with self._call():
            try:
                await self._collection(type(rows[0])).insert_many(documents_of(rows), ordered=False)
            except BulkWriteError as error:
                faults: Iterable[Document] = error.details.get("writeErrors", ())
                if any(fault["code"] != _DUPLICATE_KEY for fault in faults):
                    raise

    async def swap(self, row: VersionedRow) -> bool:
        document = documents_of([row])[0]
        async with self._call():
            done = await self._collection(type(row)).replace_one(
                {"_id": document["_id"], "version": row.version - 1}, document
            )
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
        async with self._call():
            found = self._collection(model).find({"$and": wanted}, limit=limit).sort([(name, 1) for name in order])
            return rows_from(model, await found.to_list())
