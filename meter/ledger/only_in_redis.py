"""What only Redis has: the entries that it acknowledged and that the store does not know."""

from __future__ import annotations

from typing import NamedTuple

from meter.engine.outbox import Entry, Unread
from meter.engine.outbox_pages import read_outbox
from meter.engine.redis import RedisGateway
from meter.store.base import Store

TAIL_PAGE = 5_000
READABLE_PAGE = 10


class OnlyInRedis(NamedTuple):
    """`entries`, oldest first. Up to the seq `agreed`, Redis and the store have one and the same history."""

    entries: list[Entry | Unread]
    agreed: int


NOTHING_ELSE = OnlyInRedis([], 2**53)
"""Nothing of Redis' own, so nothing is in question."""


async def only_in_redis(redis: RedisGateway, store: Store, outbox_key: str) -> OnlyInRedis:
    """Reads the outbox of a partition on which nobody decides meanwhile.

    Each entry names the one before it, so the two histories agree up to one seq and nowhere after it. A rebuild that
    was cut off may have booked some of the entries behind that already, under other seqs: the first ones.
    """
    reader = _Reader(redis, store, outbox_key)
    first = await read_outbox(redis, outbox_key, 0, 1)
    if not first:
        return NOTHING_ELSE
    last_known = await reader.last(first[0].seq, same_seq=False)
    agreed = await reader.last(first[0].seq, same_seq=True)
    entries: list[Entry | Unread] = []
    after = last_known
    while page := await read_outbox(redis, outbox_key, after + 1, TAIL_PAGE):
        entries += page
        after = page[-1].seq
    return OnlyInRedis(entries, agreed)


class _Reader:
    def __init__(self, redis: RedisGateway, store: Store, outbox_key: str) -> None:
        self._redis = redis
        self._store = store
        self._key = outbox_key

    async def last(self, first: int, *, same_seq: bool) -> int:
        """The seq of the last entry that the store knows (under that very seq); `first - 1` when it knows none."""
        known, beyond = first - 1, first + 1
        while await self._redis.outbox_entries(self._key, beyond, 1):
            beyond += beyond - known
        while beyond - known > 1:
            middle = (known + beyond) // 2
            found = await self._readable(middle, beyond)
            row = None if found is None else await self._store.transaction(found.transaction_id)
            if found is not None and row is not None and (row.seq == found.seq or not same_seq):
                known = found.seq
            else:
                beyond = middle
        return known

    async def _readable(self, first: int, end: int) -> Entry | None:
        """The first entry from `first` up to before `end` that can be read."""
        while page := await read_outbox(self._redis, self._key, first, READABLE_PAGE):
            for entry in page:
                if entry.seq >= end:
                    return None
                if isinstance(entry, Entry):
                    return entry
            first = page[-1].seq + 1
        return None
