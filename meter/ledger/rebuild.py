"""The rebuild: a partition that Redis has lost is made again from the store, and what could not be is reported.

The store's epoch moves first, which fences every flusher, then Redis', which closes the partition and fences every
other rebuild. What only Redis has (acknowledged and never flushed) is booked in the store, as what it was
(meter/ledger/merge.py). Then Redis' keys are dropped, accounts come back in batches (balances, live grants, open holds,
stored answers), their sums are proved against the store, and the partition opens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from meter.clock import NEVER_MS
from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.offers import Offers
from meter.engine.operations import Operation
from meter.engine.outbox_pages import read_outbox
from meter.engine.redis import PartitionState, RedisGateway
from meter.engine.upkeep import CLOCK
from meter.errors import MeterError, RedisUnavailable, ScriptError
from meter.keys import PartitionKeys
from meter.ledger.api_keys import restore_keys
from meter.ledger.identity import check_same_ledger, ledger_of
from meter.ledger.log_file import LedgerFile
from meter.ledger.merge import Overtaken, merge
from meter.ledger.numbers import kept_numbers
from meter.ledger.offered import missing, with_durable_grants
from meter.ledger.only_in_redis import NOTHING_ELSE, OnlyInRedis, only_in_redis
from meter.ledger.pending_grants import grant_operation, told_of
from meter.ledger.plan_prices import restore_prices
from meter.ledger.plan_rules import restore_rules
from meter.ledger.rate_cards import restore_operations
from meter.ledger.recount import recount, recounted
from meter.ledger.restoring import (
    calendar_operations,
    recall_end,
    recall_operations,
    restore_operation,
)
from meter.store.base import Flush, Store
from meter.store.rows import AccountRow, EventRow, GrantRow, ReservationRow, WatermarkRow

ACCOUNTS_PER_PAGE = 1_000
ARGUMENTS_PER_CALL = 4_000
OPERATIONS_PER_CALL = 200
PENDING_MAX = 100_000
_FIRST_EPOCH = 1
"""Of a partition that nobody rebuilt (lua/open.lua). Where neither side knows of any, processes may remember it."""
RUN_ATTEMPTS_MAX = 5
BEAT_SECONDS = 5.0
OFFERS_SECONDS = 2.5
"""A process that remembers looks at its partitions once a second (meter/health/watch.py), and twice before it is over.
"""

_U = TypeVar("_U", GrantRow, ReservationRow)

Progress = Callable[[int], None]
"""Told how many accounts are back."""


class RebuildFailed(MeterError):
    """The rebuild was not completed; the partition stays closed and the rebuild can be started again."""


class _Stored(NamedTuple):
    """An account of the store with what belongs to it."""

    account: AccountRow
    grants: Sequence[GrantRow]
    holds: Sequence[ReservationRow]


@dataclass(slots=True)
class RebuildReport:
    """What came back, and what did not. Amounts are units."""

    partition: int
    epoch: int
    seq: int
    """Up to which the store had it before."""
    accounts: int = 0
    grants: int = 0
    reservations: int = 0
    available: int = 0
    reserved: int = 0
    seconds: float = 0.0
    reapplied: int = 0
    """Transactions that only Redis had, and grants that were still pending, applied again."""
    offered: int = 0
    """Transactions that neither had, and that processes which remember them offered back."""
    lost: list[str] = field(default_factory=list)
    """Transactions that only Redis had and that could not be booked: "transaction_id kind user_id amount: why"."""
    doubled: list[str] = field(default_factory=list)
    """Transactions that Redis and the store both have, each under an id of its own: the store's stand."""
    unknown: str = ""
    """What nobody can tell: from where on Redis may have acknowledged more than it has now."""


