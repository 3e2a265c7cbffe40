"""A user's history: what the store has and what Redis has beyond it, so that a caller reads its own writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meter.ledger.entry_rows import transaction_row
from meter.ledger.tail import Tail
from meter.store.base import Store
from meter.store.rows import TransactionRow


@dataclass(frozen=True, slots=True)
class Filter:
    """Which transactions: kinds (none: all), `from_ms` inclusive, `to_ms` and `before_seq` exclusive."""

    kinds: Sequence[str] = ()
    from_ms: int | None = None
    to_ms: int | None = None
    before_seq: int | None = None

    def accepts(self, row: TransactionRow) -> bool:
        """Whether a transaction is wanted."""
        return (
            (not self.kinds or row.kind in self.kinds)
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
            return transaction_row(partition, entry)
        return None if self._store is None else await self._store.transaction(transaction_id)

    async def _unflushed(self, user_id: str) -> list[TransactionRow]:
        """A user's transactions that the store does not have, oldest first."""
        partition, entries = await self._tail.entries(user_id)
        return [transaction_row(partition, entry) for entry in entries]
