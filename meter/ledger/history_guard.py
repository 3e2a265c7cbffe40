"""Whether Redis still has the history that the store has; a partition where it has not is closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.errors import PartitionRefused
from meter.keys import PartitionKeys
from meter.ledger.chain import UNREAD_HEAD, ChainBroken
from meter.ledger.identity import check_same_ledger
from meter.store.base import Store
from meter.store.rows import EventRow, WatermarkRow

REBUILD_PATIENCE_MS = 60_000
"""A rebuild that has given no sign for so long is dead."""


class HistoryLost(PartitionRefused):
    """Redis' history is not the one that the store has; the partition was closed."""


class HistoryGuard:
    """Compares one partition with the store's watermark. `tell` passes alarms on."""

    def __init__(
        self,
        redis: RedisGateway,
        engine: Engine,
        store: Store,
        keys: PartitionKeys,
        tell: Callable[[Sequence[EventRow]], None],
    ) -> None:
        self._redis = redis
        self._engine = engine
        self._store = store
        self._keys = keys
        self._tell = tell
        self._told = ""

    async def check(self, watermark: WatermarkRow | None, starts_at: int | None = None) -> int:
        """Nothing follows the watermark: all is flushed, or Redis lost what the store has. `starts_at`: the first seq
        of what is there instead. Answers how far Redis was told that the store is. Raises `ChainBroken`, and
        `HistoryLost` for a partition that is closed already.
        """
        state = await self._redis.partition_state(self._keys.meta)
        number = self._keys.number
        if state is None:
            left = await self._redis.existing(self._keys.all)
            if left or watermark is not None:
                what, seq = f"no {self._keys.meta}" if left else "nothing", watermark.seq if watermark else 0
                raise ChainBroken(f"partition {number}: Redis has {what}, the store has seq {seq}")
            return 0
        if state.state == "rebuilding" and watermark and _now_ms() - watermark.updated_at_ms < REBUILD_PATIENCE_MS:
            return state.flushed
        if state.state != "open":
            await self._alarm(state.why or f"it is {state.state}")
            raise HistoryLost("partition", f"partition {number} is {state.state}: {state.why}")
        if await self._redis.existing(self._keys.all) < len(self._keys.all):
            raise ChainBroken(f"partition {number}: keys of it are gone")
        if starts_at is not None:
            first = watermark.seq + 1 if watermark else 1
            raise ChainBroken(f"partition {number}: seq {first} is gone, the outbox starts at {starts_at}")
        if watermark is None:
            return state.flushed
        if state.epoch != watermark.epoch or state.seq < watermark.seq:
            raise ChainBroken(
                f"partition {number}: Redis is at epoch {state.epoch} seq {state.seq}, "
                f"the store at epoch {watermark.epoch} seq {watermark.seq}"
            )
        if state.seq == watermark.seq and watermark.head not in (state.head, UNREAD_HEAD):
            raise ChainBroken(f"partition {number}: seq {state.seq} is {state.head}, in the store {watermark.head}")
        return state.flushed

    async def close(self, watermark: WatermarkRow | None, why: str) -> bool:
        """Closes the partition, unless the store or a rebuild has gone on since `watermark` was read; answers whether
        it is lost. Raises `ForeignLedger` when the store is not the partition's.
        """
        number = self._keys.number
        state = await self._redis.partition_state(self._keys.meta)
        await check_same_ledger(self._store, number, state)
        if _place(await self._store.watermark(number)) != _place(watermark):
            return False
        if state is not None and state.state == "rebuilding":
            return False
        why = why.removeprefix(f"partition {number}: ")
        if state is not None:
            with suppress(PartitionRefused):  # a partition that vanished meanwhile is refused as it is
                await self._engine.run_many(number, (upkeep.state("lost", state.epoch, why),), "repair")
        await self._alarm(why)
        return True

    async def _alarm(self, why: str) -> None:
        """Tells once why the partition is closed, whoever found it."""
        if why == self._told:
            return
        self._told, number = why, self._keys.number
        event = EventRow(
            event_id=f"lost-{number}-{_now_ms()}",
            kind="system",
            message=f"partition {number}: {why}; the partition is closed until meter rebuild"[:500],
            created_at_ms=_now_ms(),
        )
        self._tell((event,))
        await self._store.put_events([event])


def _place(watermark: WatermarkRow | None) -> tuple[int, int, str] | None:
    return None if watermark is None else (watermark.epoch, watermark.seq, watermark.head)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
