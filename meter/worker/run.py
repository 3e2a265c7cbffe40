"""Runs arq's worker and starts it again when it ends by itself: arq exits when Redis restarts."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import cast

from arq.worker import Worker, create_worker
from redis.exceptions import RedisError

from meter.config import Settings
from meter.errors import Unavailable
from meter.heap import collect_garbage_rarely
from meter.log import logger
from meter.worker.context import Context, close_context
from meter.worker.schedule import worker_settings

RESTART_PAUSE_SECONDS = 1.0

_log = logger("meter.worker")


def run_worker(settings: Settings) -> None:
    """Runs until SIGINT or SIGTERM. Raises `ConfigError` for settings that Redis contradicts."""
    collect_garbage_rarely()
    os.nice(settings.worker_nice)  # a job with much to do would otherwise take the cores from who answers requests
    asyncio.run(_run_until_stopped(settings))


async def _run_until_stopped(settings: Settings) -> None:
    # Ours, not arq's: a signal that comes between two workers counts too.
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    stop = asyncio.create_task(stopped.wait())
    while not stop.done():
        worker = create_worker(worker_settings(settings), handle_signals=False)
        run = asyncio.create_task(worker.async_run())
        await asyncio.wait((run, stop), return_when=asyncio.FIRST_COMPLETED)
        run.cancel()
        await _close(worker)
        try:
            await run
        except (RedisError, OSError, Unavailable) as error:
            _log.warning("the worker lost Redis and starts again", why=f"{type(error).__name__}: {error}")
            await asyncio.wait((stop,), timeout=RESTART_PAUSE_SECONDS)
        except asyncio.CancelledError:
            continue


async def _close(worker: Worker) -> None:
    try:
        await worker.close()
    except (RedisError, OSError, asyncio.CancelledError):
        # arq's own clean-up needs the Redis that is gone, and takes a job that it cancelled for its own end
        await close_context(cast("Context", worker.ctx))
