"""Bears workers that are at work at once: a process with everything imported, which forks one for each line it reads.

Run by deployment.py. A worker so born is one of `meter worker`, but for the second that Python takes to import it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys

from meter.cli.starting import begin_log
from meter.config import load_settings
from meter.worker.run import run_worker

PR_SET_PDEATHSIG = 1


def main() -> None:
    settings = load_settings()
    store = settings.store_url.partition(":")[0]
    if store.startswith("postgres"):
        importlib.import_module("asyncpg")
    gc.freeze()
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.close(0)
            os.dup2(2, 1)  # standard output tells process ids and nothing else
            begin_log(settings)
            run_worker(settings)
            os._exit(0)
        # It is never waited for, so that its id is not another process's when it has ended by itself.
        print(pid, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
