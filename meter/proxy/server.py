"""Runs the proxy on uvicorn."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import uvicorn

from meter.client.over_http import MeterClient
from meter.config import Settings
from meter.heap import collect_garbage_rarely
from meter.http.draining import Drain
from meter.in_process import Meter
from meter.proxy.app import Proxy
from meter.proxy.gathered import GatheredProtocol
from meter.proxy.options import ProxyOptions

KEEP_ALIVE_SECONDS = 75


def proxy_of(
    settings: Settings, options: ProxyOptions, stopping: Callable[[], bool] = lambda: False, drain: Drain | None = None
) -> Proxy:
    """The proxy with its own meter: over HTTP with `options.meter_url`, else in this process."""
    meter = (
        Meter(settings) if options.meter_url is None else MeterClient(options.meter_url, api_key=options.meter_key())
    )
    return Proxy(options, meter, owned=meter, stopping=stopping, drain=drain)


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
            timeout_graceful_shutdown=ceil(options.grace_seconds),
        )
    )


def run_proxy(settings: Settings, options: ProxyOptions) -> None:
    """Serves until it is told to stop. Raises `ConfigError` when Redis holds partitions made with other settings."""
    server: uvicorn.Server
    drain = Drain(settings.drain_seconds)

    def stopping() -> bool:
        return server.should_exit or drain.seconds_left is not None

    server = server_of(proxy_of(settings, options, stopping, drain), options)
    collect_garbage_rarely()
    server.run()
