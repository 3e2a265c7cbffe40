"""What Redis has booked beyond what the store has: what a reader must add so that a caller reads its own writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.outbox import Entry, NewerEntry, Unread, read_outbox_entry
from meter.engine.redis import RedisGateway
from meter.errors import StoreUnavailable
from meter.store.base import Store

PAGE = 500
ENTRIES_MAX = 100_000
"""Entries that a reader looks through at the most; only a store that is far behind, or none, leaves more."""


class Tail:
    """Reads the end of the outbox. Without a store, the outbox is all there is."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store | None) -> None:
        self._engine = engine
        self._redis = redis
        self._store = store

    async def entries(self, user_id: str) -> tuple[int, list[Entry]]:
        """A user's partition and entries that the store does not have, oldest first. What is due is settled before, so
        that it is among them. Raises `StoreUnavailable` when there are too many to look through: a part is none.
        """
        partition = self._engine.partition_of(user_id)
        await self._engine.run(user_id, upkeep.expire(user_id))
        return partition, [entry for entry in await self.naming(partition, [user_id]) if entry.user_id == user_id]

    async def naming(self, partition: int, names: Collection[str]) -> list[Entry]:
        """The entries of a partition that the store does not have and that have one of these texts as a JSON string,
        oldest first. Raises `StoreUnavailable` as `entries` does.
        """
        found: list[Entry] = []
        needles, seq = [f'"{name}"'.encode() for name in names], await self._first(partition)
        while page := await self._redis.outbox_entries(self._engine.partitions[partition].outbox, seq, PAGE):
            for last_seq, text in page:
                found += _readable(last_seq, text, seq, needles)
                seq = last_seq + 1
            if len(page) < PAGE:
                break
        return found

    @property
    def partitions(self) -> range:
        """The numbers of all partitions."""
        return range(len(self._engine.partitions))

    async def entry(self, partition: int, seq: int) -> Entry | None:
        """One entry, as long as the outbox keeps it. There may have been more partitions before."""
        if partition not in self.partitions:
            return None
        found = await self._redis.outbox_entries(self._engine.partitions[partition].outbox, seq, 1)
        entries = _readable(*found[0], seq) if found else []
        return entries[0] if entries and entries[0].seq == seq else None

    async def _first(self, partition: int) -> int:
        """The seq of the first entry that the store does not have."""
        watermark = None if self._store is None else await self._store.watermark(partition)
        seq = watermark.seq + 1 if watermark else 1
        state = await self._redis.partition_state(self._engine.partitions[partition].meta)
        if state is None or state.seq - seq < ENTRIES_MAX:
            return seq
        if self._store is not None:
            raise StoreUnavailable(f"partition {partition}: the store is {state.seq - seq + 1} transactions behind")
        return state.seq - ENTRIES_MAX + 1


def _readable(last_seq: int, text: bytes, first_seq: int, naming: Sequence[bytes] = ()) -> list[Entry]:
    """Those that can be read; what nobody can read the flush will put into quarantine."""
    try:
        found = read_outbox_entry(last_seq, text, first_seq, naming)
    except NewerEntry:
        return []
    return [entry for entry in found if not isinstance(entry, Unread)]
