"""Grouped commit: the operations of one event-loop turn travel as one script call (DESIGN 4.10).

A sender has at most one batch in flight. It numbers its batches, and the script keeps the sender's last answers, so
a batch whose reply was lost is sent again under the same number and never applied twice (DESIGN 4.7 b). The Redis call
belongs to the sender's own task: a cancelled request never cancels it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from meter.engine.acknowledged import Acknowledged, Batch
from meter.engine.answers import SUBJECT, Operation, as_arguments, is_ok
from meter.engine.counts import Counts
from meter.engine.history import NOWHERE, Memory, Place, why_refused
from meter.engine.lost_batches import LostBatch, LostBatches
from meter.engine.presented import presented_arguments
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.engine.replication import NOBODY, Waits
from meter.engine.server_clock import ServerClock
from meter.engine.short_answers import in_full
from meter.errors import (
    MeterError,
    NotBegun,
    NotReplicated,
    Overloaded,
    PartitionRefused,
    RedisUnavailable,
    ScriptCutOff,
    ScriptError,
    Unavailable,
    Undecided,
)
from meter.keys import PartitionKeys
from meter.log import logger

Mode = Literal["each", "atomic", "keyed", "trial", "repair"]

RETRY_PAUSE_SECONDS = 0.02
_LOOKS = 13  # the place of that argument, see lua/prelude.lua
CLOSE_PAUSE_SECONDS = 0.005

_log = logger("meter.engine.batcher")

_Reply = TypeVar("_Reply")
Lines = list[str]
Done = Callable[["Lines | MeterError"], object]
"""Called once, from the event loop, with one line per operation or with why there is none."""
LineDone = Callable[["str | MeterError"], object]
"""The same for one operation."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the program is told with each call, and how a batcher bounds itself."""

    batch_max: int
    queue_max: int
    senders: int
    timeout_seconds: float
    late_commit_grace_ms: int
    reservations_max: int
    grants_max: int
    recent_window_ms: int
    outbox_max: int
    waits: Waits = NOBODY


class _Waiting(NamedTuple):
    operations: Sequence[Operation]
    mode: Mode
    deadline: float
    """When the caller is to know, on the event loop's clock."""
    begin_by: float
    """When it is too late for Redis to begin: the caller is told by then that it was not done."""
    must_know: bool
    """Whether the caller takes back what was done after all."""
    done: Done | None
    line_done: LineDone | None = None
    """One of the two: what is told to the caller, about all operations or about the only one."""

    def tell(self, lines: Lines, at: int) -> None:
        """Hands the caller its lines of a batch, which begin there; a fault of the caller's must neither end the sender
        nor keep others from theirs.
        """
        try:
            if self.line_done is not None:
                self.line_done(lines[at])
            elif self.done is not None:
                self.done(lines[at : at + len(self.operations)])
        except Exception:
            _log.exception("a caller failed on its answer")

    def tell_not_replicated(self, error: NotReplicated, lines: Lines, at: int) -> None:
        """The same where it was done and the caller waits for replicas; who must know takes it back."""
        if not self.must_know:
            self.tell_why(error)
            return
        undecided = Undecided(str(error), asyncio.get_running_loop().create_future())
        undecided.outcome.set_result(lines[at : at + len(self.operations)])
        self.tell_why(undecided)

    def tell_why(self, error: MeterError) -> None:
        """The same where there are none."""
        try:
            for done in (self.done, self.line_done):
                if done is not None:
                    done(error)
        except Exception:
            _log.exception("a caller failed on its answer")


