"""Looks at everything each second (in a worker every five), and tells the log when something is lost, refused, full or
missing, and when not.

A look costs three commands of Redis, two more per partition, and one question to the store; no request waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from time import monotonic

from meter.config import Settings
from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.outbox import Entry, NewerEntry
from meter.engine.outbox_pages import read_outbox
from meter.engine.redis import PartitionState, RedisGateway
from meter.errors import MeterError, RedisUnavailable, Unavailable
from meter.health.presence import MISSING_AFTER_SECONDS, SIDECAR_BEAT_SECONDS, Presences, Sidecar, process_id
from meter.health.status import Facts, Name, Part, PartitionFacts, Status, status_of_sidecar, status_of_worker
from meter.log import Changes, logger

LOOK_EVERY_SECONDS = 1.0
WORKER_LOOKS_EVERY_SECONDS = 5.0
"""In a worker no call waits for what is found, and what stops it says so itself."""
STORE_SECONDS_MAX = 1.0
"""A store that takes longer to answer a ping counts as away."""

GOODBYE_SECONDS_MAX = 0.5
CANCEL_AGAIN_SECONDS = 0.1
PACKAGE = "meter-sidecar"

SeePartition = Callable[[int, PartitionState | None], Awaitable[None]]
"""Is told how each partition is, as often as this process looks by itself. Raises `MeterError`."""
PingStore = Callable[[], Awaitable[None]]
"""Returns when the store answers. Raises `MeterError`."""

_log = logger("meter.health")

_LOST = {
    Name.REDIS: "Redis is away: every call is refused until it is back",
    Name.PARTITIONS: "a partition is refused: `meter rebuild` makes it again from the store",
    Name.BACKLOG: "the backlog is full: reservations and deductions are refused until a tenth has drained",
    Name.STORE: "the store is away: adding credits waits for it, spending goes on",
    Name.WORKER: "no worker is seen: start `meter worker`, or nothing is stored, granted or sent",
}
_REFUSED = {
    Name.REDIS: "Redis refuses us: every call is refused until METER_REDIS_URL or its user's rights are set right",
    Name.STORE: "the store refuses us: adding credits waits for the right METER_STORE_URL, spending goes on",
}
_BACK = {
    Name.REDIS: "Redis is back",
    Name.PARTITIONS: "every partition is served",
    Name.BACKLOG: "the backlog has drained",
    Name.STORE: "the store is back",
    Name.WORKER: "a worker is seen",
}


class Watch:
    """The looks of one process. `ping_store` is None where there is no store; `of_worker`: it flushes itself;
    `see_partition`: somebody else wants to know of each partition.
    """

    def __init__(
        self,
        engine: Engine,
        redis: RedisGateway,
        settings: Settings,
        ping_store: PingStore | None,
        *,
        of_worker: bool = False,
        see_partition: SeePartition | None = None,
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._outbox_max = settings.outbox_max
        self._presences = Presences(redis, settings.key_prefix)
        self._ping_store = ping_store
        self._judge = status_of_worker if of_worker else status_of_sidecar
        self._of_worker = of_worker
        self._see_partition = see_partition
        self._changes = Changes(_log)
        self._pinging: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[Status] | None = None
        self._task: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._sidecar_id = process_id()
        self._beat_at: float | None = None
        self._last: Status | None = None

    def start(self) -> None:
        """Begins to look. Once, in the running event loop."""
        self._started_at = monotonic()
        self._task = asyncio.create_task(self._run(), name="meter-watch")

    def sidecar(self, now_ms: int) -> Sidecar:
        """This process, at a time of Redis' clock."""
        started_at_ms = now_ms - int(1000 * (monotonic() - self._started_at)) if self._started_at else now_ms
        told = {"version": version(PACKAGE), "started_at_ms": started_at_ms, "seen_at_ms": now_ms}
        return Sidecar.model_validate({"sidecar_id": self._sidecar_id, **told})

    async def close(self) -> None:
        """Ends the looks. A process that was shorter than the patience for a worker is told now that none was seen."""
        if self._last is not None and self._last.parts.get(Name.WORKER, Part()).state == "missing":
            self._changes.tell(Name.WORKER, "missing", _LOST[Name.WORKER])
        tasks = [task for task in (self._task, self._looking, self._pinging) if task is not None]
        while pending := [task for task in tasks if not task.done()]:
            for task in pending:  # again and again: one that falls together with an answer is lost, before Python 3.12
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._beat_at is not None:
            with suppress(MeterError, TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                    await self._presences.forget_sidecar(self._sidecar_id)

    async def look(self) -> Status:
        """How everything is now; callers at the same time share one look."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def look_and_try(self) -> Status:
        """The same, with an operation on each partition: only that finds a Redis that answers and yet refuses."""
        status, refusals = await asyncio.gather(self.look(), self._refusals())
        facts = status.facts
        away = next((error for error in refusals.values() if isinstance(error, RedisUnavailable)), None)
        if facts.redis_fault or away:
            if away and not facts.redis_fault:
                facts = replace(facts, redis_fault=str(away), redis_word=away.word)
            return self._judge(facts, self._outbox_max)
        partitions = [
            replace(one, refusal=str(refusals[one.number])) if one.number in refusals else one
            for one in facts.partitions
        ]
        return self._judge(replace(facts, partitions=partitions), self._outbox_max)

    async def _refusals(self) -> dict[int, MeterError]:
        """Why partitions are not served, by number."""
        every = range(len(self._engine.partitions))
        return {number: error for number in every if (error := await self._refusal(number)) is not None}

    async def _refusal(self, number: int) -> MeterError | None:
        """Why a partition is not served."""
        try:
            await self._engine.run_many(number, (upkeep.clock(),))
        except MeterError as error:
            return error
        return None

    async def _run(self) -> None:
        while True:
            self._last = status = await self.look()
            for name, part in status.parts.items():
                self._tell(name, part)
            if not self._of_worker and not status.facts.redis_fault:
                await self._beat(status.facts)
            await self._show_partitions(status.facts.partitions)
            await asyncio.sleep(WORKER_LOOKS_EVERY_SECONDS if self._of_worker else LOOK_EVERY_SECONDS)

    async def _beat(self, facts: Facts) -> None:
        """Tells the others now and then that this sidecar serves."""
        if self._beat_at is not None and monotonic() - self._beat_at < SIDECAR_BEAT_SECONDS:
            return
        with suppress(RedisUnavailable):
            await self._presences.tell_sidecar(self.sidecar(facts.now_ms), facts.sidecars)
            self._beat_at = monotonic()

    async def _show_partitions(self, partitions: Sequence[PartitionFacts]) -> None:
        if self._see_partition is None:
            return
        for one in partitions:
            with suppress(MeterError):  # the next look tells of it
                await self._see_partition(one.number, one.state)

    def _tell(self, name: Name, part: Part) -> None:
        if part.state in ("unknown", "none", "high"):
            return
        if part.state == "ok":
            self._changes.tell(name, "ok", _BACK[name], part.figures, "info")
        elif name is not Name.WORKER or monotonic() - self._started_at >= MISSING_AFTER_SECONDS:
            event = _REFUSED[name] if part.state == "refuses" else _LOST[name]
            self._changes.tell(name, part.state, event, {"why": part.detail, **part.figures})

    async def _look(self) -> Status:
        store_fault, facts = await asyncio.gather(self._store_fault(), self._facts())
        word = store_fault.word if isinstance(store_fault, Unavailable) else "away"
        told = None if store_fault is None else str(store_fault)
        return self._judge(replace(facts, store_fault=told, store_word=word), self._outbox_max)

    async def _facts(self) -> Facts:
        try:
            now_ms = await self._presences.now_ms()
            workers, sidecars = await self._presences.everybody()
            partitions = [await self._partition(number) for number in range(len(self._engine.partitions))]
        except RedisUnavailable as error:
            return Facts(redis_fault=str(error), redis_word=error.word)
        clocks = [one.state.clock_ms for one in partitions if one.state and one.state.clock_ms is not None]
        return Facts("", partitions, now_ms, max(clocks, default=now_ms), None, workers, sidecars)

    async def _partition(self, number: int) -> PartitionFacts:
        keys = self._engine.partitions[number]
        state = await self._redis.partition_state(keys.meta)
        if state is None or state.state != "open":
            word = "missing" if state is None else state.state
            return PartitionFacts(number, state, f"partition {number} is not served: {word}")
        self._engine.opening.compare_with(state.ledger)
        if (state.epoch, state.seq) < self._engine.told(number)[:2]:
            # The script closes a partition that lost history; nobody may call before this process is gone, and with it
            # what it knows.
            refusal = await self._refusal(number)
            if refusal is not None:
                return PartitionFacts(number, state, str(refusal))
        oldest_ms = None
        if state.seq > state.flushed:
            with suppress(NewerEntry):  # the flush tells of it, and of an unreadable one
                for entry in await read_outbox(self._redis, keys.outbox, state.flushed + 1, 1):
                    oldest_ms = entry.created_at_ms if isinstance(entry, Entry) else None
        return PartitionFacts(number, state, "", oldest_ms)

    async def _store_fault(self) -> BaseException | str | None:
        """One ping at a time: those of a store that hangs would fill its pool of connections."""
        if self._ping_store is None:
            return None
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping(self._ping_store))
        done, _ = await asyncio.wait((self._pinging,), timeout=STORE_SECONDS_MAX)
        if not done:
            return f"The store has not answered within {STORE_SECONDS_MAX:g} s."
        error = self._pinging.exception()
        return error or ""

    @staticmethod
    async def _ping(ping: PingStore) -> None:
        await ping()
