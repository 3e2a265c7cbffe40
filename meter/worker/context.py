"""What every job gets as `ctx`, and how a worker process opens and closes it."""

from __future__ import annotations

from typing import TypedDict

from meter.alerts.channels import channels_of
from meter.alerts.dispatcher import Dispatcher
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.config import Settings
from meter.errors import ConfigError
from meter.ledger.flusher import Flusher
from meter.ledger.log_file import LedgerFile, ledger_log
from meter.ledger.rebuild import Rebuild
from meter.ledger.serving import check_served_here
from meter.ledger.supervisor import Supervisor
from meter.runtime import Runtime
from meter.worker.loop import Loop
from meter.worker.runs import Runs

DELIVERY_PATIENCE_SECONDS = 1.0
"""How long new alerts wait for the attempts that are under way, at most."""
DELIVERY_PAUSE_SECONDS = 0.5


class Context(TypedDict, total=False):
    """arq's job context with our members; arq adds its own, `redis` (its queue) among them."""

    runtime: Runtime
    runs: Runs
    ledger: LedgerFile | None
    supervisor: Supervisor | None
    sender: WebhookSender
    dispatcher: Dispatcher | None
    delivery: Loop


async def open_context(ctx: Context, runtime: Runtime) -> None:
    """Starts the runtime and, where there is a store, the flushers and the delivery of alerts. Raises `ConfigError`."""
    await runtime.start()
    ctx["runtime"], ctx["runs"], ctx["ledger"], ctx["supervisor"] = runtime, Runs(), None, None
    if runtime.store is None:
        return
    settings, store = runtime.settings, runtime.store
    channels = channels_of(settings.notify, runtime.redis)
    ctx["sender"] = WebhookSender(allow_private=settings.webhook_allow_private)
    scale, now_ms = AmountScale(settings.decimal_places), runtime.engine.now_ms
    dispatcher = Dispatcher(store, ctx["sender"], channels, scale, now_ms)
    ctx["dispatcher"] = dispatcher
    ctx["ledger"] = _started_ledger(settings)
    flushers = [
        Flusher(runtime.redis, runtime.engine, store, keys, settings, ctx["ledger"])
        for keys in runtime.engine.partitions
    ]
    rebuild = Rebuild(runtime.engine, runtime.redis, store, settings.idempotency_window_seconds * 1000, ctx["ledger"])

    async def repair(partition: int) -> None:
        watermark = flushers[partition].watermark
        await check_served_here(store, settings.redis_url, watermark)
        await rebuild.partition_at(partition, watermark)  # not what another worker has mended

    supervisor = Supervisor(flushers, settings, repair if settings.auto_repair else None)
    supervisor.start()
    ctx["supervisor"] = supervisor
    delivery = Loop("delivery", lambda: dispatcher.deliver(DELIVERY_PATIENCE_SECONDS), DELIVERY_PAUSE_SECONDS)
    delivery.start()
    ctx["delivery"] = delivery


async def close_context(ctx: Context) -> None:
    """Stops deliveries and flushers and closes the runtime. Harmless when the context was never opened."""
    runtime = ctx.get("runtime")
    if runtime is None:
        return
    if "delivery" in ctx:
        await ctx["delivery"].close()
    if (dispatcher := ctx.get("dispatcher")) is not None:
        await dispatcher.close()
    if ctx["supervisor"] is not None:
        await ctx["supervisor"].close()
    if ctx["ledger"] is not None:
        ctx["ledger"].close()
    if "sender" in ctx:
        await ctx["sender"].close()
    await runtime.close()


def _started_ledger(settings: Settings) -> LedgerFile | None:
    ledger = ledger_log(settings)
    if ledger is not None:
        try:
            ledger.start()
        except OSError as error:
            raise ConfigError(f"METER_LEDGER_FILE={settings.ledger_file}: {error.strerror}") from None
    return ledger
