"""The rebuild: a partition that Redis has lost is made again from the store, and what could not be is reported.

The store's epoch moves first, which fences every flusher. Then Redis' keys are dropped, accounts come back in batches
(balances, live grants, open holds, stored answers), their sums are proved against the store, and the partition opens.
What only Redis had (acknowledged after a rollback, never flushed) is applied again on top, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from meter import operation
from meter.engine import Engine
from meter.errors import MeterError, RedisUnavailable
from meter.keys import PartitionKeys
from meter.operation import Operation
from meter.outbox import Entry, parse_entry
from meter.redis import RedisGateway
from meter.restore import operation_again, recall_end, recall_operation, restore_operation
from meter.store.base import Store
from meter.store.rows import EventRow, GrantRow, ReservationRow, WatermarkRow

ACCOUNTS_PER_PAGE = 1_000
ARGUMENTS_PER_CALL = 4_000
OPERATIONS_PER_CALL = 200
TAIL_PAGE = 5_000
RUN_ATTEMPTS_MAX = 5

_U = TypeVar("_U", GrantRow, ReservationRow)

Progress = Callable[[int], None]
"""Told how many accounts are back."""


class RebuildFailed(MeterError):
    """The rebuild was not completed; the partition stays closed and the rebuild can be started again."""


@dataclass(slots=True)
class RebuildReport:
    """What came back, and what did not. Amounts are units."""

    partition: int
    epoch: int
    seq: int
    accounts: int = 0
    grants: int = 0
    reservations: int = 0
    available: int = 0
    reserved: int = 0
    seconds: float = 0.0
    reapplied: int = 0
    """Transactions that only Redis had, applied again."""
    lost: list[str] = field(default_factory=list)
    """Transactions that only Redis had and that were refused now: "transaction_id kind user_id amount: why"."""


class Rebuild:
    """Rebuilds the partitions of one deployment. `window_ms` is the idempotency window."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store, window_ms: int) -> None:
        self._engine = engine
        self._redis = redis
        self._store = store
        self._window_ms = window_ms

    async def partition(self, number: int, progress: Progress = lambda _: None) -> RebuildReport:
        """Rebuilds a partition and opens it. Raises `RebuildFailed` and leaves it closed when the sums differ."""
        started = time.monotonic()
        keys = self._engine.partitions[number]
        watermark = await self._store.watermark(number)
        only_redis = await self._only_in_redis(keys)
        reached = await self._move_epoch(number, keys, watermark)
        report = RebuildReport(number, reached.epoch, reached.seq)
        await self._redis.drop(keys.all)
        word = await self._engine.open_partition(number, "rebuild", (reached.epoch, reached.seq, reached.head))
        if word != "opened":
            raise RebuildFailed(f"partition {number} cannot be made again: {word}")
        await self._restore_accounts(number, report, progress)
        await self._recall_answers(number)
        await self._prove(number, report)
        await self._engine.run_many(number, (operation.state("open"),), "repair")
        await self._apply_again(number, only_redis, report)
        report.seconds = time.monotonic() - started
        await self._store.put_events([_event(report)])
        return report

    async def _move_epoch(self, number: int, keys: PartitionKeys, watermark: WatermarkRow | None) -> WatermarkRow:
        state = await self._redis.partition_state(keys.meta)
        epoch = max(watermark.epoch if watermark else 0, state.epoch if state else 0) + 1
        reached = WatermarkRow(
            partition=number,
            epoch=epoch,
            seq=watermark.seq if watermark else 0,
            head=watermark.head if watermark else "-",
            updated_at_ms=_now_ms(),
        )
        if not await self._store.move_epoch(watermark, reached):
            raise RebuildFailed(f"partition {number} is being flushed or rebuilt by another process; try again")
        return reached

    async def _only_in_redis(self, keys: PartitionKeys) -> list[Entry]:
        """Entries that Redis acknowledged and the store does not have, oldest first.

        Each entry names the one before it, so the two histories agree up to one seq and nowhere after it.
        """
        state = await self._redis.partition_state(keys.meta)
        first = await self._redis.outbox_entries(keys.outbox, 0, 1)
        if state is None or not first:
            return []
        agreed, beyond = first[0][0] - 1, state.seq + 1
        while beyond - agreed > 1:
            middle = (agreed + beyond) // 2
            entry = _parsed((await self._redis.outbox_entries(keys.outbox, middle, 1))[0][1])
            if entry is not None and await self._store.transaction(entry.transaction_id) is not None:
                agreed = middle
            else:
                beyond = middle
        entries: list[Entry] = []
        while page := await self._redis.outbox_entries(keys.outbox, agreed + 1, TAIL_PAGE):
            entries += [entry for _, text in page if (entry := _parsed(text)) is not None]
            agreed = page[-1][0]
        return entries

    async def _restore_accounts(self, number: int, report: RebuildReport, progress: Progress) -> None:
        after = ""
        while accounts := await self._store.scan_accounts(number, after, ACCOUNTS_PER_PAGE):
            users = [account.user_id for account in accounts]
            grants = _by_user(await self._store.live_grants(users))
            holds = _by_user(await self._store.open_reservations(users))
            many = [
                restore_operation(account, grants.get(account.user_id, []), holds.get(account.user_id, []))
                for account in accounts
            ]
            for batch in _batches(many):
                await self._run(number, batch)
            for account in accounts:
                report.available += account.available
                report.reserved += account.reserved
            report.accounts += len(accounts)
            report.grants += sum(map(len, grants.values()))
            report.reservations += sum(map(len, holds.values()))
            progress(report.accounts)
            after = users[-1]

    async def _recall_answers(self, number: int) -> None:
        """Keys and finished reservations of the idempotency window answer again as before."""
        since_ms = max(0, _now_ms() - self._window_ms)
        after: tuple[int, str] | None = None
        while operations := await self._store.operations_since(number, since_ms, after, ACCOUNTS_PER_PAGE):
            for batch in _batches([recalled for row in operations if (recalled := recall_operation(row))]):
                await self._run(number, batch)
            after = (operations[-1].created_at_ms, operations[-1].operation_id)
        after = None
        while ended := await self._store.reservations_ended_since(number, since_ms, after, ACCOUNTS_PER_PAGE):
            for batch in _batches([recall_end(row) for row in ended]):
                await self._run(number, batch)
            after = (ended[-1].ended_at_ms or 0, ended[-1].reservation_id)

    async def _prove(self, number: int, report: RebuildReport) -> None:
        """Reads every account back and compares the sums with the store's. Raises `RebuildFailed`."""
        texts = await self._redis.account_sums(self._engine.partitions[number].accounts)
        if texts != (report.accounts, report.available, report.reserved):
            raise RebuildFailed(
                f"partition {number}: Redis has {texts} after the rebuild, the store "
                f"{(report.accounts, report.available, report.reserved)} (accounts, available, reserved)"
            )

    async def _apply_again(self, number: int, entries: Sequence[Entry], report: RebuildReport) -> None:
        for entry in entries:
            one = operation_again(entry, _now_ms())
            if one is None:
                continue
            line = (await self._engine.run_many(number, (one,)))[0]
            if line.split(" ")[1] in ("ok", "exists"):
                report.reapplied += 1
            else:
                report.lost.append(f"{entry.transaction_id} {entry.kind} {entry.user_id} {entry.amount}: {line[2:]}")

    async def _run(self, number: int, many: Sequence[Operation]) -> None:
        """A batch in repair mode; one whose outcome is unknown is simply run again: it replaces what is there."""
        for attempt in range(RUN_ATTEMPTS_MAX):
            try:
                await self._engine.run_many(number, many, "repair")
            except RedisUnavailable:
                if attempt == RUN_ATTEMPTS_MAX - 1:
                    raise
            else:
                return


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


def _parsed(text: bytes) -> Entry | None:
    try:
        return parse_entry(text)
    except (ValueError, TypeError):
        return None


def _event(report: RebuildReport) -> EventRow:
    return EventRow(
        event_id=f"rebuild-{report.partition}-{report.epoch}",
        kind="system",
        message=(
            f"partition {report.partition} was rebuilt to epoch {report.epoch} seq {report.seq}: "
            f"{report.accounts} accounts, {report.reapplied} transactions applied again, {len(report.lost)} lost"
        ),
        detail={"lost": list(report.lost[:1000])},
        created_at_ms=_now_ms(),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
