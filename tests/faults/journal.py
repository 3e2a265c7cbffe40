"""A client's own record: lines on disk, fsynced together; tests/faults/checker/history.py has what they say."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path


class Journal:
    """Appends lines. A line that was waited for is on the disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, **members: object) -> None:
        """Returns when the line is on the disk. It gets the time, in milliseconds."""
        line = json.dumps({**members, "at": time.time_ns() // 1_000_000}).encode() + b"\n"
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((line, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    def close(self) -> None:
        """After the last line."""
        self._file.close()

    async def _write(self) -> None:
        while self._waiting:
            lines, self._waiting = self._waiting, []
            await asyncio.to_thread(self._put, b"".join(line for line, _ in lines))
            for _, done in lines:
                if not done.done():
                    done.set_result(None)
        self._writing = None

    def _put(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()
        os.fdatasync(self._file.fileno())
