"""The flusher: moves each partition's outbox into the store, exactly once (RELIABILITY.md section 7.2).

No consumer group: the store's watermark is the cursor, moved by compare-and-set in the transaction of the rows. Any
number of flushers may run; all but one are fenced at each step. Trimming comes after the commit, with a retention.
While the store writes a full step the next one is folded; it counts only if that write did.
A chain that does not continue what the store has closes the partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from meter.config import Settings
from meter.engine.engine import Engine
from meter.engine.outbox import Entry, NewerEntry, Unread, entry_text
from meter.engine.outbox_pages import read_outbox
from meter.engine.redis import RedisGateway
from meter.errors import MeterError, PartitionRefused, StoreUnavailable
from meter.keys import PartitionKeys
from meter.ledger.backlog import NOTE_INTERVAL_SECONDS, Backlog
from meter.ledger.chain import ChainBroken, Known, Unbookable, UnknownKind, last_unread
from meter.ledger.entry_rows import error_alert
from meter.ledger.figures_known import learn_for_figures
from meter.ledger.fold import Fold, unknown
from meter.ledger.history_guard import HistoryGuard, HistoryLost
from meter.ledger.identity import check_same_ledger
from meter.ledger.log_file import LedgerFile
from meter.log import logger
from meter.store.base import Flush, Flushed, Store, StoreRefused
from meter.store.records import Records
from meter.store.rows import EventRow, WatermarkRow

KNOWN_MAX = 30_000
"""Rows kept in memory between two steps, so that a busy account is not read again for each: of 0.9 to 1.9 kB, some
40 MB of a partition. Then those of the last step stay, and the others are read again when they are touched.
"""
LOOK_AGAIN_SECONDS = 5.0
"""How long nothing may come before it is looked whether Redis still has what the store has; whoever spends finds it."""
FOLDED_AT_ONCE = 25
"""Entries between two turns for the store's answers: a millisecond of work at most."""

_log = logger("meter.flusher")

