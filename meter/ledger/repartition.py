"""Another number of partitions for a deployment that has data (`meter repartition`), while nothing of it runs.

The store says first that a move is under way, so that no process starts. Every partition is then closed and what only
Redis has booked, as a rebuild begins. All partitions go on at one seq, beyond every one that was used, under an epoch
of their own: whoever knows the old ones is fenced, and within a user's history seq goes on rising. Rows go where their
users belong now (meter/ledger/moving.py), each partition is made again in Redis under the new number, which scripts of
the old one refuse (`keys.schema_of`), and the two sides are compared. Last, the store has the new number.

What is done is kept in the store step by step. A run that was cut off anywhere is taken up by the next one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from meter.config import Settings
from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.errors import MeterError, PartitionRefused
from meter.keys import PartitionKeys
from meter.ledger.figures import gaps_before
from meter.ledger.flusher import Flusher
from meter.ledger.identity import ledger_of
from meter.ledger.log_file import LedgerFile
from meter.ledger.moving import Moving, Sums, sums_in
from meter.ledger.numbers import BEFORE, Numbers, kept_numbers
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.store.base import Flush, Store
from meter.store.rows import AnonymisationRow, DeploymentRow, EventRow, WatermarkRow
from meter.store.settings import MOVING, PARTITIONS

_STEP, _SUMS = "repartition", "repartition_sums"
"""Rows of the deployment while a move is under way."""
BEFORE_MAX = 30
"""Numbers of partitions that are remembered, the first among them."""
DRAIN_STEPS_MAX = 1_000_000

Seen = Callable[[], Awaitable[list[str]]]
"""Tells which sidecars and workers are there."""
Progress = Callable[[str, int], None]
"""Told what is being done and how much of it was."""


class RepartitionRefused(MeterError):
    """Nothing was changed: something has to be done before."""


class RepartitionFailed(MeterError):
    """It was cut off; the same command goes on from there."""


@dataclass(slots=True)
class RepartitionReport:
    """What became of a deployment. Amounts are units."""

    partitions_before: int
    partitions: int
    epoch: int = 0
    seq: int = 0
    """Under which all partitions go on."""
    accounts: int = 0
    grants: int = 0
    reservations: int = 0
    operations: int = 0
    api_keys: int = 0
    available: int = 0
    reserved: int = 0
    debt: int = 0
    renamed: int = 0
    """Idempotency keys that two partitions knew and one has now."""
    drifts: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    """What only Redis had and the store could not take, as a rebuild tells it."""


class _Place(NamedTuple):
    """How far a move is, whose it is, and where all partitions go on."""

    run: str
    step: Literal["drain", "move", "make"]
    epoch: int = 0
    seq: int = 0
    before: str = ""
    """How many partitions there were, this one included."""

    def text(self) -> str:
        return f"{self.run} {self.step} {self.epoch} {self.seq} {self.before}".rstrip()


class Repartition:
    """Brings one deployment, which has `numbers.now` partitions, to another number. `settings` have either."""

    def __init__(
        self,
        settings: Settings,
        redis: RedisGateway,
        store: Store,
        numbers: Numbers,
        seen: Seen,
        progress: Progress = lambda _what, _done: None,
        ledger: LedgerFile | None = None,
        actor: str = "",
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._store = store
        self._numbers = numbers
        self._seen = seen
        self._progress = progress
        self._ledger = ledger
        self._actor = actor
        self._run = secrets.token_hex(6)

    async def check(self, partitions: int) -> None:
        """Raises `RepartitionRefused` for what has to be done, or to end, before."""
        then = self._numbers.then
        if then is not None and then != partitions:
            raise RepartitionRefused(
                f"a move from {self._numbers.now} to {then} partitions has begun: `meter repartition {then}` ends it"
            )
        await self._refuse_while_seen()
        if then is not None:
            return
        marks = await self._store.find(AnonymisationRow, {}, order_by="user_id", limit=1)
        if marks:
            raise RepartitionRefused(
                "a user is being anonymised: start the processes again, repeat POST …/anonymise until it answers 200"
            )

    async def drain(self) -> None:
        """Flushes all that the partitions have, while they are as they always were. Raises `RepartitionRefused`."""
        if self._numbers.then is not None:
            return
        async with self._engine(self._numbers.now) as engine:
            for number in range(self._numbers.now):
                try:
                    await engine.run_many(number, (upkeep.clock(),))
                except PartitionRefused as why:
                    raise RepartitionRefused(f"{why}; nothing was changed") from None
            await self._flush(engine)

    async def run(self, partitions: int) -> RepartitionReport:
        """Does what is left to do, and answers what there is then. Raises `RepartitionFailed`, and `Unavailable`."""
        started = time.monotonic()
        report = RepartitionReport(self._numbers.now, partitions)
        place = await self._begin(partitions)
        if place.step == "drain":
            place = await self._closed(place, report)
        report.epoch, report.seq = place.epoch, place.seq
        if place.step == "move":
            await self._fence(place, partitions)
            place = await self._moved(place, partitions, report)
        _tell(report, sums_in(await self._kept(_SUMS)))
        await self._made(place, partitions, report)
        await self._end(partitions, report)
        report.seconds = time.monotonic() - started
        return report

    async def _begin(self, partitions: int) -> _Place:
        """Takes the move up, or begins it: from then on no process starts."""
        text = await self._kept(_STEP)
        place = _place_in(text)._replace(run=self._run) if text else _Place(self._run, "drain")
        await self._put(_STEP, place.text())
        await self._put(PARTITIONS, f"{self._numbers.now}{MOVING}{partitions}")
        try:
            await self._refuse_while_seen()
        except RepartitionRefused:
            if not text:  # nothing was done yet
                await self._put(PARTITIONS, str(self._numbers.now))
                await self._store.remove([DeploymentRow(name=_STEP, value="")])
            raise
        return place

    async def _closed(self, place: _Place, report: RepartitionReport) -> _Place:
        """Closes every partition, and books what the drain did not see."""
        engine = Engine(self._redis, self._with(self._numbers.now))
        engine.start_closed()
        try:
            rebuild = self._rebuild(engine)
            for number in range(self._numbers.now):
                await self._step(f"close partition {number}", 0)
                taken = await rebuild.take(number, await self._store.watermark(number))
                report.lost += taken.lost
        finally:
            await engine.close()
        marks = await self._store.watermarks()
        kept = (await kept_numbers(self._store)).split()
        before = [*kept[:1], *kept[1:][-(BEFORE_MAX - 2) :], str(self._numbers.now)]
        await self._put(_SUMS, (await self._moving(report.partitions).sums()).text())
        epoch, seq = max((mark.epoch for mark in marks), default=0) + 1, max((mark.seq for mark in marks), default=0)
        return await self._reach(_Place(place.run, "move", epoch, seq, " ".join(before)))

    async def _fence(self, place: _Place, partitions: int) -> None:
        """Lets every partition go on at one place, those that are to go among them: they may come back one day."""
        marks = {mark.partition: mark for mark in await self._store.watermarks()}
        minutes = max((mark.bucket_minutes for mark in marks.values() if mark.bucket_minutes), default=None)
        for number in range(max(self._numbers.now, partitions)):
            mark = marks.get(number)
            if mark is not None and mark.epoch >= place.epoch:
                continue
            reached = WatermarkRow(
                partition=number,
                epoch=place.epoch,
                seq=place.seq,
                head=f"repartition-{place.epoch}",
                updated_at_ms=_now_ms(),
                counted_seq=place.seq,
                bucket_minutes=mark.bucket_minutes if mark else minutes,
            )
            if not (await self._store.apply(Flush(number, mark, reached, gaps=gaps_before(mark)))).done:
                raise RepartitionFailed(f"partition {number} was moved on by another process; run it again")

    async def _moved(self, place: _Place, partitions: int, report: RepartitionReport) -> _Place:
        """Moves the rows, and compares what they add up to."""
        moving = self._moving(partitions, was_moved=" " in place.before)
        await moving.run()
        before, after = sums_in(await self._kept(_SUMS)), await moving.sums()
        if before != after:
            raise RepartitionFailed(f"the rows do not add up to what they did: {before} before, {after} now")
        report.renamed = moving.renamed
        await self._put(BEFORE, place.before)
        return await self._reach(place._replace(step="make"))

    async def _made(self, place: _Place, partitions: int, report: RepartitionReport) -> None:
        """Makes every partition in Redis, and compares both sides. Raises `RepartitionFailed`."""
        engine = Engine(self._redis, self._with(partitions))
        engine.start_closed()
        try:
            await ledger_of(self._store, self._redis, engine.partitions)
            for keys in engine.partitions:
                engine.opening.rebuilds(keys.number)
                if not await self._is_made(keys, place, partitions):
                    await self._make(engine, keys, report)
            await self._flush(engine)
            await self._compare(engine, report)
        finally:
            await engine.close()
        for number in range(partitions, self._numbers.now):
            keys = PartitionKeys(number, self._settings.key_prefix)
            await self._redis.drop((*keys.all, keys.offers))

    async def _is_made(self, keys: PartitionKeys, place: _Place, partitions: int) -> bool:
        state, mark = await self._redis.partition_state(keys.meta), await self._store.watermark(keys.number)
        number = await self._redis.field(keys.meta, "partitions")
        is_ours = number == str(partitions).encode() and state is not None and state.state == "open"
        return is_ours and state is not None and mark is not None and state.epoch == mark.epoch > place.epoch

    async def _make(self, engine: Engine, keys: PartitionKeys, report: RepartitionReport) -> None:
        what = f"partition {keys.number}"
        await self._step(what, 0)
        first = await self._redis.partition_state(engine.partitions[0].meta)
        if first is not None and first.clock_ms is not None:  # a test clock stands in every partition
            await self._redis.put_field(keys.meta, "clock_ms", str(first.clock_ms))
        made = await self._rebuild(engine).partition(keys.number, lambda done: self._progress(what, done))
        report.lost += made.lost

    async def _compare(self, engine: Engine, report: RepartitionReport) -> None:
        reconcile = Reconcile(engine, self._redis, self._store)
        for keys in engine.partitions:
            await self._step(f"compare partition {keys.number}", 0)
            report.drifts += len((await reconcile.partition(keys.number)).drifts)
        if report.drifts:
            raise RepartitionFailed(
                f"{report.drifts} accounts are not in Redis what they are in the store; nothing is served. Run it "
                "again; `meter rebuild` makes Redis again from the store once it has ended"
            )

    async def _end(self, partitions: int, report: RepartitionReport) -> None:
        """From now on processes start with the new number."""
        event = _event(report, self._actor)
        await self._store.put_events([event])
        if self._ledger is not None:
            self._ledger.events([event])
        await self._step("end", 0)
        await self._put(PARTITIONS, str(partitions))
        await self._store.remove([DeploymentRow(name=name, value="") for name in (_STEP, _SUMS)])

    async def _flush(self, engine: Engine) -> None:
        """Brings everything from Redis into the store."""
        for keys in engine.partitions:
            settings = self._with(len(engine.partitions))
            flusher = Flusher(self._redis, engine, self._store, keys, settings, self._ledger)
            for _ in range(DRAIN_STEPS_MAX):
                flushed = await flusher.step()
                self._progress(f"flush partition {keys.number}", flushed)
                state, mark = await self._redis.partition_state(keys.meta), await self._store.watermark(keys.number)
                if state is None or state.seq <= (mark.seq if mark else 0):
                    break

    async def _refuse_while_seen(self) -> None:
        if found := await self._seen():
            raise RepartitionRefused(f"stop every process of the deployment first; there is {', '.join(found)}")

    async def _step(self, what: str, done: int) -> None:
        """Tells of it, and ends when another run has taken the move over."""
        self._progress(what, done)
        if _place_in(await self._kept(_STEP)).run != self._run:
            raise RepartitionFailed("another `meter repartition` has taken it over; this one has ended")

    async def _reach(self, place: _Place) -> _Place:
        await self._step(place.step, 0)
        await self._put(_STEP, place.text())
        return place

    async def _kept(self, name: str) -> str:
        row = await self._store.get(DeploymentRow, name)
        return "" if row is None else row.value

    async def _put(self, name: str, value: str) -> None:
        row = DeploymentRow(name=name, value=value)
        if not await self._store.insert(row):
            await self._store.rewrite([row], [row])

    def _engine(self, partitions: int) -> Engine:
        async def watermark_of(number: int) -> tuple[int, int, str]:
            row = await self._store.watermark(number)
            return (0, 0, "-") if row is None else (row.epoch, row.seq, row.head)

        return Engine(self._redis, self._with(partitions), watermark_of, self._ledger_id)

    async def _ledger_id(self) -> str:
        partitions = [PartitionKeys(number, self._settings.key_prefix) for number in range(self._numbers.now)]
        return await ledger_of(self._store, self._redis, partitions)

    def _rebuild(self, engine: Engine) -> Rebuild:
        window_ms = self._settings.idempotency_window_seconds * 1000
        return Rebuild(engine, self._redis, self._store, window_ms, self._ledger, self._actor)

    def _moving(self, partitions: int, *, was_moved: bool = True) -> Moving:
        now = self._numbers.now
        return Moving(self._store, now, partitions, self._step, may_meet=was_moved or partitions % now != 0)

    def _with(self, partitions: int) -> Settings:
        return self._settings.model_copy(update={"partitions": partitions, "outbox_retention_seconds": 0})


def _place_in(text: str) -> _Place:
    if not text:
        return _Place("", "drain")
    run, step, epoch, seq, *before = text.split(" ")
    found: Literal["drain", "move", "make"] = "move" if step == "move" else "make" if step == "make" else "drain"
    return _Place(run, found, int(epoch), int(seq), " ".join(before))


def _tell(report: RepartitionReport, sums: Sums) -> None:
    for name in ("accounts", "available", "reserved", "debt", "grants", "reservations", "operations", "api_keys"):
        setattr(report, name, getattr(sums, name))


def _event(report: RepartitionReport, actor: str) -> EventRow:
    return EventRow(
        event_id=f"repartition-{report.epoch}",
        kind="system",
        message=(
            f"the deployment has {report.partitions} partitions, where there were {report.partitions_before}: "
            f"{report.accounts} accounts; seq goes on at {report.seq} in each of them"
        ),
        detail={
            "partitions_before": report.partitions_before,
            "partitions": report.partitions,
            "epoch": report.epoch,
            "seq": report.seq,
            **({"actor": actor} if actor else {}),
        },
        created_at_ms=_now_ms(),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
