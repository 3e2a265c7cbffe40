"""What each process of `meter serve --processes N` runs; uvicorn starts it by this name, in its own interpreter."""

from __future__ import annotations

import os
from pathlib import Path

from meter.api.siblings import FOLDER_VARIABLE
from meter.app import create_app
from meter.config import load_settings
from meter.heap import collect_garbage_rarely
from meter.log import configure


def application() -> object:
    """The sidecar of one process, from the environment; its log is formatted as its parent's."""
    settings = load_settings()
    configure(settings.log_format, settings.log_level)
    app = create_app(settings, processes_folder=Path(os.environ[FOLDER_VARIABLE]))
    collect_garbage_rarely()
    return app
