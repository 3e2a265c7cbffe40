"""The Store on a SQL database. Knows connections, time limits and errors; what differs per database is its dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, literal, or_, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from meter.connection_faults import TlsOptions, first_line, texts_of, tls_refusal
from meter.errors import StoreDenied
from meter.store.base import Flush, Flushed, StoreRefused
from meter.store.calls import Calls, T, away
from meter.store.records import R, rows_of
from meter.store.repeats import also, own_grant
from meter.store.rows import AccountRow, EventRow, GrantRow, OperationRow, ReservationRow, TransactionRow, WatermarkRow
from meter.store.shared import SharedCalls
from meter.store.sql import queries
from meter.store.sql.catalog import SqlCatalog
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.flush import Fenced, apply_flush
from meter.store.sql.queries import Statement
from meter.store.sql.schema import prepare
from meter.store.sql.sums import sums
from meter.store.sql.tables import table_of
from meter.store.sql.usage import SqlUsage
from meter.store.sql.users import SqlUsers
from meter.store.sums import Sum, Wanted, summed

_DENIED = frozenset({1044, 1045, 1049, 1130, 1142, 1143, 1227, 1698, 3159, 4031})
"""MySQL and MariaDB: access to the database denied, wrong password, unknown database, not from this host, no right to a
table, to a column, to what it takes, no such way to log in, not without TLS.
"""

_TLS = TlsOptions(ca="?ssl_ca=…", certificate="?ssl_cert=…&ssl_key=…", plain="leave out what begins with ssl_")
"""Of MySQL and MariaDB."""

OPEN_TIMEOUT_SECONDS = 600.0  # Another process may be migrating a large store.


class SqlStore(SqlCatalog, SqlUsage, SqlUsers, SharedCalls):
    """A store on one database; `timeout_seconds` bounds each call, the wait for a connection included."""

    def __init__(self, engine: AsyncEngine, dialect: SqlDialect, *, timeout_seconds: float | None) -> None:
        self._use(engine, dialect)
        self._calls = Calls(timeout_seconds)

    def _use(self, engine: AsyncEngine, dialect: SqlDialect) -> None:
        self.engine = engine
        self._dialect = dialect
        self._reader = dialect.reader(engine)
        self._writer = dialect.writer(engine)

    async def open(self, settings: Mapping[str, str]) -> None:
        try:
            await self._run(self._prepare(settings), timeout_seconds=OPEN_TIMEOUT_SECONDS)
        except (TypeError, ValueError) as error:  # how drivers refuse an option of the URL, or its value
            if "argument" not in str(error):
                raise
            raise StoreDenied(f"METER_STORE_URL: the driver does not take an option: {error}") from None

    async def close(self) -> None:
        await self._calls.drain()
        await self.engine.dispose()

    async def ping(self) -> None:
        await self._run(self._fetch(select(literal(1))))

    async def watermark(self, partition: int) -> WatermarkRow | None:
        return await self._one(WatermarkRow, queries.one(WatermarkRow, partition))

    async def accounts(self, user_ids: Sequence[str]) -> dict[str, AccountRow]:
        chosen = self._dialect.among([table_of(AccountRow).c.user_id], user_ids)
        found = await self._all(AccountRow, select(table_of(AccountRow)).where(chosen)) if user_ids else []
        return {row.user_id: row for row in found}

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        columns = table_of(GrantRow).c
        chosen = self._dialect.among([columns.user_id, columns.grant_id], keys)
        found = await self._all(GrantRow, select(table_of(GrantRow)).where(chosen)) if keys else []
        return {(row.user_id, row.grant_id): row for row in found}

    async def reservations(self, reservation_ids: Sequence[str]) -> dict[str, ReservationRow]:
        chosen = self._dialect.among([table_of(ReservationRow).c.reservation_id], reservation_ids)
        statement = select(table_of(ReservationRow)).where(chosen)
        found = await self._all(ReservationRow, statement) if reservation_ids else []
        return {row.reservation_id: row for row in found}

    async def apply(self, flush: Flush) -> Flushed:
        try:
            return await self._write(lambda connection: apply_flush(connection, self._dialect, flush))
        except Fenced:
            return Flushed(done=False)

    async def drop_pending_grant(self, user_id: str, grant_id: str) -> None:
        grants = table_of(GrantRow)
        mine = (grants.c.user_id == user_id, grants.c.grant_id == grant_id)
        statement = delete(grants).where(*mine, grants.c.pending.is_(True))
        await self._write(lambda connection: connection.execute(statement))

    async def pending_grants(
        self, created_before_ms: int, limit: int, after: tuple[int, str, str] | None = None
    ) -> list[GrantRow]:
        return await self._all(GrantRow, queries.pending_grants(created_before_ms, limit, after))

    async def transaction(self, transaction_id: str) -> TransactionRow | None:
        return await self._one(TransactionRow, queries.one(TransactionRow, transaction_id))

    async def sums(self, wanted: Wanted, after: str, limit: int) -> list[Sum]:
        found = await self._run(self._fetch(sums(wanted, after, limit)))
        return [summed(key, tuple(numbers)) for key, *numbers in found]

    async def refunded(self, transaction_id: str) -> int:
        ((total,),) = await self._run(self._fetch(queries.refunded(transaction_id)))
        return int(total)  # a Decimal on most databases

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
        statement = queries.history(
            user_id,
            kinds=kinds,
            reference=reference,
            from_ms=from_ms,
            to_ms=to_ms,
            before_seq=before_seq,
            limit=limit,
        )
        return await self._all(TransactionRow, statement)

    async def traced(
        self, reference: str, *, before: tuple[int, int, int] | None = None, limit: int
    ) -> list[TransactionRow]:
        return await self._all(TransactionRow, queries.traced(reference, before=before, limit=limit))

    async def transaction_at(self, user_id: str, at_ms: int) -> TransactionRow | None:
        return await self._one(TransactionRow, queries.history(user_id, to_ms=at_ms + 1, limit=1))

    async def grants_of(
        self, user_id: str, *, after: tuple[int, str] | None = None, limit: int, expires_before_ms: int | None = None
    ) -> list[GrantRow]:
        statement = queries.grants_of(user_id, after=after, limit=limit, expires_before_ms=expires_before_ms)
        return await self._all(GrantRow, statement)

    async def reservations_of(
        self, user_id: str, *, state: str | None, after: tuple[int, str] | None = None, limit: int
    ) -> list[ReservationRow]:
        statement = queries.reservations_of(user_id, state=state, after=after, limit=limit)
        return await self._all(ReservationRow, statement)

    async def scan_accounts(self, partition: int, after_user_id: str, limit: int) -> list[AccountRow]:
        return await self._all(AccountRow, queries.scan_accounts(partition, after_user_id, limit))

    async def live_grants(self, user_ids: Sequence[str]) -> list[GrantRow]:
        users = self._dialect.among([table_of(GrantRow).c.user_id], user_ids)
        return await self._all(GrantRow, queries.live_grants(users)) if user_ids else []

    async def open_reservations(self, user_ids: Sequence[str]) -> list[ReservationRow]:
        users = self._dialect.among([table_of(ReservationRow).c.user_id], user_ids)
        return await self._all(ReservationRow, queries.open_reservations(users)) if user_ids else []

    async def operations_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[OperationRow]:
        return await self._all(OperationRow, queries.operations_since(partition, since_ms, after, limit))

    async def reservations_ended_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[ReservationRow]:
        statement = queries.reservations_ended_since(partition, since_ms, after, limit)
        return await self._all(ReservationRow, statement)

    async def put_events(self, events: Sequence[EventRow]) -> None:
        await self.insert_many(events)

    async def events(
        self, *, kind: str | None = None, user_id: str | None = None, before: tuple[int, str] | None = None, limit: int
    ) -> list[EventRow]:
        return await self._all(EventRow, queries.events(kind=kind, user_id=user_id, before=before, limit=limit))

    async def _same_grant(self, grant: GrantRow) -> GrantRow | None:
        columns = table_of(GrantRow).c
        same: ColumnElement[bool] = and_(columns.user_id == grant.user_id, columns.grant_id == grant.grant_id)
        if grant.operation_id is not None:
            names = [grant.operation_id, also(grant.operation_id, grant.fingerprint or "")]
            same = or_(same, and_(columns.partition == grant.partition, columns.operation_id.in_(names)))
        statement = select(table_of(GrantRow)).where(same).order_by(columns.created_at_ms)
        return own_grant(grant, await self._all(GrantRow, statement))

    async def _all(self, model: type[R], statement: Statement) -> list[R]:
        return rows_of(model, await self._run(self._fetch(statement)))

    async def _one(self, model: type[R], statement: Statement) -> R | None:
        found = await self._all(model, statement)
        return found[0] if found else None

    async def _rows(self, statement: Statement) -> Sequence[Sequence[Any]]:
        return await self._run(self._fetch(statement))

    async def _write(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, timeout_seconds: float | None = None
    ) -> T:
        """Does the work in a transaction of its own."""
        return await self._run(self._transact(work), timeout_seconds=timeout_seconds)

    async def _run(self, call: Coroutine[Any, Any, T], *, timeout_seconds: float | None = None) -> T:
        with _translated():
            return await self._calls.run(call, timeout_seconds=timeout_seconds)

    async def _prepare(self, settings: Mapping[str, str]) -> None:
        async with self._dialect.turn(), self._dialect.schema_transaction(self.engine) as connection:
            await prepare(connection, self._dialect, settings)

    async def _fetch(self, statement: Statement) -> Sequence[Sequence[Any]]:
        """Once more on a new connection when the pooled one has died with its server: a read can be repeated."""
        try:
            return await self._read(statement)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return await self._read(statement)

    async def _read(self, statement: Statement) -> Sequence[Sequence[Any]]:
        async with self._reader.connect() as connection:
            return (await connection.execute(statement)).all()

    async def _transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The same for a transaction, but only before its commit was sent: after that nobody knows."""
        committing: list[bool] = []
        try:
            return await self._transact_once(work, committing)
        except DBAPIError as error:
            if committing or not error.connection_invalidated:
                raise
        return await self._transact_once(work, committing)

    async def _transact_once(self, work: Callable[[AsyncConnection], Awaitable[T]], committing: list[bool]) -> T:
        async with self._dialect.turn(), self._writer.begin() as connection:
            done = await work(connection)
            committing.append(True)
            return done


@contextmanager
def _translated() -> Iterator[None]:
    """The exceptions of drivers become ours; a statement that no database can run is a bug and passes."""
    try:
        yield
    except (IntegrityError, DataError) as error:
        raise StoreRefused(str(error.orig)) from error
    except (OverflowError, UnicodeError) as error:
        raise StoreRefused(str(error)) from error
    except ProgrammingError:
        raise
    except DBAPIError as error:
        if why := _refusal(error):
            raise StoreDenied(f"METER_STORE_URL: {why}") from None
        raise away(error, str(error.orig)) from error
    except (PoolTimeout, TimeoutError, OSError) as error:
        raise away(error, str(error) or "the store did not answer in time") from error


def _refusal(error: DBAPIError) -> str:
    """Why waiting does not help, "" where it may."""
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if code in _DENIED:
        return (
            f"the store refuses it ({code}); check user, password, database and rights, and whether this user must "
            "come by TLS or with a certificate (ssl_ca, ssl_cert, ssl_key)"
        )
    meaning = tls_refusal(texts_of(error), _TLS)
    return f"{meaning} ({first_line(error.orig or error)})" if meaning else ""
