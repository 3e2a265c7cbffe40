"""Which jobs the worker process runs and when, in arq's terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import wraps
from typing import TYPE_CHECKING, cast

import orjson
from arq import cron
from arq.cron import CronJob

from meter.config import Settings
from meter.runtime import Runtime
from meter.worker.context import Context, close_context, open_context
from meter.worker.jobs import allocate, deliver, expire, pending, remind, rotate
from meter.worker.queue import queue_pool, to_json
from meter.worker.runs import RUN_SECONDS_MAX

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

JOB_TIMEOUT_SECONDS = RUN_SECONDS_MAX + 10  # later than ours, which tells of it in one line
HEALTH_CHECK_INTERVAL_SECONDS = 5


def worker_settings(settings: Settings, opened: Context | None = None) -> type:
    """The class that arq reads. Cron jobs keep no result, so a run never blocks the next one by its id.

    `opened` is a context that somebody else closes: the flush goes on while arq has lost its queue. Without it arq
    opens one and closes it.
    """

    async def startup(ctx: Context) -> None:
        if opened is None:
            await open_context(ctx, Runtime(settings, role="worker"))
        else:
            ctx.update(opened)

    async def shutdown(ctx: Context) -> None:
        if opened is None:
            await close_context(ctx)

    return type(
        "WorkerSettings",
        (),
        {
            "functions": [_job(job) for job in (expire, allocate, pending, remind, deliver, rotate)],
            "cron_jobs": _crons(settings),
            "redis_pool": queue_pool(settings),
            "on_startup": startup,
            "on_shutdown": shutdown,
            "job_serializer": to_json,
            "job_deserializer": orjson.loads,
            "job_timeout": JOB_TIMEOUT_SECONDS,
            "health_check_interval": HEALTH_CHECK_INTERVAL_SECONDS,
            "log_results": False,
            "timezone": UTC,
        },
    )


def _crons(settings: Settings) -> list[CronJob]:
    """Without a store there is only what Redis has alone. Alerts are delivered all the time, beside arq."""
    expiring = cron(_job(expire), second=_every(settings.sweep_interval_seconds), run_at_startup=True, keep_result=0)
    rotating = cron(_job(rotate), second=0, run_at_startup=True, keep_result=0)
    if settings.store_url == "none":
        return [expiring, rotating]
    return [
        expiring,
        rotating,
        cron(_job(allocate), second=_every(10), run_at_startup=True, keep_result=0),
        cron(_job(remind), minute=7, second=20, run_at_startup=True, keep_result=0),
        cron(_job(pending), second={10, 40}, run_at_startup=True, keep_result=0),
    ]


def _job(function: Callable[[Context], Awaitable[int]]) -> WorkerCoroutine:
    @wraps(function)  # arq names a job by its function
    async def counted(ctx: Context) -> int:
        return await ctx["runs"].run(function.__name__, lambda: function(ctx))

    return cast("WorkerCoroutine", counted)  # arq types its context as a bare dict


def _every(interval_seconds: int) -> set[int]:
    return set(range(0, 60, interval_seconds))
