"""Which jobs the worker process runs and when, in arq's terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import partial, wraps
from typing import TYPE_CHECKING, cast

import orjson
from arq import cron
from arq.cron import CronJob

from meter.config import Settings
from meter.errors import MeterError
from meter.runtime import Runtime
from meter.worker.context import Context, close_context, open_context
from meter.worker.jobs import allocate, deliver, expire, pending, remind, rollup, rotate, runway, top_up
from meter.worker.queue import Queue, queue_pool, to_json
from meter.worker.runs import RUN_SECONDS_MAX

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

_JOBS = (expire, allocate, pending, remind, deliver, rotate, rollup, runway, top_up)
JOB_TIMEOUT_SECONDS = RUN_SECONDS_MAX + 10  # later than ours, which tells of it in one line
HEALTH_CHECK_INTERVAL_SECONDS = 300
"""arq's own sign of life, for `arq --check`. Ours is in meter/health/presence.py."""
POLL_SECONDS_MAX = 2.0
"""How often arq looks into its queue and at its clock; twice for each run of a job, as it starts one per look."""
ROTATIONS_PER_WINDOW = 60
"""Redis remembers answers for up to a sixtieth of the window longer than it must."""


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
        if isinstance(queue := ctx.get("redis"), Queue):
            queue.is_due = partial(_is_due, ctx)

    async def shutdown(ctx: Context) -> None:
        if opened is None:
            await close_context(ctx)

    return type(
        "WorkerSettings",
        (),
        {
            "functions": [_job(job) for job in _JOBS],
            "cron_jobs": _crons(settings),
            "redis_pool": queue_pool(settings),
            "on_startup": startup,
            "on_shutdown": shutdown,
            "job_serializer": to_json,
            "job_deserializer": orjson.loads,
            "job_timeout": JOB_TIMEOUT_SECONDS,
            "poll_delay": min(POLL_SECONDS_MAX, settings.sweep_interval_seconds / 2),
            "health_check_interval": HEALTH_CHECK_INTERVAL_SECONDS,
            "log_results": False,
            "timezone": UTC,
        },
    )


def _crons(settings: Settings) -> list[CronJob]:
    """Without a store there is only what Redis has alone. Alerts are delivered all the time, beside arq."""
    expiring = cron(_job(expire), second=_every(settings.sweep_interval_seconds), run_at_startup=True, keep_result=0)
    minutes = _every(min(30, max(1, settings.idempotency_window_seconds // ROTATIONS_PER_WINDOW // 60)))
    rotating = cron(_job(rotate), minute=minutes, second=0, run_at_startup=True, keep_result=0)
    if settings.store_url == "none":
        return [expiring, rotating]
    return [
        expiring,
        rotating,
        cron(_job(allocate), second=_every(10), run_at_startup=True, keep_result=0),
        cron(_job(remind), minute=7, second=20, run_at_startup=True, keep_result=0),
        cron(_job(pending), second={10, 40}, run_at_startup=True, keep_result=0),
        cron(_job(runway), minute=_every(10), second=25, run_at_startup=True, keep_result=0),
        cron(_job(rollup), second={15, 45}, run_at_startup=True, keep_result=0),
    ]


def _job(function: Callable[[Context], Awaitable[int]]) -> WorkerCoroutine:
    @wraps(function)  # arq names a job by its function
    async def counted(ctx: Context) -> int:
        return await ctx["runs"].run(function.__name__, lambda: function(ctx))

    return cast("WorkerCoroutine", counted)  # arq types its context as a bare dict


async def _is_due(ctx: Context, name: str, ahead_ms: int) -> bool:
    """Whether a job will find anything to do. The first run of each looks for itself; so does one that cannot tell, and
    says why.
    """
    if name not in ctx["runs"].seen:
        return True
    try:
        is_due = await ctx["jobs"].is_due(name, ahead_ms)
    except MeterError:
        return True
    if not is_due:
        ctx["runs"].nothing_due(name)
    return is_due


def _every(interval: int) -> set[int]:
    """The seconds of a minute, or the minutes of an hour."""
    return set(range(0, 60, interval))
