"""Reads the outbox transaction by transaction, though an entry of it has those of a whole call."""

from __future__ import annotations

from meter.engine.outbox import Entry, NewerEntry, Unread, read_outbox_entry
from meter.engine.redis import RedisGateway

FIRST_PAGE = 50
"""Entries in the first reply; how many transactions they have on average says how many entries are asked for next."""
PAGE = 500
"""Entries in one reply at the most: some megabytes where each has a hundred transactions after all."""


async def read_outbox(redis: RedisGateway, outbox_key: str, first_seq: int, limit: int) -> list[Entry | Unread]:
    """Transactions from `first_seq` on, in order, `limit` at the most. Raises `NewerEntry` where the first is of a
    newer version; behind one that can be read, it ends what is answered.
    """
    found: list[Entry | Unread] = []
    entries, count = 0, min(FIRST_PAGE, limit)
    while len(found) < limit:
        page = await redis.outbox_entries(outbox_key, first_seq, count)
        for last_seq, text in page:
            try:
                found += read_outbox_entry(last_seq, text, first_seq)
            except NewerEntry as newer:
                if not found:
                    raise NewerEntry(f"outbox entry {last_seq} is of a newer version: upgrade this process") from newer
                return found[:limit]
            if len(found) >= limit:
                return found[:limit]
            first_seq = last_seq + 1
        if len(page) < count:
            break
        entries += count
        count = min(PAGE, -(-(limit - len(found)) * entries // max(1, len(found))))
    return found
