"""Runs the worker process: the flush and the deliveries for as long as it lives, and arq beside them, which is started
again when it ends by itself (it exits when its Redis restarts).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

from arq.worker import Worker, create_worker
from redis.exceptions import RedisError

from meter.config import Settings
from meter.engine.redis_faults import fault_of
from meter.errors import RedisDenied, Unavailable
from meter.event_loop import loop_factory
from meter.heap import collect_garbage_rarely
from meter.log import Changes, logger, without_password
from meter.runtime import Runtime
from meter.worker.beat import Beat
from meter.worker.context import Context, close_context, open_context
from meter.worker.probes import ProbeServer
from meter.worker.queue import queue_variable
from meter.worker.schedule import worker_settings

RESTART_PAUSE_SECONDS = 1.0

_log = logger("meter.worker")


def run_worker(settings: Settings) -> None:
    """Runs until SIGINT or SIGTERM. Raises `ConfigError` for settings that Redis contradicts."""
    collect_garbage_rarely()
    os.nice(settings.worker_nice)  # a job with much to do would otherwise take the cores from who answers requests
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run_until_stopped(settings))


async def _run_until_stopped(settings: Settings) -> None:
    # Ours, not arq's: a signal that comes between two workers counts too.
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    stop = asyncio.create_task(stopped.wait())
    async with AsyncExitStack() as stack:
        ctx: Context = {}
        stack.push_async_callback(close_context, ctx)
        await open_context(ctx, Runtime(settings, role="worker"))
        beat = Beat(ctx)
        stack.push_async_callback(beat.close)
        beat.start()
        if settings.worker_port:
            server = ProbeServer(settings, ctx["runtime"], lambda: beat.worker(time.time_ns() // 1_000_000))
            stack.push_async_callback(server.close)
            server.start()
        await _run_arq(settings, ctx, stop)


async def _run_arq(settings: Settings, ctx: Context, stop: asyncio.Task[bool]) -> None:
    """One arq worker after the other, until `stop` is done."""
    changes = Changes(_log)
    queue = {"queue": without_password(settings.arq_url)}
    while not stop.done():
        worker = create_worker(worker_settings(settings, ctx), handle_signals=False)
        run = asyncio.create_task(worker.async_run())
        done, _ = await asyncio.wait((run, stop), timeout=RESTART_PAUSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            changes.tell("queue", "ok", "jobs run again", queue, "info")
            await asyncio.wait((run, stop), return_when=asyncio.FIRST_COMPLETED)
        run.cancel()
        await _close(worker)
        try:
            await run
        except (RedisError, OSError, Unavailable) as error:
            fault = error if isinstance(error, Unavailable) else fault_of(error, queue_variable(settings))
            why = {"why": str(fault), **queue}
            if isinstance(fault, RedisDenied):
                changes.tell("queue", "refuses", "jobs wait: their queue's Redis refuses us", why)
            else:
                changes.tell("queue", "away", "jobs wait: their queue's Redis is away; the flush does not need it", why)
            await asyncio.wait((stop,), timeout=RESTART_PAUSE_SECONDS)
        except asyncio.CancelledError:
            continue


async def _close(worker: Worker) -> None:
    """arq's own clean-up needs the Redis that may be gone, and takes a job that it cancelled for its own end."""
    try:
        await worker.close()
    except (RedisError, OSError, asyncio.CancelledError):
        return
