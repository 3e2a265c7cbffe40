"""The flusher: moves each partition's outbox into the store, exactly once (RELIABILITY.md section 7.2).

No consumer group: the store's watermark is the cursor, moved by compare-and-set in the transaction of the rows. Any
number of flushers may run; all but one are fenced at each step. Trimming comes after the commit, with a retention.
A chain that does not continue what the store has closes the partition.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from logging import getLogger

from meter import operation
from meter.config import Settings
from meter.engine import Engine
from meter.errors import PartitionRefused
from meter.fold import ChainBroken, Known, Unread, fold, touched
from meter.keys import PartitionKeys
from meter.ledger import LedgerFile
from meter.outbox import Entry, parse_entry
from meter.redis import RedisGateway
from meter.store.base import Flush, Store
from meter.store.rows import EventRow, WatermarkRow

KNOWN_MAX = 200_000
"""Rows kept in memory between two steps, so that a busy account is not read again for each."""
NOTE_INTERVAL_SECONDS = 0.25
TRIM_MAX = 100_000

_log = getLogger("meter.flusher")


class Flusher:
    """Flushes one partition, a step at a time."""

    def __init__(
        self,
        redis: RedisGateway,
        engine: Engine,
        store: Store,
        keys: PartitionKeys,
        settings: Settings,
        ledger: LedgerFile | None = None,
    ) -> None:
        self._redis = redis
        self._engine = engine
        self._store = store
        self._keys = keys
        self._settings = settings
        self._ledger = ledger
        self._watermark: WatermarkRow | None = None
        self._known: Known | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._noted_at = 0.0

    async def step(self) -> int:
        """Flushes what is there, up to the batch limit; answers how many transactions that were.

        Raises `HistoryLost` after closing the partition, `StoreUnavailable` and `RedisUnavailable`; a step that failed
        can be taken again.
        """
        known, self._known = self._known, None  # at hand again only after a step that went well
        if known is None:
            self._watermark = await self._store.watermark(self._keys.number)
            known = Known()
        first = self._watermark.seq + 1 if self._watermark else 1
        entries = await self._read(first)
        try:
            if not entries or entries[0].seq != first:
                await self._check_history(first, entries)
            if entries and not await self._apply(entries, known):
                return 0
        except ChainBroken as broken:
            await self._close(broken.detail)
            raise HistoryLost("partition", broken.detail) from None
        if len(known.accounts) + len(known.grants) + len(known.reservations) <= KNOWN_MAX:
            self._known = known
        await self._note()
        return len(entries)

    async def _read(self, first: int) -> list[Entry | Unread]:
        found = await self._redis.outbox_entries(self._keys.outbox, first, self._settings.flush_max)
        entries: list[Entry | Unread] = []
        for seq, text in found:
            try:
                entries.append(parse_entry(text))
            except (ValueError, TypeError) as error:
                entries.append(Unread(seq, text, f"{type(error).__name__}: {error}"[:500]))
        return entries

    async def _apply(self, entries: Sequence[Entry | Unread], known: Known) -> bool:
        """Commits the entries; False when another flusher moved the watermark first."""
        users, grants, reservations = touched(entries)
        store = self._store
        known.accounts.update(await store.accounts([key for key in users if key not in known.accounts]))
        known.grants.update(await store.grants([key for key in grants if key not in known.grants]))
        known.reservations.update(
            await store.reservations([key for key in reservations if key not in known.reservations])
        )
        flush = fold(self._keys.number, self._watermark, entries, known, _now_ms())
        flushed = await store.apply(flush)
        if not flushed.done:
            return False
        self._watermark = flush.reached
        for event in flush.events:
            _log.error("%s", event.message)
        if flushed.repeated_operations:
            await self._report_repeats(flush, flushed.repeated_operations)
        if self._ledger is not None:
            self._ledger.transactions(flush.transactions)
        return True

    async def _check_history(self, first: int, entries: Sequence[Entry | Unread]) -> None:
        """Nothing follows the watermark: all is flushed, or Redis lost what the store has. Raises ChainBroken."""
        state = await self._redis.partition_state(self._keys.meta)
        number, watermark = self._keys.number, self._watermark
        if state is None:
            if watermark is not None:
                raise ChainBroken(f"partition {number}: Redis has nothing, the store has seq {watermark.seq}")
            return
        if entries:
            raise ChainBroken(f"partition {number}: seq {first} is gone, the outbox starts at {entries[0].seq}")
        if watermark is None or state.state != "open":
            return
        if state.epoch != watermark.epoch or state.seq < watermark.seq:
            raise ChainBroken(
                f"partition {number}: Redis is at epoch {state.epoch} seq {state.seq}, "
                f"the store at epoch {watermark.epoch} seq {watermark.seq}"
            )
        if state.seq == watermark.seq and state.head != watermark.head:
            raise ChainBroken(f"partition {number}: seq {state.seq} is {state.head}, in the store {watermark.head}")

    async def _close(self, why: str) -> None:
        _log.error("%s; the partition is closed until meter rebuild", why)
        event = EventRow(
            event_id=f"lost-{self._keys.number}-{_now_ms()}", kind="system", message=why[:500], created_at_ms=_now_ms()
        )
        await self._store.put_events([event])
        with suppress(PartitionRefused):  # without a meta key it is refused as it is
            await self._engine.run_many(self._keys.number, (operation.state("lost"),), "repair")

    async def _report_repeats(self, flush: Flush, operation_ids: Sequence[str]) -> None:
        """Keys used again after Redis had forgotten them: applied twice, which a person must know."""
        events = [
            EventRow(
                event_id=f"repeat-{flush.partition}-{flush.reached.seq}-{n}",
                kind="error",
                message=f"operation {operation_id} was applied again after the idempotency window"[:500],
                created_at_ms=_now_ms(),
            )
            for n, operation_id in enumerate(operation_ids)
        ]
        for event in events:
            _log.error("%s", event.message)
        await self._store.put_events(events)

    async def _note(self) -> None:
        """Tells the scripts how far the store is, and trims what it has had for the retention."""
        now = time.monotonic()
        if self._watermark is None or now - self._noted_at < NOTE_INTERVAL_SECONDS:
            return
        self._noted_at = now
        self._marks.append((now, self._watermark.seq))
        trim_to = 0
        while self._marks and self._marks[0][0] <= now - self._settings.outbox_retention_seconds:
            trim_to = self._marks.popleft()[1]
        with suppress(PartitionRefused):
            note = operation.flushed(self._watermark.seq, trim_to, TRIM_MAX)
            await self._engine.run_many(self._keys.number, (note,))


class HistoryLost(PartitionRefused):
    """Redis' history is not the one that the store has; the partition was closed."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
