"""The proxy's own `/livez`, `/readyz` and `/metrics`, on a port of their own: its paths are the upstream's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from meter.api.metrics import Metrics
from meter.api.routes import application_of, routes
from meter.client.credits import Credits
from meter.errors import ConfigError, Unavailable
from meter.http.exchange import Request
from meter.http.rendered import Rendered, problem
from meter.http.side_server import SideServer
from meter.log import logger
from meter.proxy.counts import ProxyCounts
from meter.proxy.options import ProxyOptions

NOBODY = "meter-probe"
"""Whose balance is asked for: reading it changes nothing."""
_OK = b'{"status":"ok"}'

_log = logger("meter.proxy")


class ProxyProbes:
    """Serves them while the proxy runs, as its options say."""

    def __init__(
        self,
        options: ProxyOptions,
        credits_: Credits,
        counts: ProxyCounts,
        stopping: Callable[[], bool],
        unread: Mapping[tuple[str, ...], int],
    ) -> None:
        """`stopping`: whether the proxy takes no new requests any more."""
        self._options = options
        self._credits = credits_
        self._stopping = stopping
        self._metrics = Metrics((), lambda: 0)
        counts.show(self._metrics, unread)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Raises `ConfigError` for a port that was asked for and cannot be had."""
        server = self._server()
        if server is None:
            yield
            return
        server.start()
        _log.info("probes are served", address=f"http://{self._options.probes_host}:{server.port}/readyz")
        try:
            yield
        finally:
            await server.close()

    async def livez(self, _: Request) -> Rendered:
        """The process answers; says nothing about the meter, so that an outage there does not restart us."""
        return Rendered(200, _OK)

    async def readyz(self, _: Request) -> Rendered:
        """200 while requests can be decided; with --fail=open, "degraded" while they are served unmetered. The upstream
        does not count: when it is away, no other proxy could do better.
        """
        if self._stopping():
            return problem("metering-unavailable", "The proxy is shutting down.", '"reason":"draining"')
        try:
            await self._credits.balance(NOBODY)
        except Unavailable as error:
            if self._options.fail == "open":
                return Rendered(200, b'{"status":"degraded"}')
            return problem("metering-unavailable", str(error), f'"reason":"{error.reason}"')
        return Rendered(200, _OK)

    async def metrics(self, request: Request) -> Rendered:
        """What this process counted, for Prometheus."""
        body, content_type = self._metrics.render(request.headers.get(b"accept", b"").decode("latin-1"))
        return Rendered(200, body, content_type.encode())

    def _server(self) -> SideServer | None:
        options = self._options
        port = options.probes_port
        if port is None:
            port = 0 if options.uds or not options.port else options.port + 1
        if not port:
            return None
        table = [("GET", "/livez", self.livez), ("GET", "/readyz", self.readyz), ("GET", "/metrics", self.metrics)]
        try:
            return SideServer(application_of(routes(table, 0)), options.probes_host, port)
        except OSError as error:
            fault = f"--probes-port={port}: {error.strerror}; name a free port, or 0 for no probes"
            if options.probes_port is not None:
                raise ConfigError(f"meter proxy: {fault}") from None
            _log.warning("no probes are served", why=fault)
            return None
