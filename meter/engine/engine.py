"""The engine: operations in, lines of answer out, each to and from the partition it belongs to.

Knows partitions, batchers and operations; knows nothing of HTTP, decimals or the durable store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from meter.api_key import ApiKey
from meter.config import Settings
from meter.engine import operations, upkeep
from meter.engine.acknowledged import Acknowledged
from meter.engine.answers import NOT_FOUND, is_ok
from meter.engine.batcher import Batcher, Limits, LineDone, Lines, Mode
from meter.engine.counts import Counts
from meter.engine.history import Place
from meter.engine.key_owners import KeyOwners
from meter.engine.opening import LedgerOf, Opening, WatermarkOf
from meter.engine.operations import RESERVATION, Operation
from meter.engine.places import about_another, earlier_names, named_partition, place_named
from meter.engine.programs import apply_program
from meter.engine.redis import RedisGateway
from meter.engine.replication import waits_of
from meter.engine.upkeep import CLOCK
from meter.errors import (
    ConfigError,
    ForeignLedger,
    MeterError,
    PartitionRefused,
)
from meter.keys import PartitionKeys, partition_of
from meter.log import logger

_log = logger("meter.engine")

_OWNER = RESERVATION.field("user_id")
_NOT_FOUND = f"0 {NOT_FOUND.word}"

_T = TypeVar("_T", str, Lines, str | None)


class Engine:
    """Runs operations. `start` and `close` belong to the event loop that uses it; `async with` does both."""

    def __init__(
        self,
        redis: RedisGateway,
        settings: Settings,
        watermark_of: WatermarkOf | None = None,
        ledger_of: LedgerOf | None = None,
    ) -> None:
        """`watermark_of` asks the store how far it has a partition; without a store each one starts from nothing.
        `ledger_of` asks it whose ledger it is; without, partitions are taken as they are.
        """
        self._redis = redis
        self.partitions = tuple(PartitionKeys(number, settings.key_prefix) for number in range(settings.partitions))
        program, limits = apply_program(partitions=settings.partitions), limits_of(settings)
        self._batchers = tuple(Batcher(redis, program, keys, limits) for keys in self.partitions)
        for number, batcher in enumerate(self._batchers):
            batcher.on_cut_off = partial(self._close_cut_off, number)
        self._closing: set[asyncio.Task[None]] = set()
        self.find_owner = KeyOwners(settings.partitions, self.submit_to).find
        self.opening = Opening(redis, settings, self.partitions, self._batchers, watermark_of, ledger_of)
        self._started: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Starts the senders and opens the partitions; while Redis is away, goes on trying in the background.

        Once: a second call waits for the first. Raises `ConfigError` when Redis holds partitions made with other
        settings.
        """
        if self._started is None:
            for batcher in self._batchers:
                batcher.start()
            self._started = asyncio.ensure_future(self._open())
        if not self._started.done():
            await asyncio.shield(self._started)
        self._started.result()

    def start_closed(self) -> None:
        """Starts the senders and opens no partition: for who makes them again, one after the other."""
        for batcher in self._batchers:
            batcher.start()
        self._started = asyncio.get_running_loop().create_future()
        self._started.set_result(None)

    async def close(self) -> None:
        """Lets accepted operations finish, then stops. The Redis gateway stays open: it is the owner's."""
        self.opening.close()
        for batcher in self._batchers:
            await batcher.close()

    def submit(self, user_id: str, operation: Operation, done: LineDone, begin_by: float | None = None) -> None:
        """Runs an operation on a user's account. Raises `Overloaded` instead of queueing without bound.

        With `begin_by`, on the event loop's clock, Redis does not begin after that, and `done` gets an `Undecided`
        where it gave no answer.
        """
        number = partition_of(user_id, len(self._batchers))
        self._batchers[number].submit_one(operation, done, begin_by)

    def submit_to(self, number: int, operation: Operation, done: LineDone) -> None:
        """Runs an operation in a partition. Raises `Overloaded`."""
        self._batchers[number].submit_one(operation, done)

    def made(self, transaction_id: str) -> bool:
        """Whether a transaction was made for this process."""
        return any(batcher.made(transaction_id) for batcher in self._batchers)

    def partition_named_by(self, reservation_id: str) -> int | None:
        """The partition that a reservation_id tells; None where its caller chose it and any partition may have it."""
        return named_partition(reservation_id, len(self._batchers), self.opening.before)

    def submit_for_reservation(self, reservation_id: str, operation: Operation, done: LineDone) -> None:
        """Runs an operation on a reservation, whose id may or may not tell its partition."""
        number = self.partition_named_by(reservation_id)
        if number is None:
            self._search(reservation_id, operation, done)
        elif self.opening.before and (names := earlier_names(reservation_id, self.opening.before)):
            self._try_earlier(number, names, operation, done)
        else:
            self._batchers[number].submit_one(operation, done)

    async def run(self, user_id: str, operation: Operation) -> str:
        """`submit` for coroutines. Cancelling the caller does not cancel the operation."""
        answer = _LineFuture()
        self.submit(user_id, operation, answer.done)
        return await answer.future

    async def run_for_reservation(self, reservation_id: str, operation: Operation) -> str:
        """`submit_for_reservation` for coroutines."""
        answer = _LineFuture()
        self.submit_for_reservation(reservation_id, operation, answer.done)
        return await answer.future

    async def owner_of(self, key: ApiKey) -> str | None:
        """Whose an API key is; None where there is no such key now and none was seen. Raises `MeterError`."""
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.find_owner(key, lambda owner: _resolve(future, owner))
        return await future

    async def run_many(self, partition: int, many: Sequence[Operation], mode: Mode = "each") -> Lines:
        """Runs operations of one partition in order, in one batch, and answers their lines; see `Batcher.submit`."""
        future: asyncio.Future[Lines] = asyncio.get_running_loop().create_future()
        self._batchers[partition].submit(many, lambda lines: _resolve(future, lines), mode)
        return await future

    def told(self, number: int) -> Place:
        """The last transaction of a partition that this process was told of."""
        return self._batchers[number].told

    def keep_acknowledged(self) -> None:
        """From now on remembers what callers are told, for whoever offers it back. Once."""
        for batcher in self._batchers:
            batcher.acknowledged = Acknowledged()

    def acknowledged(self, number: int) -> Acknowledged:
        """What callers were told is done in a partition and the store may not have. Nothing before
        `keep_acknowledged`.
        """
        kept = self._batchers[number].acknowledged
        return Acknowledged() if kept is None else kept

    def partition_of(self, user_id: str) -> int:
        """The number of a user's partition."""
        return partition_of(user_id, len(self._batchers))

    async def partition_of_reservation(self, reservation_id: str) -> int | None:
        """The number of the partition that knows a reservation; None when none does."""
        if len(self._batchers) == 1:
            return 0
        line = await self.run_for_reservation(reservation_id, operations.reservation(reservation_id))
        return self.partition_of(line.split(" ")[_OWNER]) if is_ok(line) else None

    def new_reservation_id(self, user_id: str) -> str:
        """An id that nobody can guess and that names its partition."""
        return f"r{self.place_of(user_id)}_{secrets.token_urlsafe(16)}"

    def place_of(self, user_id: str) -> str:
        """What the id of a reservation says of its partition."""
        return place_named(partition_of(user_id, len(self._batchers)), len(self._batchers), self.opening.before)

    async def faults(self) -> list[str]:
        """Why the engine cannot serve, one line per partition; empty when all is well. Asks every partition."""
        faults = []
        for number in range(len(self._batchers)):
            try:
                await self.run_many(number, (upkeep.clock(),))
            except MeterError as error:
                faults.append(str(error))
        return faults

    async def now_ms(self, partition: int = 0) -> int:
        """The time that the scripts of a partition see."""
        (line,) = await self.run_many(partition, (upkeep.clock(),))
        return CLOCK.read(line).units("now_ms")

    async def clock_stands_at(self) -> int | None:
        """The time at which the test clock stands; None while the clock goes with the real one."""
        (line,) = await self.run_many(0, (upkeep.clock(),))
        found = CLOCK.read(line)
        return found.units("now_ms") if found.units("frozen") else None

    @property
    def waiting(self) -> int:
        """Operations that no batch has taken yet, over all partitions."""
        return sum(batcher.waiting for batcher in self._batchers)

    @property
    def counts(self) -> tuple[Counts, ...]:
        """What was counted, per partition."""
        return tuple(batcher.counts for batcher in self._batchers)

    def _close_cut_off(self, number: int, why: str) -> None:
        """What a program that was cut off has half written is not gone on from: its partition is made again."""

        async def close() -> None:
            told = why[:200]
            try:
                await self.run_many(number, (upkeep.state("lost", 0, told),), "repair")
            except MeterError:  # not even that is allowed
                self._batchers[number].barred = PartitionRefused(
                    "partition", f"partition {number} is not served: {told}"
                )

        _log.error("a script was cut off; the partition is closed", partition=number, why=why)
        self._closing.add(task := asyncio.create_task(close(), name=f"meter-cut-off-{number}"))
        task.add_done_callback(self._closing.discard)

    async def _open(self) -> None:
        try:
            await self.opening.start()
        except ForeignLedger:
            raise  # a rebuild may still be wanted: its owner closes it
        except ConfigError:
            await self.close()
            raise

    def _search(self, reservation_id: str, operation: Operation, done: LineDone) -> None:
        """Asks every partition for a reservation whose id was chosen by the caller, then runs the operation there."""
        answers: list[str | MeterError] = []

        def answered(line: str | MeterError) -> None:
            answers.append(line)
            if len(answers) < len(self._batchers):
                return
            found = next((a for a in answers if isinstance(a, str) and is_ok(a)), None)
            failed = next((a for a in answers if isinstance(a, MeterError)), None)
            if found is None and failed is not None:
                done(failed)
                return
            number = 0 if found is None else self.partition_of(found.split(" ")[_OWNER])
            try:
                self._batchers[number].submit_one(operation, done)
            except MeterError as error:
                done(error)

        for batcher in self._batchers:
            batcher.submit_one(operations.reservation(reservation_id), answered)

    def _try_earlier(self, number: int, names: Sequence[str], operation: Operation, done: LineDone) -> None:
        """Runs an operation on the reservation of a gateway's request, which may have had another name before."""
        batcher = self._batchers[number]

        def found(lines: Lines | MeterError) -> None:
            if isinstance(lines, MeterError):
                done(lines)
                return
            name = next((name for name, line in zip(names, lines, strict=True) if is_ok(line)), None)
            if name is None:
                done(_NOT_FOUND)
                return
            try:
                batcher.submit_one(about_another(operation, name), done)
            except MeterError as error:
                done(error)

        def answered(line: str | MeterError) -> None:
            if line != _NOT_FOUND:
                done(line)
                return
            try:
                batcher.submit([operations.reservation(name) for name in names], found)
            except MeterError as error:
                done(error)

        batcher.submit_one(operation, answered)


class _LineFuture:
    """One awaited line; a waiter that went away is no concern of the batch."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def done(self, line: str | MeterError) -> None:
        _resolve(self.future, line)


def limits_of(settings: Settings) -> Limits:
    """The settings that a batcher and the program need."""
    return Limits(
        batch_max=settings.batch_max,
        queue_max=settings.queue_max,
        senders=settings.lanes,
        timeout_seconds=settings.redis_timeout_ms / 1000,
        late_commit_grace_ms=settings.late_commit_grace_seconds * 1000,
        reservations_max=settings.reservations_max,
        grants_max=settings.grants_max,
        recent_window_ms=settings.idempotency_window_seconds * 1000,
        outbox_max=settings.outbox_max,
        waits=waits_of(settings),
    )


def _resolve(future: asyncio.Future[_T], value: _T | MeterError) -> None:
    if future.done():
        return
    if isinstance(value, MeterError):
        future.set_exception(value)
    else:
        future.set_result(value)
