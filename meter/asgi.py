"""The sidecar as `meter.asgi:app`, for any ASGI server that imports its application; reads `METER_*`."""

from __future__ import annotations

from meter.app import create_app
from meter.config import load_settings
from meter.heap import collect_garbage_rarely

app = create_app(load_settings())
collect_garbage_rarely()