class Batcher:
    """Sends operations of one partition in batches. Start it inside a running event loop; close it at the end."""

    def __init__(self, redis: RedisGateway, program: Program, keys: PartitionKeys, limits: Limits) -> None:
        self._redis = redis
        self._program = program
        self._keys = keys
        self._limits = limits
        self._queue: deque[_Waiting] = deque()
        self._waiting = 0
        self._alone = 0
        """Of the calls in the queue those that travel alone."""
        self._idle: deque[_Sender] = deque()
        self._senders: list[_Sender] = []
        self._wake_scheduled = False
        self._closed = False
        self.counts = Counts()
        self.on_cut_off: Callable[[str], None] = _log.error
        """Told why a program was cut off: the partition may be half written."""
        self._memory = Memory()
        self.acknowledged: Acknowledged | None = None
        """What callers were told is done and the store may not have, where somebody offers it back."""
        self._clock = ServerClock()
        self._lost = LostBatches(self._ask)
        self._names: set[str] = set()
        self.barred: Unavailable | None = RedisUnavailable("redis", "the partition has not been opened yet")
        """Why no batch may be sent; None once the partition was found to be made with this process's settings."""

    def start(self) -> None:
        """Starts the senders."""
        self._loop = asyncio.get_running_loop()
        self._senders = [_Sender(self, self.new_name()) for _ in range(self._limits.senders)]
        self._idle.extend(self._senders)

    def remember(self, place: Place) -> None:
        """The partition has a history up to there at least: a Redis that has less is refused."""
        self._memory.remember(place)

    @property
    def told(self) -> Place:
        """The last transaction of the partition that this process was told of."""
        return self._memory.last

    @property
    def waiting(self) -> int:
        """Operations that no batch has taken yet."""
        return self._waiting

    def new_name(self) -> str:
        """A name that no sender has had."""
        name = secrets.token_hex(5)
        self._names.add(name)
        return name

    def made(self, transaction_id: str) -> bool:
        """Whether a transaction was made for this process."""
        return transaction_id.split("-")[2] in self._names

    def submit(
        self, operations: Sequence[Operation], done: Done, mode: Mode = "each", begin_by: float | None = None
    ) -> None:
        """Queues operations to travel in one batch, in order. Raises `Overloaded` when the queue is full.

        `atomic`: all or nothing. `keyed`: nothing where one of the keys was used for another body. `trial`: nothing,
        only the answers. `repair`: for a closed partition too. All of these travel alone. `begin_by`, on the event
        loop's clock: after that Redis is not to begin, and where it gave no answer, `done` gets an `Undecided`.
        """
        self._accept(operations, mode, begin_by, done)
        self._alone += mode != "each"

    def submit_one(self, operation: Operation, done: LineDone, begin_by: float | None = None) -> None:
        """`submit` of one operation."""
        self._accept((operation,), "each", begin_by, None, done)

    async def close(self) -> None:
        """Lets what was accepted finish, then stops."""
        self._closed = True
        while self._queue or len(self._idle) < len(self._senders):
            await asyncio.sleep(CLOSE_PAUSE_SECONDS)
        for sender in self._senders:
            sender.task.cancel()
        await asyncio.gather(*(sender.task for sender in self._senders), return_exceptions=True)
        await self._lost.close()

    def _accept(
        self,
        operations: Sequence[Operation],
        mode: Mode,
        begin_by: float | None,
        done: Done | None,
        line_done: LineDone | None = None,
    ) -> None:
        if self._waiting + len(operations) > self._limits.queue_max:
            self.counts.refused("overloaded", operations)
            raise Overloaded("queue", f"{self._waiting} operations are waiting; try again")
        if self._closed:
            self.counts.refused("overloaded", operations)
            raise Overloaded("draining", "the sidecar is shutting down")
        self._waiting += len(operations)
        deadline = self._loop.time() + self._limits.timeout_seconds
        must_know = begin_by is not None
        begin_by = deadline if begin_by is None else min(begin_by, deadline)
        waiting = (operations, mode, deadline, begin_by, must_know, done, line_done)
        self._queue.append(tuple.__new__(_Waiting, waiting))  # by name it costs three times as much
        if self._idle and not self._wake_scheduled:
            self._wake_scheduled = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._wake_scheduled = False
        while self._queue and self._idle:
            sender = self._idle.popleft()
            sender.give(self._take())

    def _take(self) -> list[_Waiting]:
        """The next batch: calls in order up to the limit; one that is not of mode each travels alone."""
        queue = self._queue
        if not self._alone and self._waiting <= self._limits.batch_max:
            calls = list(queue)
            queue.clear()
            self._waiting = 0
            return calls
        calls, size = [queue.popleft()], 0
        if calls[0].mode == "each":
            size = len(calls[0].operations)
            while queue and queue[0].mode == "each" and size + len(queue[0].operations) <= self._limits.batch_max:
                size += len(queue[0].operations)
                calls.append(queue.popleft())
        else:
            self._alone -= 1
        self._waiting -= sum(len(call.operations) for call in calls)
        return calls

    def _next(self, sender: _Sender) -> list[_Waiting] | None:
        if self._queue:
            return self._take()
        self._idle.append(sender)
        return None

    async def _send(self, sender: _Sender, calls: list[_Waiting]) -> tuple[Lines, NotReplicated | None]:
        """Runs one batch within the budget, again under the same number when its reply is lost: its lines, and what
        those are told who wait for replicas when these are too few.
        """
        if self.barred is not None:
            raise type(self.barred)(self.barred.reason, str(self.barred))  # a fresh one: tracebacks add up
        operations = [operation for call in calls for operation in call.operations]
        count = len(operations)
        latest_ms = self._clock.at(min([call.begin_by for call in calls]))
        arguments = self._arguments(sender.name, sender.number, calls[0].mode, count, latest_ms)
        keys: list[str | int] = []
        for operation in operations:
            if type(operation) is not tuple:
                keys += presented_arguments(operation, len(arguments) + SUBJECT)
            arguments += as_arguments(operation)
        arguments += keys
        waits = self._limits.waits
        if waits.replicas and calls[0].mode != "trial" and waits.wants(operations):
            reply, acknowledged = await self._deliver(arguments, calls[0].deadline, self._run_waiting)
            fault = waits.fault(acknowledged)
        else:
            reply, fault = await self._deliver(arguments, calls[0].deadline, self._run), None
        lines = reply.split("\n")
        head, place, server_ms = self._heard(lines.pop(0), ("done", "stored", "undone"))
        if len(lines) != count:
            raise ScriptError(f"apply: {len(lines)} answers for {count} operations")
        lines = in_full(lines, operations, self._keys.number, sender.name, sender.number)
        self.counts.answered(head, operations, lines)
        if head == "undone":
            return lines, None
        if self.acknowledged is not None:
            self.acknowledged.keep(Batch(place[0], place[1], server_ms, operations, lines))
        return lines, fault

    def _arguments(self, name: str, number: int, mode: str, count: int, latest_ms: int) -> list[str | int]:
        limits = self._limits
        return [
            name,
            number,
            mode,
            self._keys.number,
            limits.late_commit_grace_ms,
            limits.reservations_max,
            limits.grants_max,
            limits.recent_window_ms,
            limits.outbox_max,
            count,
            *self._memory.last,
            self._memory.looks(self._loop.time()),
            latest_ms,
        ]

    def _heard(self, first: str, expected: Sequence[str]) -> tuple[str, Place, int]:
        """The word that a reply begins with, and what it tells besides, which is remembered: the last transaction, and
        Redis' clock.
        """
        head, _, place = first.partition(" ")
        if head == "late":
            self._clock.learn(int(place), self._loop.time())
            raise NotBegun
        if head not in expected:
            raise PartitionRefused("partition", why_refused(self._keys, head, place))
        if not place:
            return head, NOWHERE, 0
        epoch, seq, name, server_ms = place.split(" ")
        told = (int(epoch), int(seq), name)
        self._memory.remember(told)
        self._clock.learn(int(server_ms), self._loop.time())
        return head, told, int(server_ms)

    async def _ask(self, name: str, number: int) -> tuple[str, list[str]]:
        """What became of a batch; one that was not applied by now never will be."""
        arguments = self._arguments(name, number, "ask", 0, 0)
        deadline = self._loop.time() + self._limits.timeout_seconds
        first, *lines = (await self._deliver(arguments, deadline, self._run)).split("\n")
        self._heard(first, ("stored", "never", "stale"))
        return first, lines

    def waits_for_replicas(self, operations: Sequence[Operation], lines: Lines) -> bool:
        """Whether a call, whose lines come first there, did something that it is told of only when replicas have it."""
        return self._limits.waits.wants(one for one, line in zip(operations, lines, strict=False) if is_ok(line))

    def lose(self, name: str, number: int, calls: Sequence[_Waiting], why: MeterError) -> list[MeterError]:
        """What the calls of a batch are told whose reply never came."""
        told: list[MeterError] = []
        outcomes = []
        first = 0
        for call in calls:
            if call.must_know:
                error = Undecided(str(why), self._loop.create_future())
                outcomes.append((first, len(call.operations), error.outcome))
                told.append(error)
            else:
                told.append(why)
            first += len(call.operations)
        if outcomes:
            asked = [operation for call in calls for operation in call.operations]
            self._lost.add(LostBatch(self._keys.number, name, number, self._memory.last[0], asked, outcomes))
        return told

    async def _deliver(
        self, arguments: list[str | int], deadline: float, run: Callable[[list[str | int], float], Awaitable[_Reply]]
    ) -> _Reply:
        """The reply, by the deadline of the call that waited longest: what waits behind a hung batch is told too."""
        if self._loop.time() >= deadline:
            raise NotBegun
        while True:
            started = self._loop.time()
            try:
                reply = await run(arguments, max(deadline - started, 0.001))
                self.counts.redis_seconds.add(self._loop.time() - started)
                return reply
            except TimeoutError:
                self._memory.doubt()
                raise RedisUnavailable("redis", "Redis did not answer in time") from None
            except RedisUnavailable:
                self._memory.doubt()
                if self._loop.time() + RETRY_PAUSE_SECONDS >= deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                arguments[_LOOKS] = 1

    async def _run(self, arguments: list[str | int], seconds: float) -> str:
        """A script call of so many seconds at most. To set a timer costs as much as to send the call."""
        call = self._redis.run(self._program, self._keys.all, arguments)
        if self._redis.patience_seconds <= seconds:
            return await call
        async with asyncio.timeout(seconds):
            return await call

    async def _run_waiting(self, arguments: list[str | int], seconds: float) -> tuple[str, int]:
        """The same, and how many replicas have it."""
        waits = self._limits.waits
        async with asyncio.timeout(seconds):
            keys = self._keys.all
            return await self._redis.run_waiting(self._program, keys, arguments, waits.replicas, waits.within_ms)


