"""The Store on MongoDB, through PyMongo's async API. Knows connections, time limits, errors and the reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern

from meter.connection_faults import TlsOptions, first_line, texts_of, tls_refusal
from meter.errors import ConfigError, StoreDenied
from meter.log import logger
from meter.store.base import Flush, Flushed, StoreRefused, StoreUnavailable
from meter.store.calls import Calls, T, away
from meter.store.mongo.catalog import MongoCatalog
from meter.store.mongo.documents import Document, beyond, id_of, rows_from
from meter.store.mongo.flush import Database, Fenced, MongoFlush, by_operation
from meter.store.mongo.schema import has_transactions, prepare
from meter.store.mongo.sums import sums_of
from meter.store.mongo.usage import MongoUsage
from meter.store.mongo.users import MongoUsers
from meter.store.records import R
from meter.store.repeats import also, own_grant
from meter.store.row import Row
from meter.store.rows import AccountRow, EventRow, GrantRow, OperationRow, ReservationRow, TransactionRow, WatermarkRow
from meter.store.shared import SharedCalls
from meter.store.sums import Sum, Wanted, summed

DATABASE = "meter"
OPEN_TIMEOUT_SECONDS = 600.0
REACH_MS_MAX = 10_000

Client = AsyncMongoClient[Document]

_MAJORITY = WriteConcern("majority", j=True)
_REFUSALS = frozenset({121, 11000})  # the validator, a duplicate key

_DENIED = frozenset({13, 18, 8000})  # no right to it, wrong password, the same at Atlas

_SIGNED_OUT = frozenset({18, 8000})
"""Of these, what a new connection is told whose password is of yesterday: nothing of its call was begun."""

_TLS = TlsOptions(ca="?tlsCAFile=…", certificate="?tlsCertificateKeyFile=…", plain="leave ?tls=true out")

_LIVE: Document = {
    "pending": False,
    "$or": [{"remaining": {"$gt": 0}}, {"reserved": {"$gt": 0}}, {"state": "scheduled"}],
}

_log = logger("meter.store")


def open_mongo(url: str, *, timeout_seconds: float, read_again: Callable[[], str] | None = None) -> MongoStore:
    """A store in the database that the URL names, else in `meter`. `read_again` tells the URL that it has now."""
    client = _client_of(url, timeout_seconds)
    renewal = None if read_again is None else _Renewal(url, read_again, timeout_seconds)
    return MongoStore(client, client.get_default_database(DATABASE), timeout_seconds=timeout_seconds, renewal=renewal)


def _client_of(url: str, timeout_seconds: float) -> Client:
    answer_ms = int(1000 * timeout_seconds)  # also ends what tidies up after a call that was given up
    reach_ms = min(REACH_MS_MAX, answer_ms)
    try:
        client: Client = AsyncMongoClient(
            url,
            serverSelectionTimeoutMS=reach_ms,
            connectTimeoutMS=reach_ms,
            socketTimeoutMS=answer_ms,
            connect=False,
        )
        client.get_default_database(DATABASE)
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise ConfigError(f"METER_STORE_URL: {error}") from None
    return client


class _Renewal:
    """Makes a client by the URL of now. The driver signs every connection of a client in with what it had at first, so
    that other credentials are another client.
    """

    def __init__(self, url: str, read_again: Callable[[], str], timeout_seconds: float) -> None:
        self._url, self._read_again, self._timeout_seconds = url, read_again, timeout_seconds

    def client(self) -> Client | None:
        """None where the URL is still the same, or one that cannot be read."""
        url = self._read_again()
        if url == self._url:
            return None
        try:
            made = _client_of(url, self._timeout_seconds)
        except ConfigError:
            return None
        self._url = url
        return made


class MongoStore(MongoCatalog, MongoUsage, MongoUsers, SharedCalls):
    """`atomic`: whether to use transactions; None asks the server at `open`."""

    def __init__(
        self,
        client: Client,
        database: Database,
        *,
        timeout_seconds: float,
        atomic: bool | None = None,
        renewal: _Renewal | None = None,
    ) -> None:
        self._use(client, database)
        self._calls = Calls(timeout_seconds)
        self._atomic = atomic
        self._renewal = renewal
        self._retired: list[Client] = []

    def _use(self, client: Client, database: Database) -> None:
        self._client = client
        self._database = database.with_options(write_concern=_MAJORITY, read_concern=ReadConcern("majority"))

    @property
    def has_transactions(self) -> bool:
        return self._atomic is not False

    async def open(self, settings: Mapping[str, str]) -> None:
        await self._run(lambda: self._prepare(settings), timeout_seconds=OPEN_TIMEOUT_SECONDS)

    async def close(self) -> None:
        await self._calls.drain()
        for client in (*self._retired, self._client):
            await client.close()

    async def ping(self) -> None:
        await self._run(lambda: self._database.command("ping"))

    async def watermark(self, partition: int) -> WatermarkRow | None:
        return await self._one(WatermarkRow, {"_id": partition})

    async def accounts(self, user_ids: Sequence[str]) -> dict[str, AccountRow]:
        return {row.user_id: row for row in await self._all(AccountRow, {"_id": {"$in": list(user_ids)}})}

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        found = await self._all(GrantRow, {"_id": {"$in": [id_of(*key) for key in keys]}})
        return {(row.user_id, row.grant_id): row for row in found}

    async def reservations(self, reservation_ids: Sequence[str]) -> dict[str, ReservationRow]:
        found = await self._all(ReservationRow, {"_id": {"$in": list(reservation_ids)}})
        return {row.reservation_id: row for row in found}

    async def apply(self, flush: Flush) -> Flushed:
        try:
            return await self._run(lambda: self._transact(lambda writer: writer.apply(flush)))
        except Fenced:
            return Flushed(done=False)

    async def drop_pending_grant(self, user_id: str, grant_id: str) -> None:
        mine = {"_id": id_of(user_id, grant_id), "pending": True}
        await self._run(lambda: self._collection(GrantRow).delete_one(mine))

    async def pending_grants(
        self, created_before_ms: int, limit: int, after: tuple[int, str, str] | None = None
    ) -> list[GrantRow]:
        order = ("created_at_ms", "user_id", "grant_id")
        chosen: Document = {"pending": True, "created_at_ms": {"$lt": created_before_ms}}
        if after is not None:
            chosen = {"$and": [chosen, beyond(order, after)]}
        return await self._all(GrantRow, chosen, order, limit)

    async def transaction(self, transaction_id: str) -> TransactionRow | None:
        return await self._one(TransactionRow, {"_id": transaction_id})

    async def sums(self, wanted: Wanted, after: str, limit: int) -> list[Sum]:
        found = await self._run(lambda: self._aggregate(TransactionRow, sums_of(wanted, after, limit)))
        return [summed(one["_id"], tuple(one[name] for name in Sum._fields[1:])) for one in found]

    async def refunded(self, transaction_id: str) -> int:
        steps: list[Document] = [
            {"$match": {"refund_of": transaction_id}},
            {"$group": {"_id": None, "sum": {"$sum": "$amount"}}},
        ]
        found = await self._run(lambda: self._aggregate(TransactionRow, steps))
        return int(found[0]["sum"]) if found else 0

    async def history(
        self,
        user_id: str,
        *,
        kinds: Sequence[str] = (),
        reference: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        before_seq: int | None = None,
        limit: int,
    ) -> list[TransactionRow]:
        chosen: Document = {"user_id": user_id}
        if kinds:
            chosen["kind"] = {"$in": list(kinds)}
        if reference is not None:
            chosen["$or"] = [{"reference": reference}, {"operation_id": reference}]
        if before_seq is not None:
            chosen["seq"] = {"$lt": before_seq}
        times = {"$gte": from_ms, "$lt": to_ms}
        if limits := {name: value for name, value in times.items() if value is not None}:
            chosen["created_at_ms"] = limits
        return await self._all(TransactionRow, chosen, ("seq",), limit, direction=-1)

    async def traced(
        self, reference: str, *, before: tuple[int, int, int] | None = None, limit: int
    ) -> list[TransactionRow]:
        chosen: Document = {"reference": reference}
        if before is not None:
            at_ms, seq, partition = before
            same = {"created_at_ms": at_ms}
            earlier = [{**same, "seq": {"$lt": seq}}, {**same, "seq": seq, "partition": {"$lt": partition}}]
            chosen["$or"] = [{"created_at_ms": {"$lt": at_ms}}, *earlier]
        order = ("created_at_ms", "seq", "partition")
        return await self._all(TransactionRow, chosen, order, limit, direction=-1)

    async def transaction_at(self, user_id: str, at_ms: int) -> TransactionRow | None:
        found = await self.history(user_id, to_ms=at_ms + 1, limit=1)
        return found[0] if found else None

    async def grants_of(
        self, user_id: str, *, after: tuple[int, str] | None = None, limit: int, expires_before_ms: int | None = None
    ) -> list[GrantRow]:
        if expires_before_ms is None:
            return await self._page(GrantRow, {"user_id": user_id}, ("created_at_ms", "grant_id"), after, limit)
        ending = {"user_id": user_id, "expires_at_ms": {"$lt": expires_before_ms}, **_LIVE}
        return await self._page(GrantRow, ending, ("expires_at_ms", "grant_id"), after, limit)

    async def reservations_of(
        self, user_id: str, *, state: str | None, after: tuple[int, str] | None = None, limit: int
    ) -> list[ReservationRow]:
        chosen = {"user_id": user_id} if state is None else {"user_id": user_id, "state": state}
        return await self._page(ReservationRow, chosen, ("created_at_ms", "reservation_id"), after, limit)

    async def scan_accounts(self, partition: int, after_user_id: str, limit: int) -> list[AccountRow]:
        chosen = {"partition": partition, "user_id": {"$gt": after_user_id}}
        return await self._all(AccountRow, chosen, ("user_id",), limit)

    async def live_grants(self, user_ids: Sequence[str]) -> list[GrantRow]:
        return await self._all(GrantRow, {"user_id": {"$in": list(user_ids)}, **_LIVE})

    async def open_reservations(self, user_ids: Sequence[str]) -> list[ReservationRow]:
        return await self._all(ReservationRow, {"user_id": {"$in": list(user_ids)}, "state": "open"})

    async def operations_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[OperationRow]:
        chosen = {"partition": partition, "created_at_ms": {"$gte": since_ms}}
        return await self._page(OperationRow, chosen, ("created_at_ms", "operation_id"), after, limit)

    async def reservations_ended_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[ReservationRow]:
        chosen = {"partition": partition, "ended_at_ms": {"$gte": since_ms}}
        return await self._page(ReservationRow, chosen, ("ended_at_ms", "reservation_id"), after, limit)

    async def put_events(self, events: Sequence[EventRow]) -> None:
        await self._run(lambda: MongoFlush(self._database, None).insert_missing(EventRow, events))

    async def events(
        self, *, kind: str | None = None, user_id: str | None = None, before: tuple[int, str] | None = None, limit: int
    ) -> list[EventRow]:
        wanted = {"kind": kind, "user_id": user_id}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        return await self._page(EventRow, chosen, ("created_at_ms", "event_id"), before, limit, direction=-1)

    async def _same_grant(self, grant: GrantRow) -> GrantRow | None:
        found = await self._one(GrantRow, {"_id": id_of(grant.user_id, grant.grant_id)})
        if found is None and grant.operation_id is not None:
            names = [grant.operation_id, also(grant.operation_id, grant.fingerprint or "")]
            found = own_grant(grant, await self._all(GrantRow, by_operation(grant.partition, names)))
        return found

    async def _all(
        self,
        model: type[R],
        chosen: Mapping[str, Any],
        order: Sequence[str] = (),
        limit: int = 0,
        *,
        direction: int = 1,
    ) -> list[R]:
        async def read() -> list[Document]:
            found = self._collection(model).find(chosen, limit=limit)
            if order:
                found = found.sort([(name, direction) for name in order])
            return await found.to_list()

        return rows_from(model, await self._run(read))

    async def _one(self, model: type[R], chosen: Mapping[str, Any]) -> R | None:
        found = await self._all(model, chosen, limit=1)
        return found[0] if found else None

    async def _page(
        self,
        model: type[R],
        chosen: Document,
        order: tuple[str, str],
        after: tuple[int, str] | None,
        limit: int,
        *,
        direction: int = 1,
    ) -> list[R]:
        """Documents beyond a pair in the order of two fields."""
        if after is not None:
            chosen = {"$and": [chosen, beyond(order, after, descending=direction < 0)]}
        return await self._all(model, chosen, order, limit, direction=direction)

    def _collection(self, model: type[Row]) -> AsyncCollection[Document]:
        return self._database[model.TABLE]

    async def _aggregate(self, model: type[Row], steps: Sequence[Document]) -> list[Document]:
        return await (await self._collection(model).aggregate(steps)).to_list()

    async def _prepare(self, settings: Mapping[str, str]) -> None:
        if self._atomic is None:
            self._atomic = await has_transactions(self._database)
        if not self._atomic:
            _log.warning("MongoDB runs alone, without transactions: for development only, use a replica set")
        await prepare(self._database, settings)

    async def _transact(self, work: Callable[[MongoFlush], Awaitable[T]]) -> T:
        """Does the work in a transaction, where the server has them."""

        async def write(session: AsyncClientSession | None) -> T:
            return await work(MongoFlush(self._database, session))

        if not self._atomic:
            return await write(None)
        async with self._client.start_session() as session:
            return await session.with_transaction(write, ReadConcern("snapshot"), _MAJORITY)

    async def _renew(self, refused: Client) -> bool:
        """Whether there is another client by now than one that was refused."""
        if self._client is not refused:
            return True
        client = None if self._renewal is None else self._renewal.client()
        if client is None:
            return False
        done, self._retired = self._retired, [refused]  # calls that are under way end on it
        self._use(client, client.get_database(self._database.name))
        for earlier in done:
            await earlier.close()
        return True

    async def _signed_in(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A call, once more where its connection was refused for a password that has been changed since."""
        client = self._client
        try:
            return await call()
        except OperationFailure as error:
            if error.code not in _SIGNED_OUT or not await self._renew(client):
                raise
        return await call()

    async def _run(self, call: Callable[[], Coroutine[Any, Any, T]], *, timeout_seconds: float | None = None) -> T:
        """Runs a call; the driver's exceptions become ours."""
        try:
            return await self._calls.run(self._signed_in(call), timeout_seconds=timeout_seconds)
        except OperationFailure as error:
            if error.code in _DENIED:
                detail = f"METER_STORE_URL: MongoDB refuses it ({error.code}); check user, password and roles"
                raise StoreDenied(detail) from None
            raise (StoreRefused if error.code in _REFUSALS else StoreUnavailable)(str(error)) from error
        except (OverflowError, UnicodeError) as error:
            raise StoreRefused(str(error)) from error
        except (PyMongoError, TimeoutError, OSError) as error:
            if why := tls_refusal(texts_of(error), _TLS):
                raise StoreDenied(f"METER_STORE_URL: {why} ({first_line(error)})") from None
            raise away(error, str(error) or "the store did not answer in time") from error
