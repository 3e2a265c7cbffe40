"""What Redis has booked beyond what the store has: what a reader must add so that a caller reads its own writes."""

from __future__ import annotations

from collections.abc import Collection

from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.outbox import Entry, parse_entry
from meter.engine.redis import RedisGateway
from meter.errors import StoreUnavailable
from meter.store.base import Store

PAGE = 5_000
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
            entries = [_parsed(text) for _, text in page if any(needle in text for needle in needles)]
            found += [entry for entry in entries if entry]
            seq = page[-1][0] + 1
            if len(page) < PAGE:
                break
        return found

    @property
    def partitions(self) -> range:
        """The numbers of all partitions."""
        return range(len(self._engine.partitions))

    async def entry(self, partition: int, seq: int) -> Entry | None:
        """One entry, as long as the outbox keeps it."""
        found = await self._redis.outbox_entries(self._engine.partitions[partition].outbox, seq, 1)
        return _parsed(found[0][1]) if found and found[0][0] == seq else None

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


def _parsed(text: bytes) -> Entry | None:
    """An entry; None for one that nobody can read, which the flush will put into quarantine."""
    try:
        return parse_entry(text)
    except (ValueError, TypeError):
        return None
