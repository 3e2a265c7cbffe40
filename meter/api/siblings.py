"""The processes of one `meter serve --processes N`, which share an address, so that whoever asks reaches one of them.

Each has a number, the lowest that is free: a lock on a file, which the kernel lets go when a process dies, however it
does. On a unix socket of that number it tells the others what it counted; who is asked for metrics asks them. A process
whose parent was killed would serve on with nobody to end it, so it ends itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Self

from meter.log import logger

FOLDER_VARIABLE = "_METER_PROCESSES"
"""Where a process finds the folder of its siblings. Set by `meter serve` for its own children only."""
ANSWER_SECONDS = 1.0
"""One that does not tell by then is left out of this scrape."""
LOOK_SECONDS = 1.0

_log = logger("meter")


class Siblings:
    """`async with` it. `told` is what this process counted, as the others get it."""

    def __init__(self, folder: Path, told: Callable[[], bytes]) -> None:
        self._folder = folder
        self._told = told
        self._lock: IO[bytes] | None = None
        self.number = 0

    async def __aenter__(self) -> Self:
        self.number, self._lock = self._claim()
        path = self._socket(self.number)
        path.unlink(missing_ok=True)  # of the process that had the number and was killed
        self._server = await asyncio.start_unix_server(self._tell, str(path))
        self._watch = asyncio.create_task(self._end_with_parent(os.getppid()), name="meter-parent")
        _log.info("a process serves", process=self.number, pid=os.getpid())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        self._server.close()
        self._socket(self.number).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    async def told(self) -> Mapping[int, bytes]:
        """What every process counted, by its number."""
        others = [int(path.stem) for path in self._folder.glob("*.sock") if path.stem != str(self.number)]
        texts = await asyncio.gather(*map(self._ask, others))
        found = {number: text for number, text in zip(others, texts, strict=True) if text}
        return {**found, self.number: self._told()}

    async def _ask(self, number: int) -> bytes:
        with suppress(OSError, TimeoutError):  # it has gone, or is going
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._socket(number)))
                try:
                    return await reader.read()
                finally:
                    writer.close()
        return b""

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(self._told())
            await writer.drain()
        writer.close()

    def _claim(self) -> tuple[int, IO[bytes]]:
        for number in count():
            lock = (self._folder / f"{number}.lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
            else:
                return number, lock
        raise AssertionError("numbers do not end")

    def _socket(self, number: int) -> Path:
        return self._folder / f"{number}.sock"

    async def _end_with_parent(self, parent: int) -> None:
        while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(LOOK_SECONDS)
        _log.error("the process that started this one has gone, so it ends", process=self.number)
        signal.raise_signal(signal.SIGTERM)