class Rebuild:
    """Rebuilds the partitions of one deployment. `window_ms` is the idempotency window, `actor` who asks; so many
    `offers_seconds` others have to offer back what was acknowledged, where some of it may be lost.
    """

    def __init__(
        self,
        engine: Engine,
        redis: RedisGateway,
        store: Store,
        window_ms: int,
        ledger: LedgerFile | None = None,
        actor: str = "",
        offers_seconds: float = 0.0,
    ) -> None:
        self._ledger = ledger
        self._offers_seconds = offers_seconds
        self._actor = actor
        self._engine = engine
        self._redis = redis
        self._store = store
        self._window_ms = window_ms
        self._beat_at = 0.0

    async def partition(
        self, number: int, progress: Progress = lambda _: None, *, replaces: bool = False
    ) -> RebuildReport:
        """Rebuilds a partition and opens it. Raises `RebuildFailed`; unless it was refused at once, the partition then
        is closed, and the rebuild can be started again. `replaces`: what another ledger has there goes, unread.
        """
        watermark = await self._store.watermark(number)
        return await self.partition_at(number, watermark, progress, replaces=replaces)

    async def partition_at(
        self,
        number: int,
        watermark: WatermarkRow | None,
        progress: Progress = lambda _: None,
        *,
        replaces: bool = False,
    ) -> RebuildReport:
        """`partition`, but only while the store still is at `watermark`: of several that found the same loss, one
        mends it.
        """
        started = time.monotonic()
        report = await self.take(number, watermark, replaces=replaces)
        await self._run(number, report.epoch, [upkeep.state("clear", report.epoch)])
        now_ms = await self._now_ms(number, report.epoch)
        for batch in _batches(await restore_operations(self._store, now_ms)):
            await self._run(number, report.epoch, batch)
        async for one in restore_keys(self._store, number):
            await self._run(number, report.epoch, [one])
        await self._restore_accounts(number, report, progress)
        async for one in restore_prices(self._store, number, len(self._engine.partitions)):
            await self._run(number, report.epoch, [one])
        await self._recall_answers(number, report.epoch, now_ms)
        await self._prove(number, report)
        async for telling in restore_rules(self._store, number, len(self._engine.partitions)):
            await self._run(number, report.epoch, telling)
        await self._apply_pending(number, report)
        await self._run(number, report.epoch, [upkeep.state("open", report.epoch)])
        report.seconds = time.monotonic() - started
        event = _event(report, self._actor)
        await self._store.put_events([event])
        if self._ledger is not None:
            self._ledger.events([event])
        return report

    async def take(self, number: int, watermark: WatermarkRow | None, *, replaces: bool = False) -> RebuildReport:
        """What a rebuild begins with: fences every flusher, closes the partition, and books in the store what only
        Redis has. Raises `RebuildFailed`.
        """
        keys = self._engine.partitions[number]
        state = await self._redis.partition_state(keys.meta)
        if not replaces:
            await check_same_ledger(self._store, number, state)
            await self._refuse_to_forget(number, keys, state, watermark)
        self._engine.opening.rebuilds(number)
        reached = await self._move_epoch(number, state, watermark)
        report = RebuildReport(number, reached.epoch, reached.seq)
        await self._close(number, "replace" if replaces else "rebuild", reached)
        # From here on nobody else changes it. What only Redis has goes into the store before Redis forgets it.
        found = NOTHING_ELSE if replaces else await self._merge(report, reached, keys, state)
        report.unknown = _replaced(state) if replaces else _unknown(state, report.seq, found, report.offered)
        return report

    async def _refuse_to_forget(
        self, number: int, keys: PartitionKeys, state: PartitionState | None, watermark: WatermarkRow | None
    ) -> None:
        """Raises `RebuildFailed` when Redis has what neither the store nor the outbox could bring back."""
        flushed = watermark.seq if watermark else 0
        if state is None or state.state == "rebuilding" or state.seq <= flushed:
            return
        if flushed >= state.flushed and not await self._redis.existing([keys.outbox]):
            return  # it is Redis that has lost it: an outbox that was trimmed is empty, not gone
        first = await read_outbox(self._redis, keys.outbox, 0, 1)
        if not first or first[0].seq > flushed + 1:
            kept = f"the outbox begins at seq {first[0].seq}" if first else "the outbox is empty"
            raise RebuildFailed(
                f"partition {number}: Redis is at seq {state.seq}, the store at seq {flushed}, and {kept}: "
                "the store has lost more than Redis. Restore the store; nothing was changed."
            )

    async def _move_epoch(
        self, number: int, state: PartitionState | None, watermark: WatermarkRow | None
    ) -> WatermarkRow:
        known = (watermark.epoch if watermark else _FIRST_EPOCH, state.epoch if state else _FIRST_EPOCH)
        epoch = max(known) + 1
        reached = WatermarkRow(
            partition=number,
            epoch=epoch,
            seq=watermark.seq if watermark else 0,
            head=watermark.head if watermark else "-",
            updated_at_ms=_now_ms(),
            counted_seq=watermark.counted_seq if watermark else None,
            bucket_minutes=watermark.bucket_minutes if watermark else None,
        )
        if not await self._store.move_epoch(watermark, reached):
            raise RebuildFailed(f"partition {number} is being flushed or rebuilt by another process; try again")
        return reached

    async def _merge(
        self, report: RebuildReport, reached: WatermarkRow, keys: PartitionKeys, state: PartitionState | None
    ) -> OnlyInRedis:
        """Books what only Redis has, and what processes offer back, and answers what Redis had. Raises
        `RebuildFailed`.
        """
        found = await only_in_redis(self._redis, self._store, keys.outbox)
        try:
            merged = await merge(self._store, reached, found, self._ledger)
            report.reapplied, report.lost, report.doubled = merged.booked, merged.lost, merged.doubled
            if _may_miss(state, reached.seq, found):
                await asyncio.sleep(self._offers_seconds)
            last = await self._take_offers(report, merged.reached, Offers(self._redis, keys))
        except Overtaken:
            other = await self._store.watermark(reached.partition)
            held = other.epoch if other else 0
            raise RebuildFailed(_overtaken(reached.partition, reached.epoch, held)) from None
        if last.seq > reached.seq:
            await self._close(reached.partition, "rebuild", last)
            await self._recount(last)
        return found

    async def _take_offers(self, report: RebuildReport, reached: WatermarkRow, offers: Offers) -> WatermarkRow:
        """Books what was acknowledged and is neither in the store nor in Redis. Raises `Overtaken`."""
        offered = await offers.all()
        entries = await missing(self._store, (entry for page in offered.values() for entry in page))
        if entries:
            users = {entry.user_id for entry in entries}
            again = await with_durable_grants(self._store, entries)
            grants = sum(entry.brings_a_grant for entry in again)
            merged = await merge(self._store, reached, OnlyInRedis([*again], reached.seq), self._ledger, users)
            reached, report.offered = merged.reached, merged.booked - grants
            report.reapplied += grants
            report.lost += merged.lost
            report.doubled += merged.doubled
        await offers.take_away([*offered])
        return reached

    async def _recount(self, reached: WatermarkRow) -> None:
        """Adds up what levels have counted, after entries of another history: their own counts are not the store's."""
        after = ""
        while page := await self._store.scan_accounts(reached.partition, after, ACCOUNTS_PER_PAGE):
            after = page[-1].user_id
            rows = [recounted(row, await recount(self._store, row)) for row in page if row.rules is not None]
            if not rows:
                continue
            watermark = await self._store.watermark(reached.partition)
            if watermark is None or (watermark.epoch, watermark.seq) != (reached.epoch, reached.seq):
                raise RebuildFailed(_overtaken(reached.partition, reached.epoch, watermark.epoch if watermark else 0))
            noted = watermark.model_copy(update={"updated_at_ms": watermark.updated_at_ms + 1})
            if not (await self._store.apply(Flush(reached.partition, watermark, noted, accounts=rows))).done:
                raise RebuildFailed(_overtaken(reached.partition, reached.epoch, watermark.epoch))

    async def _close(self, number: int, how: str, reached: WatermarkRow) -> None:
        """Closes the partition for a rebuild from there on. Raises `RebuildFailed`."""
        place = (reached.epoch, reached.seq, reached.head)
        ledger = await ledger_of(self._store, self._redis, self._engine.partitions)
        before = await kept_numbers(self._store)
        word = await self._engine.opening.run(number, how, place, ledger, before)
        if word != "opened":
            raise RebuildFailed(f"partition {number} cannot be made again: {word}")

    async def _restore_accounts(self, number: int, report: RebuildReport, progress: Progress) -> None:
        reading = asyncio.create_task(self._read_page(number, ""))
        try:
            while page := await reading:
                reading = asyncio.create_task(self._read_page(number, page[-1].account.user_id))
                await self._restore_page(number, report, page)
                progress(report.accounts)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_page(self, number: int, after: str) -> list[_Stored]:
        accounts = await self._store.scan_accounts(number, after, ACCOUNTS_PER_PAGE)
        users = [account.user_id for account in accounts]
        grants = _by_user(await self._store.live_grants(users))
        holds = _by_user(await self._store.open_reservations(users))
        return [_Stored(one, grants.get(one.user_id, []), holds.get(one.user_id, [])) for one in accounts]

    async def _restore_page(self, number: int, report: RebuildReport, page: Sequence[_Stored]) -> None:
        many = [*calendar_operations(account for account, _, _ in page)]
        many += [restore_operation(*stored) for stored in page]
        for batch in _batches(many):
            await self._run(number, report.epoch, batch)
        for account, grants, holds in page:
            report.available += account.available
            report.reserved += account.reserved
            report.grants += len(grants)
            report.reservations += len(holds)
        report.accounts += len(page)

    async def _recall_answers(self, number: int, epoch: int, now_ms: int) -> None:
        """Keys and finished reservations of the idempotency window answer again as before."""
        since_ms = max(0, now_ms - self._window_ms)
        after: tuple[int, str] | None = None
        while operations := await self._store.operations_since(number, since_ms, after, ACCOUNTS_PER_PAGE):
            for batch in _batches([one for row in operations for one in recall_operations(row)]):
                await self._run(number, epoch, batch)
            after = (operations[-1].created_at_ms, operations[-1].operation_id)
        after = None
        while ended := await self._store.reservations_ended_since(number, since_ms, after, ACCOUNTS_PER_PAGE):
            ends = [end for row in ended if (end := recall_end(row)) is not None]
            for batch in _batches(ends):
                await self._run(number, epoch, batch)
            after = (ended[-1].ended_at_ms or 0, ended[-1].reservation_id)

    async def _prove(self, number: int, report: RebuildReport) -> None:
        """Reads every account back and compares the sums with the store's. Raises `RebuildFailed`."""
        texts = await self._redis.account_sums(self._engine.partitions[number].accounts)
        if texts != (report.accounts, report.available, report.reserved):
            raise RebuildFailed(
                f"partition {number}: Redis has {texts} after the rebuild, the store "
                f"{(report.accounts, report.available, report.reserved)} (accounts, available, reserved)"
            )

    async def _apply_pending(self, number: int, report: RebuildReport) -> None:
        """Grants that are durable and that Redis had perhaps, unflushed; what is refused stays for the sweep."""
        for row in await self._store.pending_grants(NEVER_MS, PENDING_MAX):
            if self._engine.partition_of(row.user_id) != number:
                continue
            one = grant_operation(row, told_of(row), late=True)
            line = (await self._run(number, report.epoch, [one]))[0]
            report.reapplied += line.startswith("0 ok")

    async def _now_ms(self, number: int, epoch: int) -> int:
        (line,) = await self._run(number, epoch, [upkeep.clock()])
        return CLOCK.read(line).units("now_ms")

    async def _why_failed(self, number: int, epoch: int, error: ScriptError) -> str:
        """One line: another rebuild has begun, or what the script says."""
        state = await self._redis.partition_state(self._engine.partitions[number].meta)
        if state is None or state.epoch == epoch:
            return f"partition {number}: {error}"
        return _overtaken(number, epoch, state.epoch)

    async def _run(self, number: int, epoch: int, many: Sequence[Operation]) -> Sequence[str]:
        """A batch of this rebuild and no other; one whose outcome is unknown is run again: it does the same once more.

        Raises `RebuildFailed` when another rebuild has begun.
        """
        await self._beat(number, epoch)
        guarded = [upkeep.state("rebuilding", epoch), *many]
        tries = 1
        while True:
            try:
                return (await self._engine.run_many(number, guarded, "repair"))[1:]
            except RedisUnavailable:
                if tries == RUN_ATTEMPTS_MAX:
                    raise
                tries += 1
            except ScriptError as error:
                raise RebuildFailed(await self._why_failed(number, epoch, error)) from error

    async def _beat(self, number: int, epoch: int) -> None:
        """Tells the others, now and then, that this rebuild is at work."""
        if time.monotonic() - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = time.monotonic()
        watermark = await self._store.watermark(number)
        if watermark is None or watermark.epoch != epoch:
            held = "another one" if watermark is None else f"epoch {watermark.epoch}"
            raise RebuildFailed(
                f"partition {number}: another rebuild holds {held}; this one, of epoch {epoch}, has ended"
            )
        await self._store.move_epoch(watermark, watermark.model_copy(update={"updated_at_ms": _now_ms()}))


