"""What goes on all the time in the worker process, beside arq: a step again and again, with a pause between.

arq is not the place for it: it cuts a job off after its time, repeats a killed one late and a killed cron run never.
Nor is a retry library: a step has no end to reach, and a fault is told once, not at each try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meter.errors import MeterError, Unavailable
from meter.log import Changes, logger

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 5.0
CANCEL_AGAIN_SECONDS = 0.5

_log = logger("meter.worker")


class Loop:
    """Runs `step` for ever. One that fails is tried again, more and more slowly, and told once until it works again."""

    def __init__(self, name: str, step: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
        self._name = name
        self._step = step
        self._pause_seconds = pause_seconds
        self._changes = Changes(_log)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it, in the running event loop."""
        self._task = asyncio.create_task(self._run(), name=f"meter-{self._name}")

    async def close(self) -> None:
        """Ends it, in the middle of a step if need be."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # once is not enough: asyncio.wait_for can lose a cancellation in 3.11
            await asyncio.wait((self._task,), timeout=CANCEL_AGAIN_SECONDS)

    async def _run(self) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        while True:
            try:
                await self._step()
            except Exception as error:  # whatever it is, the next step starts afresh
                self._tell(error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)
            else:
                self._changes.tell("step", "ok", "it works again", {"step": self._name}, "info")
                backoff = BACKOFF_FIRST_SECONDS
                await asyncio.sleep(self._pause_seconds)

    def _tell(self, error: Exception) -> None:
        fault = f"{type(error).__name__}: {error}"
        trace = {} if isinstance(error, MeterError) else {"exc_info": error}
        state = error.word if isinstance(error, Unavailable) else fault  # by whatever words
        self._changes.tell("step", state, "it failed, and is tried again", {"step": self._name, "why": fault, **trace})
