"""What processes offer back of a partition that Redis has lost: a hash beside its keys, which no script reads.

A field is a page of entries, a line each, and its name says whose it is. The rebuild takes the fields away when the
store has what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meter.engine.outbox import Entry, entry_text, read_entry
from meter.engine.redis import RedisGateway
from meter.keys import PartitionKeys

PAGE = 1_000
"""Entries in a field: some 300 kB."""


class Offers:
    """Those of one partition. Everything raises `RedisUnavailable`."""

    def __init__(self, redis: RedisGateway, keys: PartitionKeys) -> None:
        self._redis = redis
        self._key = keys.offers

    async def put(self, name: str, entries: Sequence[Entry]) -> list[str]:
        """Offers entries under a name, and answers their fields."""
        fields = []
        for number, first in enumerate(range(0, len(entries), PAGE)):
            text = b"\n".join(entry_text(entry) for entry in entries[first : first + PAGE])
            fields.append(f"{name} {number}")
            await self._redis.put_field(self._key, fields[-1], text.decode())
        return fields

    async def all(self) -> Mapping[str, list[Entry]]:
        """What everybody offers, by field."""
        found = await self._redis.fields_of(self._key)
        return {field: [read_entry(line) for line in text.split(b"\n")] for field, text in sorted(found.items())}

    async def take_away(self, fields: Sequence[str]) -> int:
        """Removes fields; answers how many were still there."""
        return await self._redis.drop_fields(self._key, fields) if fields else 0
