"""What every job gets as `ctx`, and how a worker process opens and closes it."""

from __future__ import annotations

from functools import partial
from typing import TypedDict

from arq.connections import ArqRedis

from meter.alerts.dispatcher import Dispatcher
from meter.config import Settings
from meter.errors import ConfigError
from meter.jobs import Jobs
from meter.ledger.flusher import Flusher
from meter.ledger.log_file import LedgerFile, ledger_log
from meter.ledger.rebuild import OFFERS_SECONDS, Rebuild
from meter.ledger.serving import check_served_here
from meter.ledger.supervisor import Supervisor
from meter.runtime import Runtime
from meter.store.base import Store
from meter.worker.clock_watch import ClockWatch
from meter.worker.loop import Loop
from meter.worker.runs import Runs

DELIVERY_PATIENCE_SECONDS = 1.0
"""How long new alerts wait for the attempts that are under way, at most."""
LOOP_PAUSE_SECONDS = 0.5
DELIVERY_REST_SECONDS = 5.0
"""How late an alert may be that another process made while nothing was going on; this one's own wake it."""


class Context(TypedDict, total=False):
    """arq's job context with our members; arq adds its own, `redis` (its queue) among them."""

    runtime: Runtime
    runs: Runs
    jobs: Jobs
    ledger: LedgerFile | None
    supervisor: Supervisor | None
    dispatcher: Dispatcher | None
    delivery: Loop | None
    top_up: Loop | None
    loops: list[Loop]
    redis: ArqRedis


async def open_context(ctx: Context, runtime: Runtime) -> None:
    """Starts the runtime and, where there is a store, the flushers and the delivery of alerts. Raises `ConfigError`."""
    ctx["runtime"], ctx["runs"], ctx["loops"] = runtime, Runs(partial(_wake_delivery, ctx)), []
    await runtime.start()
    ctx["ledger"], ctx["supervisor"], ctx["dispatcher"], ctx["delivery"] = None, None, None, None
    ctx["top_up"] = None
    if runtime.store is not None:
        ctx["ledger"] = _started_ledger(runtime.settings)
    ctx["jobs"] = Jobs(runtime, ctx["ledger"])
    if runtime.store is not None:
        dispatcher = ctx["dispatcher"] = ctx["jobs"].dispatcher
        ctx["supervisor"] = _flushing(ctx, runtime, runtime.store)
        delivery = Loop("delivery", partial(_deliver, dispatcher), LOOP_PAUSE_SECONDS, DELIVERY_REST_SECONDS)
        ctx["delivery"] = delivery
        _start(ctx, delivery)
        _ = ctx["jobs"].top_ups  # a provider that cannot be made stops the start
        buying = Loop("top-up", partial(_buy, ctx["jobs"]), LOOP_PAUSE_SECONDS, DELIVERY_REST_SECONDS)
        ctx["top_up"] = buying
        _start(ctx, buying)
    if runtime.settings.test_clock:
        watch = ClockWatch(runtime.engine, ctx["jobs"], ctx["runs"], partial(_wake_delivery, ctx))
        _start(ctx, Loop("test clock", watch.step, LOOP_PAUSE_SECONDS))


async def close_context(ctx: Context) -> None:
    """Stops deliveries and flushers and closes the runtime. Harmless when the context was never opened."""
    runtime = ctx.get("runtime")
    if runtime is None:
        return
    for loop in ctx.get("loops", []):
        await loop.close()
    if (jobs := ctx.get("jobs")) is not None:
        await jobs.close()
    if (supervisor := ctx.get("supervisor")) is not None:
        await supervisor.close()
    if (ledger := ctx.get("ledger")) is not None:
        ledger.close()
    await runtime.close()


async def _deliver(dispatcher: Dispatcher) -> bool:
    """Delivers what is due; whether there was anything."""
    done = await dispatcher.deliver(DELIVERY_PATIENCE_SECONDS)
    return done.attempted > 0 or done.more


async def _buy(jobs: Jobs) -> bool:
    """Carries out requests for credits that are due; whether there were any."""
    return (await jobs.top_up()).done > 0


def _wake_delivery(ctx: Context) -> None:
    """There may be new alerts, and requests for credits."""
    for loop in (ctx.get("delivery"), ctx.get("top_up")):
        if loop is not None:
            loop.wake()


def _start(ctx: Context, loop: Loop) -> None:
    loop.start()
    ctx["loops"].append(loop)


def _started_ledger(settings: Settings) -> LedgerFile | None:
    ledger = ledger_log(settings)
    if ledger is not None:
        try:
            ledger.start()
        except OSError as error:
            raise ConfigError(f"METER_LEDGER_FILE={settings.ledger_file}: {error.strerror}") from None
    return ledger


def _flushing(ctx: Context, runtime: Runtime, store: Store) -> Supervisor:
    settings = runtime.settings
    flushers = [
        Flusher(runtime.redis, runtime.engine, store, keys, settings, ctx["ledger"], partial(_wake_delivery, ctx))
        for keys in runtime.engine.partitions
    ]
    rebuild = Rebuild(
        runtime.engine,
        runtime.redis,
        store,
        settings.idempotency_window_seconds * 1000,
        ctx["ledger"],
        offers_seconds=OFFERS_SECONDS,
    )

    async def repair(partition: int) -> None:
        watermark = flushers[partition].watermark
        await check_served_here(store, settings.redis_url, watermark)
        await rebuild.partition_at(partition, watermark)  # not what another worker has mended

    supervisor = Supervisor(flushers, settings, repair if settings.auto_repair else None)
    supervisor.start()
    return supervisor
