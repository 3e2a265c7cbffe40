"""Tells Redis every few seconds that this worker is there, and what it has done (meter/health/presence.py)."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from importlib.metadata import version

from meter.errors import RedisUnavailable
from meter.health.presence import BEAT_SECONDS, Presences, Worker, process_id
from meter.worker.context import Context

GOODBYE_SECONDS_MAX = 1.0
TELL_AGAIN_SECONDS = 600.0
"""How old what is told may be while nothing happens: only times and counts of runs that found nothing to do change."""
CLOCKS_APART_MS = 1000
"""How far the two clocks may drift before times are told anew."""


class Beat:
    """The presence of one worker process."""

    def __init__(self, ctx: Context) -> None:
        settings = ctx["runtime"].settings
        self._ctx = ctx
        self._presences = Presences(ctx["runtime"].redis, settings.key_prefix)
        self._worker_id = process_id()
        self._started = time.monotonic()
        self._zero_ms: int | None = None
        self._told: Worker | None = None
        self._told_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to tell."""
        self._task = asyncio.create_task(self._run(), name="meter-beat")

    async def close(self) -> None:
        """Says goodbye, if Redis is there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(RedisUnavailable, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                await self._tell(stopped=True)

    def worker(self, now_ms: int, *, stopped: bool = False) -> Worker:
        """What there is to tell at a time of Redis' clock."""

        zero_ms = self._zero_of(now_ms)

        def at_ms(moment: float) -> int:
            return zero_ms + int(1000 * moment)

        supervisor, dispatcher = self._ctx["supervisor"], self._ctx.get("dispatcher")
        flushers = [] if supervisor is None else supervisor.flushers
        failures = [] if supervisor is None else supervisor.failures
        return Worker(
            worker_id=self._worker_id,
            version=version("meter-sidecar"),
            started_at_ms=at_ms(self._started),
            seen_at_ms=now_ms,
            stopped=stopped,
            flushed_at_ms={n: at_ms(one.flushed_at) for n, one in enumerate(flushers) if one.flushed_at is not None},
            flush_failures={n: count for n, count in enumerate(failures) if count},
            jobs=self._ctx["runs"].told(now_ms),
            deliveries={} if dispatcher is None else dict(dispatcher.counts.attempts),
            top_ups=dict(self._ctx["jobs"].bought),
            set_aside=dict(self._ctx["jobs"].set_aside),
        )

    async def _run(self) -> None:
        while True:
            with suppress(RedisUnavailable):  # the watch tells of it
                await self._tell()
            await asyncio.sleep(BEAT_SECONDS)

    async def _tell(self, *, stopped: bool = False) -> None:
        """All of it when something happened, else only that this worker is there."""
        now_ms = await self._presences.now_ms()
        worker = self.worker(now_ms, stopped=stopped)
        happened, now = _what_happened(worker), time.monotonic()
        if happened == self._told and now - self._told_at < TELL_AGAIN_SECONDS:
            await self._presences.beat(self._worker_id, now_ms)
            return
        await self._presences.tell(worker)
        self._told, self._told_at = happened, now

    def _zero_of(self, now_ms: int) -> int:
        """The time on the clock that says `now_ms` when `time.monotonic` was 0; the same as long as they agree, so that
        what has not changed is told alike.
        """
        zero_ms = now_ms - int(1000 * time.monotonic())
        if self._zero_ms is None or abs(zero_ms - self._zero_ms) > CLOCKS_APART_MS:
            self._zero_ms = zero_ms
        return self._zero_ms


def _what_happened(worker: Worker) -> Worker:
    """What a worker tells, without what changes while it rests."""
    changing = {"done": 0, "seconds": 0.0, "ended_at_ms": 0}
    jobs = {name: one.model_copy(update=changing) for name, one in worker.jobs.items()}
    return worker.model_copy(update={"seen_at_ms": 0, "jobs": jobs})
