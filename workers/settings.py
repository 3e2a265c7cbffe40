"""arq's entry point in a checkout: `arq workers.settings.WorkerSettings`. What it runs is in `meter/worker/`.

Of a wheel it is `arq meter.worker.settings.WorkerSettings`; `meter worker` runs the same jobs under supervision.
"""

from __future__ import annotations

from meter.worker.settings import WorkerSettings

__all__ = ["WorkerSettings"]
