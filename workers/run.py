"""Runs arq's worker and starts it again when it ends by itself: arq exits when Redis restarts."""

from __future__ import annotations

import asyncio
from logging import getLogger
from typing import cast

from arq.worker import Worker, create_worker
from redis.exceptions import RedisError

from meter.config import Settings
from meter.errors import Unavailable
from workers.context import Context, close_context
from workers.schedule import worker_settings

RESTART_PAUSE_SECONDS = 1.0

_log = getLogger("meter.worker")


def run_worker(settings: Settings) -> None:
    """Runs until SIGINT or SIGTERM. Raises `ConfigError` for settings that Redis contradicts."""
    asyncio.run(_run_until_stopped(settings))


async def _run_until_stopped(settings: Settings) -> None:
    while True:
        worker = create_worker(worker_settings(settings))
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            return  # a signal: arq cancels its own main task
        except (RedisError, OSError, Unavailable) as error:
            _log.warning("the worker lost Redis and starts again: %s: %s", type(error).__name__, error)
        finally:
            await _close(worker)
        await asyncio.sleep(RESTART_PAUSE_SECONDS)


async def _close(worker: Worker) -> None:
    try:
        await worker.close()
    except (RedisError, OSError):  # arq's own clean-up needs the Redis that is gone
        await close_context(cast("Context", worker.ctx))
