"""A TCP relay in front of the sidecar: counts its connections, and can be shut (refuses) or stuck (never answers)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from tests.api.sidecar import DEADLINE_SECONDS


class Valve:
    """Relays to the sidecar on `target`. Its own port stays the same when it is shut and opened again."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.requests = 0
        self.stuck = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def open(self) -> None:
        """Listens."""
        self._run(self._open())

    def shut(self) -> None:
        """Refuses connections and breaks those that are open."""
        self._run(self._shut())

    def reset(self) -> None:
        """Lets everything through, and forgets what was counted, so that a test counts its own."""
        self._run(self._open())
        self.connections = self.requests = 0
        self.stuck = False

    def start(self) -> None:
        self._thread.start()
        self.open()

    def stop(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_SECONDS)

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DEADLINE_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, to_writer}
        try:
            await asyncio.gather(
                self._relay(reader, to_writer, request=True), self._relay(to_reader, writer, request=False)
            )
        finally:
            self._writers -= {writer, to_writer}
            writer.close()
            to_writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, request: bool) -> None:
        try:
            while chunk := await reader.read(65536):
                while self.stuck:
                    await asyncio.sleep(0.01)
                self.requests += request
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@contextmanager
def running_valve(target: int) -> Iterator[Valve]:
    """A valve that is open."""
    valve = Valve(target)
    valve.start()
    try:
        yield valve
    finally:
        valve.stuck = False
        valve.stop()
