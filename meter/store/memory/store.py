"""The Store in this process's memory, for tests: `memory://name` is the same one for every user of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from meter.store.base import Flush, Flushed, StoreRefused
from meter.store.catalog import as_it_was
from meter.store.key_rows import REVOKED, ApiKeyRow
from meter.store.memory.catalog import MemoryCatalog
from meter.store.memory.sums import had_by_user, sums_of
from meter.store.memory.usage import MemoryUsage
from meter.store.memory.users import MemoryUsers
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.records import R
from meter.store.repeats import also, new_operations, own_operations
from meter.store.row import Row
from meter.store.rows import (
    AccountRow,
    AlertRow,
    DeploymentRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    ReservationRow,
    TransactionRow,
    WatermarkRow,
)
from meter.store.settings import check_settings
from meter.store.shared import SharedCalls
from meter.store.sql.dialect import replaced_columns
from meter.store.sums import Sum, Wanted
from meter.store.top_up_rows import TopUpRow
from meter.store.usage_rows import UsageGapRow


@dataclass(slots=True)
class _Tables:
    """Rows by their keys."""

    watermarks: dict[int, WatermarkRow] = field(default_factory=dict)
    transactions: dict[str, TransactionRow] = field(default_factory=dict)
    by_user: dict[str, list[TransactionRow]] = field(default_factory=dict)
    seqs: set[tuple[int, int]] = field(default_factory=set)
    accounts: dict[str, AccountRow] = field(default_factory=dict)
    grants: dict[tuple[str, str], GrantRow] = field(default_factory=dict)
    reservations: dict[str, ReservationRow] = field(default_factory=dict)
    operations: dict[tuple[int, str], OperationRow] = field(default_factory=dict)
    catalog: dict[type[Row], dict[tuple[object, ...], Row]] = field(default_factory=dict)
    quarantine: dict[tuple[int, int], QuarantineRow] = field(default_factory=dict)


K = TypeVar("K")
S = TypeVar("S", AccountRow, GrantRow, ReservationRow)

_shared: dict[str, _Tables] = {}


def open_memory(url: str, *, timeout_seconds: float) -> MemoryStore:
    """The store of that name; one of its own for `memory://`. Nothing here can take time."""
    del timeout_seconds
    name = url.partition("://")[2]
    return MemoryStore(_shared.setdefault(name, _Tables()) if name else _Tables())


class MemoryStore(MemoryCatalog, MemoryUsage, MemoryUsers, SharedCalls):
    """No method waits for anything, so each is atomic."""

    def __init__(self, tables: _Tables) -> None:
        super().__init__(tables.catalog)
        tables.catalog[AccountRow] = cast("dict[tuple[object, ...], Row]", tables.accounts)
        tables.catalog[ReservationRow] = cast("dict[tuple[object, ...], Row]", tables.reservations)
        tables.catalog[GrantRow] = cast("dict[tuple[object, ...], Row]", tables.grants)
        tables.catalog[OperationRow] = cast("dict[tuple[object, ...], Row]", tables.operations)
        tables.catalog[TransactionRow] = cast("dict[tuple[object, ...], Row]", tables.transactions)
        tables.catalog[QuarantineRow] = cast("dict[tuple[object, ...], Row]", tables.quarantine)
        self._tables = tables

    async def open(self, settings: Mapping[str, str]) -> None:
        kept = self._rows.setdefault(DeploymentRow, {})
        check_settings({row.name: row.value for row in kept.values() if isinstance(row, DeploymentRow)}, settings)
        for name, value in settings.items():
            kept.setdefault((name,), DeploymentRow(name=name, value=value))

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def watermark(self, partition: int) -> WatermarkRow | None:
        return self._tables.watermarks.get(partition)

    async def accounts(self, user_ids: Sequence[str]) -> dict[str, AccountRow]:
        return {key: self._tables.accounts[key] for key in user_ids if key in self._tables.accounts}

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        return {key: self._tables.grants[key] for key in keys if key in self._tables.grants}

    async def reservations(self, reservation_ids: Sequence[str]) -> dict[str, ReservationRow]:
        return {key: self._tables.reservations[key] for key in reservation_ids if key in self._tables.reservations}

    async def apply(self, flush: Flush) -> Flushed:
        tables = self._tables
        if not self._is_at(flush.partition, flush.expected):
            return Flushed(done=False)
        self._check_new(flush)
        stored = {key: row.transaction_id for (at, key), row in tables.operations.items() if at == flush.partition}
        operations, repeated = new_operations(flush.operations, stored)
        grants, doubled = own_operations(flush.grants, self._operation_owners(flush.partition))

        for transaction in flush.transactions:
            tables.transactions[transaction.transaction_id] = transaction
            tables.by_user.setdefault(transaction.user_id, []).append(transaction)
            tables.seqs.add((transaction.partition, transaction.seq))
        for operation in operations:
            tables.operations[operation.partition, operation.operation_id] = operation
        for account in flush.accounts:
            _replace(tables.accounts, account.user_id, account)
        for grant in grants:
            _replace(tables.grants, (grant.user_id, grant.grant_id), grant)
        for reservation in flush.reservations:
            _replace(tables.reservations, reservation.reservation_id, reservation)
        for alert in flush.alerts:
            tables.catalog.setdefault(AlertRow, {}).setdefault((alert.alert_id,), alert)
        for top_up in flush.top_ups:
            tables.catalog.setdefault(TopUpRow, {}).setdefault((top_up.top_up_id,), top_up)
        for event in flush.events:
            self._rows.setdefault(EventRow, {}).setdefault((event.event_id,), event)
        for entry in flush.quarantine:
            tables.quarantine[entry.partition, entry.seq] = entry
        self._revoke(flush.revoked_keys)
        for was, path in flush.renamed:
            self._rename_usage(flush.partition, was, path)
        self._add(flush.usage)
        for gap in flush.gaps:
            self._rows_of(UsageGapRow).setdefault((gap.partition, gap.until_seq), gap)
        tables.watermarks[flush.partition] = flush.reached
        return Flushed(done=True, repeated_operations=tuple(dict.fromkeys([*repeated, *doubled])))

    def _revoke(self, key_ids: Sequence[str]) -> None:
        keys = self._rows_of(ApiKeyRow)
        for key_id in key_ids:
            row = keys.get((key_id,))
            if isinstance(row, ApiKeyRow) and row.state != REVOKED:
                keys[key_id,] = row.model_copy(update={"state": REVOKED, "version": row.version + 1})

    async def rewrite(self, old: Sequence[R], new: Sequence[R]) -> bool:
        rows, names = self._rows_of(type(old[0])), as_it_was(type(old[0]))
        for row in old:
            stored = rows.get(_key_of(row))
            if stored is None or any(getattr(stored, name) != getattr(row, name) for name in names):
                return False
        gone = {_key_of(row) for row in old}
        if any(_key_of(row) in rows and _key_of(row) not in gone for row in new):
            raise StoreRefused(f"{type(old[0]).TABLE}: another row has that key")
        for row in old:
            rows.pop(_key_of(row))
        for row in new:
            rows[_key_of(row)] = row
        if isinstance(old[0], TransactionRow):
            self._by_user_again()
        return True

    def _rows_of(self, model: type[Row]) -> dict[Any, Row]:
        """Every row of a model by its key, a tuple where it has several members."""
        tables: dict[type[Row], Any] = {
            TransactionRow: self._tables.transactions,
            AccountRow: self._tables.accounts,
            ReservationRow: self._tables.reservations,
        }
        found: dict[Any, Row] = tables[model] if model in tables else self._rows.setdefault(model, {})
        return found

    @property
    def _marks(self) -> dict[int, WatermarkRow]:
        return self._tables.watermarks

    def _by_user_again(self) -> None:
        self._tables.by_user.clear()
        for row in sorted(self._tables.transactions.values(), key=lambda row: row.seq):
            self._tables.by_user.setdefault(row.user_id, []).append(row)

    async def drop_pending_grant(self, user_id: str, grant_id: str) -> None:
        found = self._tables.grants.get((user_id, grant_id))
        if found is not None and found.pending:
            del self._tables.grants[user_id, grant_id]

    async def pending_grants(
        self, created_before_ms: int, limit: int, after: tuple[int, str, str] | None = None
    ) -> list[GrantRow]:
        rows = (row for row in self._tables.grants.values() if row.pending and row.created_at_ms < created_before_ms)
        places = {(row.created_at_ms, row.user_id, row.grant_id): row for row in rows}
        return [places[place] for place in sorted(places) if after is None or place > after][:limit]

    async def transaction(self, transaction_id: str) -> TransactionRow | None:
        return self._tables.transactions.get(transaction_id)

    async def sums(self, wanted: Wanted, after: str, limit: int) -> list[Sum]:
        over = [row for row in self._rows.get(PastPlanRow, {}).values() if isinstance(row, PastPlanRow)]
        present = [row for row in self._rows.get(SubscriptionRow, {}).values() if isinstance(row, SubscriptionRow)]
        return sums_of(self._tables.transactions.values(), had_by_user(over, present), wanted, after, limit)

    async def refunded(self, transaction_id: str) -> int:
        return sum(row.amount for row in self._tables.transactions.values() if row.refund_of == transaction_id)

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
        found = (
            row
            for row in self._tables.by_user.get(user_id, ())
            if (not kinds or row.kind in kinds)
            and (reference is None or reference in (row.reference, row.operation_id))
            and (from_ms is None or row.created_at_ms >= from_ms)
            and (to_ms is None or row.created_at_ms < to_ms)
            and (before_seq is None or row.seq < before_seq)
        )
        return sorted(found, key=lambda row: -row.seq)[:limit]

    async def traced(
        self, reference: str, *, before: tuple[int, int, int] | None = None, limit: int
    ) -> list[TransactionRow]:
        found = [row for row in self._tables.transactions.values() if row.reference == reference]
        places = {(row.created_at_ms, row.seq, row.partition): row for row in found}
        wanted = sorted((place for place in places if before is None or place < before), reverse=True)
        return [places[place] for place in wanted[:limit]]

    async def transaction_at(self, user_id: str, at_ms: int) -> TransactionRow | None:
        found = await self.history(user_id, to_ms=at_ms + 1, limit=1)
        return found[0] if found else None

    async def grants_of(
        self, user_id: str, *, after: tuple[int, str] | None = None, limit: int, expires_before_ms: int | None = None
    ) -> list[GrantRow]:
        mine: Iterable[GrantRow] = (row for row in self._tables.grants.values() if row.user_id == user_id)
        if expires_before_ms is None:
            return _page(mine, lambda row: (row.created_at_ms, row.grant_id), after, limit)
        ending = (row for row in mine if _is_live(row) and row.expires_at_ms < expires_before_ms)
        return _page(ending, lambda row: (row.expires_at_ms, row.grant_id), after, limit)

    async def reservations_of(
        self, user_id: str, *, state: str | None, after: tuple[int, str] | None = None, limit: int
    ) -> list[ReservationRow]:
        found = (
            row
            for row in self._tables.reservations.values()
            if row.user_id == user_id and (state is None or row.state == state)
        )
        return _page(found, lambda row: (row.created_at_ms, row.reservation_id), after, limit)

    async def scan_accounts(self, partition: int, after_user_id: str, limit: int) -> list[AccountRow]:
        rows = self._tables.accounts.values()
        found = (row for row in rows if row.partition == partition and row.user_id > after_user_id)
        return sorted(found, key=lambda row: row.user_id)[:limit]

    async def live_grants(self, user_ids: Sequence[str]) -> list[GrantRow]:
        users = set(user_ids)
        return [row for row in self._tables.grants.values() if row.user_id in users and _is_live(row)]

    async def open_reservations(self, user_ids: Sequence[str]) -> list[ReservationRow]:
        users = set(user_ids)
        return [row for row in self._tables.reservations.values() if row.user_id in users and row.state == "open"]

    async def operations_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[OperationRow]:
        rows = self._tables.operations.values()
        found = (row for row in rows if row.partition == partition and row.created_at_ms >= since_ms)
        return _page(found, lambda row: (row.created_at_ms, row.operation_id), after, limit)

    async def reservations_ended_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[ReservationRow]:
        rows = self._tables.reservations.values()
        found = (row for row in rows if row.partition == partition and (row.ended_at_ms or -1) >= since_ms)
        return _page(found, lambda row: (row.ended_at_ms or 0, row.reservation_id), after, limit)

    async def put_events(self, events: Sequence[EventRow]) -> None:
        for event in events:
            self._rows.setdefault(EventRow, {}).setdefault((event.event_id,), event)

    async def events(
        self, *, kind: str | None = None, user_id: str | None = None, before: tuple[int, str] | None = None, limit: int
    ) -> list[EventRow]:
        found = (
            row
            for row in self._rows.get(EventRow, {}).values()
            if isinstance(row, EventRow)
            and (kind is None or row.kind == kind)
            and (user_id is None or row.user_id == user_id)
            and (before is None or (row.created_at_ms, row.event_id) < before)
        )
        return sorted(found, key=lambda row: (row.created_at_ms, row.event_id), reverse=True)[:limit]

    async def _same_grant(self, grant: GrantRow) -> GrantRow | None:
        grants, key = self._tables.grants, (grant.user_id, grant.grant_id)
        if grant.operation_id is not None and key not in grants:
            owners = self._operation_owners(grant.partition)
            other = also(grant.operation_id, grant.fingerprint or "")
            key = owners.get(other) or owners.get(grant.operation_id, key)
        return grants.get(key)

    def _is_at(self, partition: int, expected: WatermarkRow | None) -> bool:
        return _place(self._tables.watermarks.get(partition)) == _place(expected)

    def _check_new(self, flush: Flush) -> None:
        ids = [row.transaction_id for row in flush.transactions]
        seqs = [(row.partition, row.seq) for row in flush.transactions]
        poison = [(row.partition, row.seq) for row in flush.quarantine]
        tables = self._tables
        for name, new, known in (
            ("transaction", ids, tables.transactions.keys()),
            ("seq", seqs, tables.seqs),
            ("quarantine", poison, tables.quarantine.keys()),
        ):
            if len(set(new)) < len(new) or not known.isdisjoint(new):
                raise StoreRefused(f"a {name} of the flush is in the store already")

    def _operation_owners(self, partition: int) -> dict[str, tuple[str, str]]:
        rows = self._tables.grants.items()
        return {row.operation_id: key for key, row in rows if row.partition == partition and row.operation_id}


def _key_of(row: Row) -> object:
    """As the tables above have it: those of the catalog are by tuples."""
    key = tuple(getattr(row, name) for name in row.KEY)
    return key[0] if isinstance(row, TransactionRow | AccountRow | ReservationRow) else key


def _place(watermark: WatermarkRow | None) -> tuple[object, ...] | None:
    if watermark is None:
        return None
    return watermark.epoch, watermark.seq, watermark.head, watermark.bucket_minutes


def _replace(rows: dict[K, S], key: K, row: S) -> None:
    before = rows.get(key)
    if before is None:
        rows[key] = row
    elif before.last_seq <= row.last_seq:
        rows[key] = before.model_copy(update={name: getattr(row, name) for name in replaced_columns(type(row))})


def _is_live(row: GrantRow) -> bool:
    return not row.pending and (row.remaining > 0 or row.reserved > 0 or row.state == "scheduled")


def _page(
    rows: Iterable[R], order: Callable[[R], tuple[int, str]], after: tuple[int, str] | None, limit: int
) -> list[R]:
    return sorted((row for row in rows if after is None or order(row) > after), key=order)[:limit]
