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
IDLE_STEPS_MAX = 20
"""Steps in a row that find nothing to do before the longer pause: what comes in a group is met with the short one."""

_log = logger("meter.worker")


class Loop:
    """Runs `step` for ever. One that fails is tried again, more and more slowly, and told once until it works again.

    A step answers whether it found anything to do. When a while none did, the pause is `rest_seconds`, until `wake`.
    """

    def __init__(
        self, name: str, step: Callable[[], Awaitable[bool]], pause_seconds: float, rest_seconds: float | None = None
    ) -> None:
        self._name = name
        self._step = step
        self._pause_seconds = pause_seconds
        self._rest_seconds = pause_seconds if rest_seconds is None else rest_seconds
        self._woken = asyncio.Event()
        self._changes = Changes(_log)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it, in the running event loop."""
        self._task = asyncio.create_task(self._run(), name=f"meter-{self._name}")

    def wake(self) -> None:
        """Ends the pause: there may be something to do."""
        self._woken.set()

    async def close(self) -> None:
        """Ends it, in the middle of a step if need be."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # once is not enough: asyncio.wait_for can lose a cancellation in 3.11
            await asyncio.wait((self._task,), timeout=CANCEL_AGAIN_SECONDS)

    async def _run(self) -> None:
        backoff, idle = BACKOFF_FIRST_SECONDS, 0
        while True:
            self._woken.clear()
            try:
                is_busy = await self._step()
            except Exception as error:  # whatever it is, the next step starts afresh
                self._tell(error)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)
            else:
                self._changes.tell("step", "ok", "it works again", {"step": self._name}, "info")
                backoff = BACKOFF_FIRST_SECONDS
                idle = 0 if is_busy else idle + 1
                if await self._wait(self._rest_seconds if idle > IDLE_STEPS_MAX else self._pause_seconds):
                    idle = 0

    async def _wait(self, seconds: float) -> bool:
        """Whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False

    def _tell(self, error: Exception) -> None:
        fault = f"{type(error).__name__}: {error}"
        trace = {} if isinstance(error, MeterError) else {"exc_info": error}
        state = error.word if isinstance(error, Unavailable) else fault  # by whatever words
        self._changes.tell("step", state, "it failed, and is tried again", {"step": self._name, "why": fault, **trace})
