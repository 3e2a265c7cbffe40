"""arq's entry point: `arq meter.worker.settings.WorkerSettings`. `meter worker` runs the same jobs under supervision.

Settings are read when arq imports this module; that is the only way arq knows.
"""

from __future__ import annotations

from meter.config import load_settings
from meter.heap import collect_garbage_rarely
from meter.worker.schedule import worker_settings

WorkerSettings = worker_settings(load_settings())
collect_garbage_rarely()