class _Sender:
    """One sender: a name that no other sender has, a running number, and a task that owns its Redis calls."""

    def __init__(self, batcher: Batcher, name: str) -> None:
        self.name = name
        self.number = 0
        self._batcher = batcher
        self._given: asyncio.Future[list[_Waiting]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(), name=f"meter-sender-{self.name}")

    def give(self, calls: list[_Waiting]) -> None:
        self._given.set_result(calls)

    async def _run(self) -> None:
        while True:
            calls: list[_Waiting] | None = await self._given
            self._given = asyncio.get_running_loop().create_future()
            while calls is not None:
                while calls:
                    calls = await self._settle(calls)
                calls = self._batcher._next(self)

    async def _settle(self, calls: list[_Waiting]) -> list[_Waiting]:
        """Sends a batch, and tells its calls; answers those that are to be sent again, without one that was late."""
        self.number += 1
        try:
            lines, fault = await self._batcher._send(self, calls)
        except NotBegun as error:
            now = asyncio.get_running_loop().time()
            self._failed([call for call in calls if call.begin_by <= now], error)
            return [call for call in calls if call.begin_by > now]
        except MeterError as error:
            if isinstance(error, ScriptCutOff):
                self._batcher.on_cut_off(str(error))
            self._failed(calls, error)
            return []
        except Exception as error:  # a sender that dies would hang every later caller
            self._batcher.counts.failed("error", [call.operations for call in calls])
            for call in calls:
                call.tell_why(ScriptError(f"apply: {type(error).__name__}: {error}"))
            return []
        at = 0
        for call in calls:
            if fault is not None and self._batcher.waits_for_replicas(call.operations, lines[at:]):
                call.tell_not_replicated(fault, lines, at)
            else:
                call.tell(lines, at)
            at += len(call.operations)
        return []

    def _failed(self, calls: list[_Waiting], error: MeterError) -> None:
        if not calls:
            return
        outcome = "unavailable" if isinstance(error, Unavailable) else "error"
        self._batcher.counts.failed(outcome, [call.operations for call in calls])
        told: Sequence[MeterError] = [error] * len(calls)
        is_lost = isinstance(error, RedisUnavailable) and not isinstance(error, NotBegun) and not self._batcher.barred
        if is_lost and any(call.must_know for call in calls):
            told = self._batcher.lose(self.name, self.number, calls, error)
            self.name, self.number = self._batcher.new_name(), 0
        for call, why in zip(calls, told, strict=True):
            call.tell_why(why)
