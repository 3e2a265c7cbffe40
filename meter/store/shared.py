"""What a store does alike on every database, made of the calls that differ."""

from __future__ import annotations

from meter.store.base import Flush, Flushed, StoreRefused
from meter.store.row import Row
from meter.store.rows import GrantRow, WatermarkRow

RACES_MAX = 3
"""How often what another process did in between is looked at again."""


class SharedCalls:
    """A part of every store, which gives the calls below."""

    @property
    def has_transactions(self) -> bool:
        return True

    async def apply(self, flush: Flush) -> Flushed:
        raise NotImplementedError

    async def insert(self, row: Row) -> bool:
        raise NotImplementedError

    async def _same_grant(self, grant: GrantRow) -> GrantRow | None:
        """The grant that has the id or the operation_id of that one."""
        raise NotImplementedError

    async def move_epoch(self, expected: WatermarkRow | None, reached: WatermarkRow) -> bool:
        return (await self.apply(Flush(reached.partition, expected, reached))).done

    async def add_pending_grant(self, grant: GrantRow) -> GrantRow | None:
        for _ in range(RACES_MAX):
            if found := await self._same_grant(grant):
                return found
            if await self.insert(grant):
                return None
        raise StoreRefused(f"grant {grant.grant_id} of {grant.user_id} can neither be added nor found")
