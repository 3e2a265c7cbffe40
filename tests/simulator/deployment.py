"""What is deployed in a run: sidecars, each the application itself, asked as an ASGI server asks it, and workers, each
the flushers and the jobs without arq.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fakeredis

from meter.app import application_of, parts_of
from meter.config import Settings
from meter.errors import MeterError
from meter.runtime import Role, Runtime
from meter.store.base import Store
from meter.worker.context import Context, open_context
from tests.faults.workload import Operation
from tests.simulator.processes import Fate, Gone, MortalRedis, MortalStore, Process

PATIENCE_SECONDS = 6.0
"""Of a client that waits for an answer."""
RESTART_SECONDS = 2.0
JOBS_EVERY_SECONDS = 1.0
JOBS = ("expire", "allocate", "pending", "rotate")


@dataclass(frozen=True)
class Ground:
    """What outlives every process."""

    server: fakeredis.FakeServer
    store: Store
    fate: Fate
    settings: Settings

    def runtime(self, process: Process, role: Role) -> Runtime:
        """What a process runs on."""
        store: Any = MortalStore(self.store, process, self.fate)
        return Runtime(self.settings, MortalRedis(self.server, process, self.fate), store, role=role)


class Sidecar:
    """Serves; begins anew after a crash."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._name = ground, name
        self._process: Process | None = None
        self._app: Any = None

    async def live(self) -> None:
        """One process after the other."""
        while True:
            process = Process(self._name)
            runtime = self._ground.runtime(process, "sidecar")
            self._app, self._process = application_of(parts_of(runtime)), process
            process.start(_unless_gone(runtime.start()))
            await process.ended.wait()
            self._process = None
            await asyncio.sleep(RESTART_SECONDS)

    async def call(self, operation: Operation) -> tuple[int, str]:
        """Status and text; 0 where nobody can say."""
        process = self._process
        if process is None:
            return 0, ""
        asked = process.start(_ask(self._app, operation))
        ended = asyncio.ensure_future(process.ended.wait())
        done, _ = await asyncio.wait((asked, ended), timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if asked in done and not asked.cancelled() and asked.exception() is None:
            return asked.result()
        asked.cancel()
        return 0, ""


class Worker:
    """Flushes and does the jobs; begins anew after a crash."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._ground, self._name = ground, name

    async def live(self) -> None:
        """One process after the other."""
        while True:
            process = Process(self._name)
            process.start(_unless_gone(self._work(self._ground.runtime(process, "worker"))))
            await process.ended.wait()
            await asyncio.sleep(RESTART_SECONDS)

    async def _work(self, runtime: Runtime) -> None:
        context: Context = {}
        await open_context(context, runtime)
        jobs = context["jobs"]
        while True:
            for name in JOBS:
                with suppress(MeterError):  # what is away is tried again
                    await jobs.by_name[name]()
            await asyncio.sleep(JOBS_EVERY_SECONDS)


async def _unless_gone(starts: Any) -> None:
    with suppress(Gone):
        await starts


async def _ask(app: Any, operation: Operation) -> tuple[int, str]:
    """One request to an ASGI application."""
    body = json.dumps(operation.body).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    headers += [(b"idempotency-key", operation.key.encode())] if operation.key else []
    scope = {"type": "http", "http_version": "1.1", "method": operation.method, "scheme": "http", "query_string": b""}
    scope |= {"path": operation.path, "raw_path": operation.path.encode(), "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000)}
    asked, sent = [{"type": "http.request", "body": body}], []

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], text.decode()
