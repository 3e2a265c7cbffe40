"""Runs the proxy on uvicorn."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn

from meter.client.over_http import MeterClient
from meter.config import Settings
from meter.heap import collect_garbage_rarely
from meter.in_process import Meter
from meter.proxy.app import Proxy
from meter.proxy.gathered import GatheredProtocol
from meter.proxy.options import ProxyOptions

GRACE_SECONDS = 30
"""How long exchanges may go on after the signal to stop; then they are cut off, and charged for what was seen."""
KEEP_ALIVE_SECONDS = 75


def proxy_of(settings: Settings, options: ProxyOptions, stopping: Callable[[], bool] = lambda: False) -> Proxy:
    """The proxy with its own meter: over HTTP with `options.meter_url`, else in this process."""
    meter = (
        Meter(settings) if options.meter_url is None else MeterClient(options.meter_url, api_key=options.meter_key())
    )
    return Proxy(options, meter, owned=meter, stopping=stopping)


def server_of(proxy: Proxy, options: ProxyOptions) -> uvicorn.Server:
    """A server for a proxy. Headers of the upstream go out as they are, and none of the client is believed."""
    return uvicorn.Server(
        uvicorn.Config(
            proxy,
            host=options.host,
            port=options.port,
            uds=None if options.uds is None else str(options.uds),
            http=GatheredProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,  # ours, see meter/log.py
            log_level="warning",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def run_proxy(settings: Settings, options: ProxyOptions) -> None:
    """Serves until it is told to stop. Raises `ConfigError` when Redis holds partitions made with other settings."""
    server: uvicorn.Server
    server = server_of(proxy_of(settings, options, lambda: server.should_exit), options)
    collect_garbage_rarely()
    server.run()
