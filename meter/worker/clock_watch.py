"""Follows the test clock: arq knows only the real one, and would start what has become due by its next tick."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from meter.engine.engine import Engine
from meter.jobs import Jobs
from meter.worker.runs import Runs

QUIET_ROUNDS = 4
"""Rounds without anything to do after which all is done; what one job makes reaches the next by way of the store, which
takes a moment.
"""


class ClockWatch:
    """Runs every job as soon as the test clock has moved, and again until none has anything to do."""

    def __init__(self, engine: Engine, jobs: Jobs, runs: Runs, moved: Callable[[], None] = lambda: None) -> None:
        """`moved` tells who has a pause of its own."""
        self._engine = engine
        self._jobs = jobs
        self._runs = runs
        self._moved = moved
        self._stands_at: int | None = None
        self._quiet = QUIET_ROUNDS

    async def step(self) -> bool:
        """Looks at the clock, and does a round if there is one to do; whether there was."""
        stands_at = await self._engine.clock_stands_at()
        if stands_at != self._stands_at:
            self._stands_at, self._quiet = stands_at, 0
            self._moved()
        if stands_at is None or self._quiet >= QUIET_ROUNDS:
            return False
        names = [name for name in self._jobs.names if name not in ("deliver", "top_up")]  # these go on all the time
        done = [await self._runs.run(name, partial(self._jobs.until_done, name)) for name in names]
        self._quiet = 0 if any(done) else self._quiet + 1
        return True