def _overtaken(number: int, epoch: int, held: int) -> str:
    return f"partition {number}: another rebuild holds epoch {held}; this one, of epoch {epoch}, has ended"


def _replaced(state: PartitionState | None) -> str:
    whose = "another one" if state is None or not state.ledger else state.ledger
    return f"Redis had the partition of ledger {whose} there: it is gone from it, and nothing of it was booked here"


def _may_miss(state: PartitionState | None, seq: int, found: OnlyInRedis) -> bool:
    """Whether something may have been acknowledged that neither the store, up to `seq`, nor Redis has."""
    last = found.entries[-1].seq if found.entries else seq
    return state is None or state.state != "open" or max(state.acknowledged, state.seq) > last


def _unknown(state: PartitionState | None, seq: int, found: OnlyInRedis, offered: int) -> str:
    """What no report can name: acknowledged by Redis, never flushed, gone from it before the rebuild began, and offered
    back by nobody. `seq`: up to which the store had it.
    """
    goes_on = found.entries and found.agreed >= seq  # else Redis' entries tell of another history than the store's
    last = found.entries[-1].seq if goes_on else seq
    acknowledged = 0 if state is None else max(state.acknowledged, state.seq)
    if acknowledged > last and (goes_on or not found.entries):
        told = f"Redis acknowledged up to seq {acknowledged}; what came after seq {last} was never in the store"
    elif state is None and not found.entries:
        told = f"Redis had nothing: what it acknowledged after seq {last} was never in the store"
    else:
        told = f"what Redis acknowledged after seq {last} and lost before, if anything, was never in the store"
    return f"{told}; {offered} of those were offered back and are booked" if offered else told


def _batches(many: Iterable[Operation]) -> Iterable[list[Operation]]:
    """Operations in batches that one script call can take."""
    batch: list[Operation] = []
    size = 0
    for one in many:
        if batch and (size + len(one) > ARGUMENTS_PER_CALL or len(batch) == OPERATIONS_PER_CALL):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one)
    if batch:
        yield batch


def _by_user(rows: Iterable[_U]) -> dict[str, list[_U]]:
    found: dict[str, list[_U]] = {}
    for row in rows:
        found.setdefault(row.user_id, []).append(row)
    return found


def _event(report: RebuildReport, actor: str) -> EventRow:
    return EventRow(
        event_id=f"rebuild-{report.partition}-{report.epoch}",
        kind="system",
        message=(
            f"partition {report.partition} was rebuilt to epoch {report.epoch} seq {report.seq}: "
            f"{report.accounts} accounts, {report.reapplied} transactions applied again, "
            f"{report.offered} offered back, {len(report.lost)} lost"
        ),
        detail={
            "lost": list(report.lost[:1000]),
            "doubled": list(report.doubled[:1000]),
            "unknown": report.unknown,
            **({"actor": actor} if actor else {}),
        },
        created_at_ms=_now_ms(),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
