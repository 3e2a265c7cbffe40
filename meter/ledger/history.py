"""A user's history: what the store has and what Redis has beyond it, so that a caller reads its own writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from meter.engine.outbox import Entry, seq_of
from meter.engine.parts import first_of, following
from meter.engine.refunds import NO_RESTRICTIONS, Charged
from meter.ledger.entry_rows import draws_of, own_key, transaction_row
from meter.ledger.tail import Tail
from meter.store.base import Store
from meter.store.rows import OperationRow, TransactionRow

Place = tuple[int, int, int]
"""created_at_ms, seq and partition."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which transactions: kinds (none: all), `from_ms` inclusive, `to_ms` and `before_seq` exclusive; `reference` is
    what the caller calls the operation, or its key.
    """

    kinds: Sequence[str] = ()
    reference: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    before_seq: int | None = None

    def accepts(self, row: TransactionRow) -> bool:
        """Whether a transaction is wanted."""
        return (
            (not self.kinds or row.kind in self.kinds)
            and (self.reference is None or self.reference in (row.reference, row.operation_id))
            and (self.from_ms is None or row.created_at_ms >= self.from_ms)
            and (self.to_ms is None or row.created_at_ms < self.to_ms)
            and (self.before_seq is None or row.seq < self.before_seq)
        )


class History:
    """Reads transactions. Without a store, Redis' outbox is all there is."""

    def __init__(self, tail: Tail, store: Store | None) -> None:
        self._tail = tail
        self._store = store

    async def page(self, user_id: str, wanted: Filter, limit: int) -> list[TransactionRow]:
        """Transactions, newest first. What is due is settled before, so that it is among them."""
        tail = [row for row in await self._unflushed(user_id) if wanted.accepts(row)]
        found = {row.seq: row for row in tail[-limit:]}
        if self._store is not None and len(found) < limit:
            rows = await self._store.history(
                user_id,
                kinds=wanted.kinds,
                reference=wanted.reference,
                from_ms=wanted.from_ms,
                to_ms=wanted.to_ms,
                before_seq=wanted.before_seq,
                limit=limit,
            )
            found.update((row.seq, row) for row in rows)
        return [found[seq] for seq in sorted(found, reverse=True)[:limit]]

    async def at(self, user_id: str, at_ms: int) -> TransactionRow | None:
        """The last transaction at or before a time; its balances are those of that time."""
        tail = [row for row in await self._unflushed(user_id) if row.created_at_ms <= at_ms]
        if tail or self._store is None:
            return tail[-1] if tail else None
        return await self._store.transaction_at(user_id, at_ms)

    async def transaction(self, transaction_id: str, partition: int, seq: int) -> TransactionRow | None:
        """One transaction, wherever it is now."""
        entry = await self._tail.entry(partition, seq)
        if entry is not None and entry.transaction_id == transaction_id:
            return (await self._rows(partition, [entry]))[0]
        return None if self._store is None else await self._store.transaction(transaction_id)

    async def all_of(self, row: TransactionRow) -> list[TransactionRow]:
        """The rows of all who paid what a row is one of, that of the path first."""
        name = first_of(row.transaction_id, row.detail)
        first = row if name == row.transaction_id else await self._named(name)
        if first is None:
            return [row]
        others = [await self._named(other) for other in following(first.transaction_id, first.detail)]
        return [first, *(other for other in others if other is not None)]

    async def _named(self, transaction_id: str) -> TransactionRow | None:
        place = seq_of(transaction_id)
        return None if place is None else await self.transaction(transaction_id, *place)

    async def traced(self, reference: str, before: Place | None, limit: int) -> list[TransactionRow]:
        """The transactions of a reference or made under it as a key, whoever's they are, newest first."""
        rows: list[TransactionRow] = []
        if self._store is not None:
            rows = await self._store.traced(reference, limit=limit)
            rows += await self._under_key(self._store, reference)
            rows += [] if before is None else await self._store.traced(reference, before=before, limit=limit)
        for partition in self._tail.partitions:
            rows += await self._unflushed_of(partition, reference, rows)
        found = {_place(row): row for row in rows if before is None or _place(row) < before}
        return [found[place] for place in sorted(found, reverse=True)[:limit]]

    async def unflushed(self, partition: int) -> list[TransactionRow]:
        """The transactions of a partition that the store does not have, oldest first."""
        return await self._rows(partition, await self._tail.naming(partition, ()))

    async def naming(self, names: Collection[str]) -> list[TransactionRow]:
        """The transactions that the store does not have and that say one of these ids, of all partitions."""
        found = [await self._rows(number, await self._tail.naming(number, names)) for number in self._tail.partitions]
        return [row for rows in found for row in rows]

    @property
    def partitions(self) -> range:
        """The numbers of all partitions."""
        return self._tail.partitions

    async def _under_key(self, store: Store, key: str) -> list[TransactionRow]:
        made = [await store.get(OperationRow, partition, key) for partition in self._tail.partitions]
        found = [await store.transaction(operation.transaction_id) for operation in made if operation is not None]
        return [row for row in found if row is not None]

    async def _unflushed_of(self, partition: int, reference: str, stored: list[TransactionRow]) -> list[TransactionRow]:
        """What the store does not have of a reference. What settles a reservation does not repeat what that is called,
        so it is found by the reservation's id.
        """
        named = await self._tail.naming(partition, [reference])
        ids = {str(entry.detail["reservation_id"]) for entry in named if entry.kind == "reserve"}
        ids |= {row.reservation_id for row in stored if row.kind == "reserve" and row.reservation_id is not None}
        rows = await self._rows(partition, await self._tail.naming(partition, [reference, *ids]))
        return [row for row in rows if reference in (row.reference, row.operation_id)]

    async def _unflushed(self, user_id: str) -> list[TransactionRow]:
        """A user's transactions that the store does not have, oldest first."""
        partition, entries = await self._tail.entries(user_id)
        return await self._rows(partition, entries)

    async def _rows(self, partition: int, entries: Sequence[Entry]) -> list[TransactionRow]:
        """The rows of entries, which say what their reservations are called."""
        ids = [entry.text("reservation_id") for entry in entries]
        called = _called(entries)
        if self._store is not None and (missing := {id_ for id_ in ids if id_ is not None} - called.keys()):
            called |= {id_: row.reference for id_, row in (await self._store.reservations(list(missing))).items()}
        if missing := {id_ for id_ in ids if id_ is not None} - called.keys():
            called |= _called(await self._tail.naming(partition, missing))
        return [
            transaction_row(partition, entry, called.get(id_ or "")) for id_, entry in zip(ids, entries, strict=True)
        ]


async def charged_rows(rows: Iterable[TransactionRow], store: Store | None) -> list[Charged]:
    """The rows of a charge as a refund takes them."""
    found = []
    for row in rows:
        only = NO_RESTRICTIONS if store is None else await _restricted(row, store)
        refunded = 0 if store is None else await store.refunded(row.transaction_id)
        told = (row.user_id, row.transaction_id, row.amount, draws_of(row), refunded, row.created_at_ms, row.seq, only)
        found.append(Charged(*told))
    return found


async def _restricted(row: TransactionRow, store: Store) -> Mapping[str, str]:
    """The tags of those grants that a charge was drawn from and that are restricted."""
    grants = await store.grants([(row.user_id, grant_id) for grant_id, _ in draws_of(row)])
    return {grant.grant_id: grant.only for grant in grants.values() if grant.only}


def _called(entries: Iterable[Entry]) -> dict[str, str | None]:
    """What reservations are called, by the entries that made them."""
    made = [entry for entry in entries if entry.kind == "reserve"]
    return {
        str(entry.detail["reservation_id"]): entry.text("reference") or own_key(entry.operation_id) for entry in made
    }


def _place(row: TransactionRow) -> Place:
    return row.created_at_ms, row.seq, row.partition
