"""A flush in MongoDB: in one transaction where the server has them (replica set, sharded cluster).

A standalone server has none. There the rows are written first, each write repeatable, and the watermark is moved
last: a flush that was cut off is written again by the next one. What a flusher that lost the race has written by then
stays, so readers may see transactions above the watermark; for development, not for money.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, DuplicateKeyError

from meter.store.base import Flush, Flushed, StoreRefused
from meter.store.catalog import Change, Count, as_it_was, by_model
from meter.store.key_rows import REVOKED, ApiKeyRow
from meter.store.mongo.documents import Document, documents_of, id_of, rows_from
from meter.store.records import R
from meter.store.repeats import new_operations, own_operations
from meter.store.row import Row, VersionedRow
from meter.store.rows import (
    AccountRow,
    AlertRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    ReservationRow,
    TransactionRow,
    WatermarkRow,
)
from meter.store.sql.dialect import replaced_columns
from meter.store.top_up_rows import TopUpRow
from meter.store.usage import Added
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

Database = AsyncDatabase[Document]

_DUPLICATE_KEY = 11000
_TRANSIENT = "TransientTransactionError"  # the transaction is to be tried again


class Fenced(Exception):
    """Another process was first: the watermark, or a row to change, is not the expected one."""


class MongoFlush:
    """Writes one flush, or one change; `session` is in a transaction, or None on a standalone server."""

    def __init__(self, database: Database, session: AsyncClientSession | None) -> None:
        self._database = database
        self._session = session

    async def apply(self, flush: Flush) -> Flushed:
        """Writes a flush. Raises `Fenced`, and `StoreRefused` for rows that contradict what is there."""
        is_atomic = self._session is not None
        if is_atomic:
            await self.move_watermark(flush.expected, flush.reached)
        else:
            await self._check_watermark(flush)
        await self._insert(TransactionRow, flush.transactions)
        operations, repeated = await self._new_operations(flush)
        await self._insert(OperationRow, operations)
        grants, doubled = await self._own_operations(flush)
        await self._replace(AccountRow, flush.accounts)
        await self._replace(GrantRow, grants)
        await self._replace(ReservationRow, flush.reservations)
        await self.insert_missing(AlertRow, flush.alerts)
        await self.insert_missing(TopUpRow, flush.top_ups)
        await self.insert_missing(EventRow, flush.events)
        await self._insert(QuarantineRow, flush.quarantine)
        for key_id in flush.revoked_keys:
            live = {"_id": key_id, "state": {"$ne": REVOKED}}
            revoke = {"$set": {"state": REVOKED}, "$inc": {"version": 1}}
            await self._database[ApiKeyRow.TABLE].update_one(live, revoke, session=self._session)
        if not is_atomic:
            await self.move_watermark(flush.expected, flush.reached)
        await self._count(flush)
        return Flushed(done=True, repeated_operations=tuple(dict.fromkeys([*repeated, *doubled])))

    async def move_watermark(self, expected: WatermarkRow | None, reached: WatermarkRow) -> None:
        """Moves the watermark. Raises `Fenced`."""
        watermarks = self._database[WatermarkRow.TABLE]
        (document,) = documents_of([reached])
        if expected is None:
            try:
                await watermarks.insert_one(document, session=self._session)
            except DuplicateKeyError:
                raise Fenced from None
            return
        place = {"_id": expected.partition, "epoch": expected.epoch, "seq": expected.seq, "head": expected.head}
        place["bucket_minutes"] = expected.bucket_minutes
        moved = await watermarks.replace_one(place, document, session=self._session)
        if moved.matched_count != 1:
            raise Fenced

    async def commit(self, change: Change) -> None:
        """Writes a change. Raises `Fenced`."""
        if self._session is None:
            await self._check_new(change.new)
        for count in change.counts:
            await self._count_one(count)
        for rows in by_model(change.swaps):
            written = await self._database[rows[0].TABLE].bulk_write(replacements(rows), session=self._session)
            if written.modified_count < len(rows):
                raise Fenced
        for new in by_model(change.new):
            try:
                await self._database[new[0].TABLE].insert_many(documents_of(new), session=self._session)
            except BulkWriteError as error:
                if error.has_error_label(_TRANSIENT):
                    raise
                if any(one["code"] == _DUPLICATE_KEY for one in error.details["writeErrors"]):
                    raise Fenced from None
                raise _refusal(type(new[0]), error) from error
        for missing in by_model(change.missing):
            await self.insert_missing(type(missing[0]), missing)

    async def _count_one(self, count: Count) -> None:
        place = documents_of([count.row])[0]["_id"]
        open_one = {"_id": place, "state": count.state, count.column: {"$lt": count.most}}
        more = {"$inc": {count.column: 1, "version": 1}}
        done = await self._database[count.row.TABLE].update_one(open_one, more, session=self._session)
        if done.matched_count != 1:
            raise Fenced

    async def rewrite(self, old: Sequence[R], new: Sequence[R]) -> None:
        """Puts rows in the place of others. Raises `Fenced`. Each write can be repeated."""
        model = type(old[0])
        places = {document["_id"]: document for document in documents_of(old)}
        kept = {document["_id"]: document for document in documents_of(new)}
        guards = [name for name in as_it_was(model) if name not in model.KEY]
        writes: list[InsertOne[Document] | ReplaceOne[Document] | UpdateOne | DeleteOne] = [
            _added(document) for place, document in kept.items() if place not in places
        ]
        for place, document in places.items():
            same = {"_id": place, **{name: document[name] for name in guards}}
            writes.append(ReplaceOne(same, kept[place]) if place in kept else DeleteOne(same))
        done = await self._database[model.TABLE].bulk_write(writes, session=self._session)
        if done.matched_count + done.deleted_count < len(places):
            raise Fenced

    async def insert_missing(self, model: type[R], rows: Sequence[R]) -> None:
        """Adds the rows that are not there yet; the others stay as they are."""
        await self._write(model, [_added(document) for document in documents_of(rows)])

    async def _check_new(self, rows: Sequence[Row]) -> None:
        for of_model in by_model(rows):
            ids = [document["_id"] for document in documents_of(of_model)]
            if await self._database[of_model[0].TABLE].find_one({"_id": {"$in": ids}}) is not None:
                raise Fenced

    async def _check_watermark(self, flush: Flush) -> None:
        found = await self._database[WatermarkRow.TABLE].find_one({"_id": flush.partition})
        stored = None if found is None else rows_from(WatermarkRow, [found])[0]
        if _place(stored) != _place(flush.expected):
            raise Fenced

    async def _count(self, flush: Flush) -> None:
        """The usage figures, which a standalone server gets last: those of a flush that was cut off are missing rather
        than there twice, until somebody makes them again.
        """
        if flush.renamed:
            gaps = self._database[UsageGapRow.TABLE]
            await gaps.update_many({"partition": flush.partition}, {"$inc": {"version": 1}}, session=self._session)
        for was, path in flush.renamed:
            await self._rename(UsageRow, was, path)
            await self._rename(UsageQuantityRow, was, path)
        await self._add(flush.usage)
        await self.insert_missing(UsageGapRow, flush.gaps)

    async def _rename(self, model: type[UsageRow] | type[UsageQuantityRow], was: str, path: str) -> None:
        documents = self._database[model.TABLE].find({"path": was}, session=self._session)
        rows = [row.model_copy(update={"path": path}) for row in rows_from(model, await documents.to_list())]
        await self.insert_missing(model, rows)
        await self._database[model.TABLE].delete_many({"path": was}, session=self._session)

    async def _add(self, added: Added) -> None:
        for model, rows in ((UsageRow, added.figures), (UsageQuantityRow, added.quantities)):
            writes = []
            for document in documents_of(rows):
                sums = {name: document[name] for name in model.SUMS}
                rest = {name: value for name, value in document.items() if name not in sums and name != "_id"}
                writes.append(UpdateOne({"_id": document["_id"]}, {"$inc": sums, "$setOnInsert": rest}, upsert=True))
            await self._write(model, writes)

    async def fill_usage_gap(self, gap: UsageGapRow, after_seq: int, added: Added) -> None:
        """Moves a gap, and adds what was in it. Raises `Fenced`."""
        gaps = self._database[UsageGapRow.TABLE]
        same = {"_id": id_of(gap.partition, gap.until_seq), "version": gap.version}
        if after_seq < gap.until_seq:
            changed = {"$set": {"after_seq": after_seq, "version": gap.version + 1}}
            done = (await gaps.update_one(same, changed, session=self._session)).matched_count
        else:
            done = (await gaps.delete_one(same, session=self._session)).deleted_count
        if done != 1:
            raise Fenced
        await self._add(added)

    async def begin_rollup(self, from_ms: int, bucket_minutes: int, version: int) -> int:
        """See `UsageStore.begin_rollup`. A flush that is under way then is tried again by its server, or fenced."""
        marks, gaps = self._database[WatermarkRow.TABLE], self._database[UsageGapRow.TABLE]
        before = rows_from(WatermarkRow, await marks.find({}, session=self._session).to_list())
        for row in before:
            place, counted = (
                {"_id": row.partition, "seq": row.seq},
                {"counted_seq": row.seq, "bucket_minutes": bucket_minutes},
            )
            if (await marks.update_one(place, {"$set": counted}, session=self._session)).matched_count != 1:
                raise Fenced
        older = rows_from(UsageGapRow, await gaps.find({}, session=self._session).to_list())
        from_ms = min([from_ms, *(row.from_ms for row in older)])
        if {row.bucket_minutes for row in before} - {None, bucket_minutes}:
            from_ms = 0
        for model in (UsageRow, UsageQuantityRow):
            await self._database[model.TABLE].delete_many({"bucket_ms": {"$gte": from_ms}}, session=self._session)
        await gaps.delete_many({}, session=self._session)
        rows = [
            UsageGapRow(partition=row.partition, until_seq=row.seq, after_seq=0, from_ms=from_ms, version=version)
            for row in before
            if row.seq
        ]
        await self.insert_missing(UsageGapRow, rows)
        return sum(row.until_seq for row in rows)

    async def _insert(self, model: type[R], rows: Sequence[R]) -> None:
        """Adds rows. On a standalone server those that an earlier try has written must be the same."""
        documents = documents_of(rows)
        if not documents:
            return
        try:
            await self._database[model.TABLE].bulk_write(
                [InsertOne(document) for document in documents],
                ordered=self._session is not None,
                session=self._session,
            )
        except BulkWriteError as error:
            if error.has_error_label(_TRANSIENT):
                raise
            failures = error.details["writeErrors"]
            if self._session is not None or any(one["code"] != _DUPLICATE_KEY for one in failures):
                raise _refusal(model, error) from error
            tried = {documents[one["index"]]["_id"]: documents[one["index"]] for one in failures}
            async for stored in self._database[model.TABLE].find({"_id": {"$in": list(tried)}}):
                if tried.pop(stored["_id"]) != stored:
                    raise _refusal(model, error) from error
            if tried:  # refused for another key than _id
                raise _refusal(model, error) from error

    async def _replace(self, model: type[R], rows: Sequence[R]) -> None:
        documents = documents_of(rows)
        if not documents:
            return
        ids = [document["_id"] for document in documents]
        found = self._database[model.TABLE].find({"_id": {"$in": ids}}, {"_id": 1}, session=self._session)
        known = {document["_id"] async for document in found}
        names = replaced_columns(model)
        writes = []
        for document in documents:
            if document["_id"] not in known:
                writes.append(_added(document))
            older = {"_id": document["_id"], "last_seq": {"$lte": document["last_seq"]}}
            writes.append(UpdateOne(older, {"$set": {name: document[name] for name in names}}))
        await self._write(model, writes)

    async def _write(self, model: type[Row], writes: Sequence[UpdateOne]) -> None:
        if not writes:
            return
        try:
            await self._database[model.TABLE].bulk_write(writes, ordered=True, session=self._session)
        except BulkWriteError as error:
            if error.has_error_label(_TRANSIENT):
                raise
            raise _refusal(model, error) from error

    async def _new_operations(self, flush: Flush) -> tuple[list[OperationRow], list[str]]:
        if not flush.operations:
            return [], []
        ids = [id_of(operation.partition, operation.operation_id) for operation in flush.operations]
        found = self._database[OperationRow.TABLE].find({"_id": {"$in": ids}}, session=self._session)
        stored = {document["operation_id"]: document["transaction_id"] async for document in found}
        return new_operations(flush.operations, stored)

    async def _own_operations(self, flush: Flush) -> tuple[Sequence[GrantRow], list[str]]:
        keys = [grant.operation_id for grant in flush.grants if grant.operation_id is not None]
        if not keys:
            return flush.grants, []
        found = self._database[GrantRow.TABLE].find(by_operation(flush.partition, keys), session=self._session)
        owners = {document["operation_id"]: (document["user_id"], document["grant_id"]) async for document in found}
        return own_operations(flush.grants, owners)


def _place(watermark: WatermarkRow | None) -> tuple[object, ...] | None:
    if watermark is None:
        return None
    return watermark.epoch, watermark.seq, watermark.head, watermark.bucket_minutes


def by_operation(partition: int, operation_ids: Sequence[str]) -> Document:
    """The grants of some operation ids. The type is named because the index has only texts."""
    return {"partition": partition, "operation_id": {"$in": list(operation_ids), "$type": "string"}}


def replacements(rows: Sequence[VersionedRow]) -> list[ReplaceOne[Document]]:
    """Each row in the place of the one that has the version before."""
    return [
        ReplaceOne({"_id": document["_id"], "version": row.version - 1}, document)
        for row, document in zip(rows, documents_of(rows), strict=True)
    ]


def _added(document: Document) -> UpdateOne:
    values = {name: value for name, value in document.items() if name != "_id"}
    return UpdateOne({"_id": document["_id"]}, {"$setOnInsert": values}, upsert=True)


def _refusal(model: type[Row], error: BulkWriteError) -> StoreRefused:
    details: dict[str, Any] = dict(error.details or {})
    reasons = [str(one.get("errmsg")) for one in details.get("writeErrors", [])]
    return StoreRefused(f"{model.TABLE}: {'; '.join(reasons[:3])}")
