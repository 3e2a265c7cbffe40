"""What each process of `meter serve --workers N` runs: uvicorn starts it by this name, in an interpreter of its own."""

from __future__ import annotations

from meter.app import create_app
from meter.config import load_settings
from meter.heap import collect_garbage_rarely
from meter.log import configure


def application() -> object:
    """The sidecar of one process, from the environment; its log is formatted as its parent's."""
    settings = load_settings()
    configure(settings.log_format, settings.log_level)
    app = create_app(settings)
    collect_garbage_rarely()
    return app
