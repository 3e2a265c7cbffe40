"""`meter proxy`: a reverse proxy that meters any upstream.

    client ──> meter proxy ──> upstream

Reserve, forward, read the usage off the response as it streams by, commit. Nothing is buffered and nothing is decoded
on the way. `run_proxy` runs it; `Proxy` is the ASGI application.
"""

from __future__ import annotations

from meter.proxy.app import Proxy
from meter.proxy.options import ProxyOptions, parse_statuses
from meter.proxy.server import run_proxy

__all__ = ["Proxy", "ProxyOptions", "parse_statuses", "run_proxy"]
