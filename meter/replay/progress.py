"""Shows how far a run is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import Self

from rich import progress
from rich.console import Console

BAR_REFRESHES_PER_SECOND = 8
LINE_EVERY_SECONDS = 5.0


class Progress:
    """Counts steps; what it shows is refreshed from the event loop, not at each step."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._done = 0
        self._start = time.perf_counter()
        self._bar: progress.Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, rate="")
        self._ticker = asyncio.get_running_loop().create_task(self._tick())
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.cancel()
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """Counts one step."""
        self._done += 1

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_SECONDS if self._bar is None else 1 / BAR_REFRESHES_PER_SECOND)
            rate = f"{self._done / (time.perf_counter() - self._start):,.0f}/s"
            if self._bar is None:
                self._console.print(f"{self._what}: {self._done:,} of {self._total:,}, {rate}", highlight=False)
            else:
                self._bar.update(self._task, completed=self._done, rate=rate, refresh=True)
