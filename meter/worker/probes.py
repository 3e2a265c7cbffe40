"""The worker's own `/livez`, `/readyz` and `/metrics`, on a port of their own when `METER_WORKER_PORT` names one."""

from __future__ import annotations

from collections.abc import Callable

from meter.api.metrics import Metrics
from meter.api.probes import Probes
from meter.api.routes import application_of, routes
from meter.config import Settings
from meter.errors import ConfigError
from meter.health.presence import Worker
from meter.http.side_server import SideServer
from meter.runtime import Runtime

BODY_BYTES_MAX = 0


class ProbeServer:
    """Serves what orchestrators and Prometheus ask for. `told` is what this worker counted, now. Raises `ConfigError`
    for a port that cannot be had.
    """

    def __init__(self, settings: Settings, runtime: Runtime, told: Callable[[], Worker]) -> None:
        engine = runtime.engine
        metrics = Metrics(engine.counts, lambda: engine.waiting)
        probes = Probes(runtime.watch, metrics, told)
        table = [
            ("GET", "/livez", probes.livez),
            ("GET", "/readyz", probes.readyz),
            ("GET", "/metrics", probes.metrics),
        ]
        app = application_of(routes(table, BODY_BYTES_MAX))
        try:
            self._server = SideServer(app, settings.worker_host, settings.worker_port)
        except OSError as error:
            raise ConfigError(f"METER_WORKER_PORT={settings.worker_port}: {error.strerror}") from None

    def start(self) -> None:
        """Begins to serve."""
        self._server.start()

    async def close(self) -> None:
        """Ends it."""
        await self._server.close()
