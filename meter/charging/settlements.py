"""The end of holds, in the background: done in tasks of their own, so that no client that leaves and no request that is
cancelled takes the settlement along, and tried again while nobody can decide, within bounds. A retry library repeats a
call for its caller; here nobody waits, those that do are counted, and closing lets them finish.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from meter.errors import Unavailable
from meter.log import logger

RETRY_SECONDS_MAX = 3600.0
"""How long a settlement that was not decided is tried again: as long as a commit that comes late is taken by default
(`METER_LATE_COMMIT_GRACE_SECONDS`). Afterwards the hold has ended by itself."""
RETRY_PAUSE_SECONDS = 0.1
RETRY_PAUSE_SECONDS_MAX = 5.0
WAITING_MAX = 10_000
"""Settlements that wait to be tried again (about 2 KB each); one too many is given up, and its hold ends by itself."""
DRAIN_SECONDS = 10.0

_T = TypeVar("_T")
_log = logger("meter.charging")


class BackgroundSettlements:
    """Settles holds of one event loop. `drain` it before what it settles with is closed."""

    def __init__(self, given_up: Callable[[], None] = lambda: None) -> None:
        """`given_up` is told of each settlement that was not made."""
        self._given_up = given_up
        self._tasks: set[asyncio.Task[object]] = set()
        self._waiting = 0
        self._draining = asyncio.Event()

    def spawn(self, work: Coroutine[None, None, _T]) -> asyncio.Task[_T]:
        """Runs work that must not be lost: nobody else needs to keep the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def settle(self, attempt: Callable[[], Awaitable[_T]], what: str) -> asyncio.Task[_T | None]:
        """Runs `attempt` until it does not raise `Unavailable`; doing it twice must do it once. The task never raises;
        None when nobody could say. `what` is for the log.
        """
        return self.spawn(self._settle(attempt, what))

    async def pause(self, seconds: float) -> bool:
        """Waits; true when this is being drained, and there is no use in waiting for better times."""
        try:
            await asyncio.wait_for(self._draining.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def drain(self, seconds: float | None = None) -> None:
        """Waits for what is under way, but no longer than that (`DRAIN_SECONDS`). Nothing is settled afterwards."""
        seconds = DRAIN_SECONDS if seconds is None else seconds
        self._draining.set()
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            _log.error(
                "%d settlements were still undecided after %g s; their holds end by themselves", len(late), seconds
            )

    async def _settle(self, attempt: Callable[[], Awaitable[_T]], what: str) -> _T | None:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + RETRY_SECONDS_MAX, RETRY_PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                if loop.time() + pause > deadline or self._waiting >= WAITING_MAX:
                    _log.error("%s was not settled, its hold ends by itself: %s", what, error)
                    break
            except Exception:
                _log.exception("%s was not settled", what)
                break
            await self._wait(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_PAUSE_SECONDS_MAX)
        self._given_up()
        return None

    async def _wait(self, seconds: float) -> None:
        """Not all at once, when what was away comes back."""
        self._waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting -= 1