Read = Entry | Unread
"""What the outbox has at a seq."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """The step after the one that is being written."""

    entries: Sequence[Read]
    flush: Flush


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
        alerted: Callable[[], None] = lambda: None,
    ) -> None:
        """`alerted` is told that the store has new alerts."""
        self._redis = redis
        self._store = store
        self._keys = keys
        self._settings = settings
        self._ledger = ledger
        self._alerted = alerted
        self._watermark: WatermarkRow | None = None
        self._known: Known | None = None
        self._ahead: Ahead | None = None
        self._guard = HistoryGuard(redis, engine, store, keys, self._tell)
        self._backlog = Backlog(redis, engine, keys, settings)
        self.flushed_at: float | None = None
        """When the store last took something from here, by `time.monotonic`."""

    @property
    def watermark(self) -> WatermarkRow | None:
        """How far this flusher has seen the store: when it finds a loss, where that was found."""
        return self._watermark

    async def step(self) -> int:
        """Flushes what is there, up to the batch limit; answers how many transactions that were.

        Raises `HistoryLost` after closing the partition, `StoreUnavailable`, `RedisUnavailable` and `ForeignLedger`; a
        step that failed can be taken again.
        """
        known, self._known = self._known, None  # at hand again only after a step that went well
        ahead, self._ahead = self._ahead, None
        if known is None:
            await self._take_up()
            known, ahead = Known(), None
        first = self._watermark.seq + 1 if self._watermark else 1
        try:
            entries = ahead.entries if ahead else await self._read(first)
            if not entries or entries[0].seq != first:
                noted_seq = await self._guard.check(self._watermark, entries[0].seq if entries else None)
                self._backlog.found(noted_seq)
            if not entries:
                self._known = known
            elif not await self._apply(entries, known, ahead.flush if ahead else None):
                return 0
            await self._note()
        except ChainBroken as broken:
            if await self._guard.close(self._watermark, broken.detail):
                raise HistoryLost("partition", broken.detail) from None
            return 0  # the store went on meanwhile: it was this flusher that was behind
        except StoreUnavailable:
            await self._backlog.warn(self._watermark)
            raise
        return self._watermark.seq - first + 1 if self._watermark else 0

    async def wait(self) -> bool:
        """Returns when there is something to flush, and else after a while, to look at what may be lost or trimmed;
        whether it was in vain.
        """
        seq = self._watermark.seq if self._watermark else 0
        seconds = LOOK_AGAIN_SECONDS if self._backlog.is_told(seq) else NOTE_INTERVAL_SECONDS
        return not await self._redis.wait_for_outbox(self._keys.outbox, seq, seconds)

    async def _take_up(self) -> None:
        """Starts from the store's own state, which may be behind what this flusher saw: a store can lose its last.

        Raises `ForeignLedger` for a store that is not this partition's: whatever differs then is no loss of Redis'.
        """
        state = await self._redis.partition_state(self._keys.meta)
        await check_same_ledger(self._store, self._keys.number, state)
        self._watermark = await self._store.watermark(self._keys.number)
        seq = self._watermark.seq if self._watermark else 0
        self._backlog.start_at(seq)

    async def _read(self, first: int) -> list[Read]:
        """The next transactions. Raises `NewerEntry` when they are of a version to come."""
        return await read_outbox(self._redis, self._keys.outbox, first, self._settings.flush_max)

    async def _apply(self, entries: Sequence[Read], known: Known, flush: Flush | None) -> bool:
        """Commits the entries, or the first of them; `flush` is their fold, if it was made. Answers False when another
        flusher moved the watermark first. An entry that cannot be booked is put into quarantine.
        """
        todo = list(entries)
        while True:
            try:
                if flush is None:
                    flush = await self._fold(self._watermark, todo, known)
                flushed = await self._write(flush, known, more=len(todo) == self._settings.flush_max)
            except Unbookable as poison:
                todo[poison.index] = _put_aside(todo[poison.index], poison.reason)
            except UnknownKind as newer:
                if newer.index == 0:
                    raise NewerEntry(str(newer)) from None
                todo = todo[: newer.index]
            except ChainBroken:
                unread_seq = 0 if known.unread_seq else await last_unread(self._store, self._keys.number)
                if not unread_seq:
                    raise
                known, flush = Known(unread_seq=unread_seq), None
                continue
            except StoreRefused as refused:
                # The one that the store refuses is found by halves.
                todo = todo[: len(todo) // 2] if len(todo) > 1 else [await self._refused(todo[0], refused)]
            else:
                break
            known, flush = Known(unread_seq=known.unread_seq), None
        if not flushed.done:
            self._known = self._ahead = None
            return False
        self._watermark = flush.reached
        self.flushed_at = time.monotonic()
        await self._report(flush, flushed)
        return True

    async def _report(self, flush: Flush, flushed: Flushed) -> None:
        """Tells what is in the store now to whoever waits for it."""
        if self._ledger is not None:
            self._ledger.transactions(flush.transactions)
        self._tell(flush.events)
        if flushed.repeated_operations:
            await self._report_repeats(flush, flushed.repeated_operations)
        if flush.alerts or flush.top_ups or flushed.repeated_operations:
            self._alerted()

    async def _fold(self, expected: WatermarkRow | None, entries: Sequence[Read], known: Known) -> Flush:
        await self._learn(entries, known)
        fold = Fold(self._keys.number, expected, known, _now_ms(), self._settings.usage_bucket_minutes)
        for first in range(0, len(entries), FOLDED_AT_ONCE):
            fold.take(entries[first : first + FOLDED_AT_ONCE])
            await asyncio.sleep(0)
        return fold.flush()

    async def _write(self, flush: Flush, known: Known, *, more: bool) -> Flushed:
        """Writes a flush, and folds what comes after it meanwhile."""
        if not more:
            flushed = await self._store.apply(flush)
            self._known = _at_hand(known, flush)
            return flushed
        looking = asyncio.create_task(self._look_ahead(flush.reached, known))
        try:
            flushed = await self._store.apply(flush)
            known_ahead, self._ahead = await looking
            if known_ahead is not None:
                self._known = _at_hand(known_ahead, flush, self._ahead.flush if self._ahead else None)
        finally:
            looking.cancel()
            await asyncio.wait((looking,))
        return flushed

    async def _look_ahead(self, reached: WatermarkRow, known: Known) -> tuple[Known | None, Ahead | None]:
        """The rows and the step that follow a flush that is being written. A fault is met again by the next step."""
        first = reached.seq + 1
        try:
            entries = await self._read(first)
            if not entries or entries[0].seq != first:
                return known, None
            flush = await self._fold(reached, entries, known)
        except (MeterError, ChainBroken, Unbookable, UnknownKind):
            return None, None
        return known, Ahead(entries, flush)

    async def _refused(self, entry: Read, refused: StoreRefused) -> Read:
        """An entry that the store refuses, to be put into quarantine; not one that it has already."""
        if isinstance(entry, Unread):
            raise refused
        if await self._store.transaction(entry.transaction_id) is not None:
            raise ChainBroken(f"partition {self._keys.number}: seq {entry.seq} is in the store already") from None
        return _put_aside(entry, f"the store refuses it: {refused}")

    async def _learn(self, entries: Sequence[Read], known: Known) -> None:
        """Reads the rows that the entries touch and that are not at hand."""
        users, grants, reservations = unknown(entries, known)
        store = self._store
        if users:
            known.accounts.update(await store.accounts(list(users)))
        if grants:
            known.grants.update(await store.grants(list(grants)))
        if reservations:
            known.reservations.update(await store.reservations(list(reservations)))
        await learn_for_figures(store, entries, known)

    async def _note(self) -> None:
        try:
            await self._backlog.note(self._watermark)
        except PartitionRefused:
            await self._guard.check(self._watermark)

    def _tell(self, events: Sequence[EventRow]) -> None:
        """Alarms, to the log and the ledger log."""
        for event in events:
            _log.error(event.message, event_id=event.event_id)
        if self._ledger is not None and events:
            self._ledger.events(events)

    async def _report_repeats(self, flush: Flush, operation_ids: Sequence[str]) -> None:
        """Keys used again after Redis had forgotten them: applied twice, which a person must know."""
        by_id = {row.transaction_id: row for row in flush.transactions}
        last = {one.operation_id: by_id[one.transaction_id] for one in flush.operations}
        owners = {row.operation_id: row.user_id for row in flush.grants}
        events, alerts = [], []
        for n, operation_id in enumerate(operation_ids):
            row = last.get(operation_id)
            event = EventRow(
                event_id=f"repeat-{flush.partition}-{flush.reached.seq}-{n}",
                kind="error",
                user_id=row.user_id if row else owners.get(operation_id),
                message=f"operation {operation_id} was applied again after the idempotency window"[:500],
                created_at_ms=_now_ms(),
            )
            events.append(event)
            if event.user_id is not None:
                about: dict[str, JsonValue] = {"operation_id": operation_id}
                if row:
                    about |= {"transaction_id": row.transaction_id, "seq": row.seq}
                at_ms = row.created_at_ms if row else event.created_at_ms
                alerts.append(error_alert(event, event.user_id, at_ms, about))
        self._tell(events)
        await self._store.insert_many(alerts)
        await self._store.put_events(events)


def _at_hand(known: Known, written: Flush, ahead: Flush | None = None) -> Known:
    """The rows to keep when `written` is in the store, and `ahead`, which was folded after it, is not yet: what lives,
    or only what the last of them touched where that is too much. What is over is read again if it is touched after all.
    """
    unwritten = ahead.reservations if ahead else ()
    for reservation_id in _ended(written).difference(row.reservation_id for row in unwritten):
        known.reservations.pop(reservation_id, None)
    if known.tags:
        known.tags = {name: known.tags[name] for name in _transaction_ids(ahead) if name in known.tags}
    if sum(len(rows) for rows in (known.accounts, known.grants, known.reservations, known.values)) <= KNOWN_MAX:
        return known
    last = ahead or written
    return Known(
        accounts={row.user_id: row for row in last.accounts},
        grants={(row.user_id, row.grant_id): row for row in last.grants},
        reservations={row.reservation_id: row for row in last.reservations},
        tags=known.tags,
        unread_seq=known.unread_seq,
    )


def _ended(flush: Flush) -> set[str]:
    return {row.reservation_id for row in flush.reservations if row.state != "open"}


def _transaction_ids(flush: Flush | None) -> list[str]:
    if flush is None or not isinstance(flush.transactions, Records):
        return []
    return [str(columns[0]) for columns in flush.transactions.columns]


def _put_aside(entry: Read, reason: str) -> Unread:
    return Unread(entry.seq, entry.text if isinstance(entry, Unread) else entry_text(entry), reason[:500])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
