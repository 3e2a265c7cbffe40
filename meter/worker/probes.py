"""The worker's own `/livez`, `/readyz` and `/metrics`, on a port of their own when `METER_WORKER_PORT` names one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from meter.api.metrics import Metrics
from meter.api.probes import Probes
from meter.api.routes import application_of, routes
from meter.config import Settings
from meter.health.presence import Worker
from meter.runtime import Runtime

BODY_BYTES_MAX = 0
GRACE_SECONDS = 2


class ProbeServer:
    """Serves what orchestrators and Prometheus ask for. `told` is what this worker counted, now."""

    def __init__(self, settings: Settings, runtime: Runtime, told: Callable[[], Worker]) -> None:
        engine = runtime.engine
        metrics = Metrics(engine.counts, lambda: engine.waiting)
        probes = Probes(runtime.watch, metrics, told)
        table = [
            ("GET", "/livez", probes.livez),
            ("GET", "/readyz", probes.readyz),
            ("GET", "/metrics", probes.metrics),
        ]
        config = uvicorn.Config(
            application_of(routes(table, BODY_BYTES_MAX)),
            host=settings.worker_host,
            port=settings.worker_port,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to serve."""
        self._task = asyncio.create_task(self._server.serve(), name="meter-worker-probes")

    async def close(self) -> None:
        """Ends it."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class _Server(uvicorn.Server):
    """Leaves signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
