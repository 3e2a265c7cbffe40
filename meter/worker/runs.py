"""Runs of jobs: none beside another run of the same job, each within its time, counted, and what fails told once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from meter.errors import MeterError, Unavailable
from meter.health.presence import JobRuns
from meter.log import Changes, logger

RUN_SECONDS_MAX = 50.0

_log = logger("meter.worker")


@dataclass(slots=True)
class _Counts:
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended_at: float | None = None
    error: str = ""


class Runs:
    """The runs of one process. A job that fails is no failure of arq's: it runs again when its time comes."""

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        """`ended` is told of the end of each run."""
        self._ended = ended
        self._counts: dict[str, _Counts] = {}
        self._running: set[str] = set()
        self._changes = Changes(_log)

    async def run(self, name: str, job: Callable[[], Awaitable[int]]) -> int:
        """Runs a job and answers what it answers; 0 when it fails, or when its last run still goes on: two at once
        would do all the same work.
        """
        if name in self._running:
            return 0
        self._running.add(name)
        counts, started = self._counts.setdefault(name, _Counts()), time.monotonic()
        try:
            async with asyncio.timeout(RUN_SECONDS_MAX):
                made = await job()
        except asyncio.CancelledError:
            raise  # the worker stops
        except Exception as error:  # of any kind: the other jobs go on
            counts.failed += 1
            counts.error = self._failed(name, error)
            return 0
        else:
            counts.done += 1
            self._works(name)
            return made
        finally:
            self._running.discard(name)
            counts.ended_at = time.monotonic()
            counts.seconds += counts.ended_at - started
            self._ended()

    @property
    def seen(self) -> Collection[str]:
        """The jobs that have run."""
        return self._counts.keys()

    def nothing_due(self, name: str) -> None:
        """Counts a run that was left out, because it would have found nothing to do."""
        counts = self._counts.setdefault(name, _Counts())
        counts.done += 1
        counts.ended_at = time.monotonic()
        self._works(name)

    def told(self, now_ms: int) -> dict[str, JobRuns]:
        """What was counted, with times on the clock that says `now_ms`."""
        return {
            name: JobRuns(
                done=one.done,
                failed=one.failed,
                seconds=round(one.seconds, 3),
                ended_at_ms=0 if one.ended_at is None else now_ms - int(1000 * (time.monotonic() - one.ended_at)),
                error=one.error,
            )
            for name, one in self._counts.items()
        }

    def _works(self, name: str) -> None:
        self._changes.tell(name, "ok", "the job works again", {"job": name}, "info")

    def _failed(self, name: str, error: Exception) -> str:
        """One line, by whatever words: an outage has many. With its trace only what is a fault of ours."""
        is_late = isinstance(error, TimeoutError)
        why = f"took longer than {RUN_SECONDS_MAX:g} s" if is_late else f"{type(error).__name__}: {error}"
        trace = {} if is_late or isinstance(error, MeterError) else {"exc_info": error}
        state = error.word if isinstance(error, Unavailable) else why
        self._changes.tell(name, state, "the job failed and runs again later", {"job": name, "why": why, **trace})
        return why[:200]
