"""The jobs that arq starts: each takes what it needs out of `ctx`, calls the function that does it, and answers how
much was done. All catch up on what was missed, and running one twice does nothing twice.
"""

from __future__ import annotations

import time

from meter.alerts.reminders import remind_of_ends
from meter.engine import upkeep
from meter.ledger.pending_grants import Intake, apply_old
from meter.ledger.sweep import expire_due
from meter.plans.allocation import Allocation
from meter.worker.context import Context

SWEEP_CALLS_MAX = 10_000
DELIVERY_PATIENCE_SECONDS = 30.0


async def sweep(ctx: Context) -> int:
    """Settles everything due in every partition; answers the number of transactions that made."""
    engine, redis = ctx["runtime"].engine, ctx["runtime"].redis
    made = [await expire_due(engine, redis, number, SWEEP_CALLS_MAX) for number in range(len(engine.partitions))]
    return sum(transactions for transactions, _ in made)


async def allocate(ctx: Context) -> int:
    """Grants every period that has begun; answers how many subscriptions moved on."""
    runtime = ctx["runtime"]
    if runtime.store is None:
        return 0
    return await Allocation(runtime.engine, runtime.store, runtime.settings.partitions).all_due()


async def rotate(ctx: Context) -> int:
    """Lets Redis forget answers and finished reservations older than the idempotency window; answers in how many
    partitions that window had passed.
    """
    engine = ctx["runtime"].engine
    lines = [(await engine.run_many(number, (upkeep.rotate(),)))[0] for number in range(len(engine.partitions))]
    return sum(line == "0 ok 1" for line in lines)


async def apply_pending(ctx: Context) -> int:
    """Applies grants that are durable and that Redis does not seem to have; answers how many Redis has now."""
    runtime = ctx["runtime"]
    if runtime.store is None:
        return 0
    intake = Intake(runtime.engine, runtime.store, ctx.get("ledger"))
    now_ms = max(time.time_ns() // 1_000_000, await runtime.engine.now_ms())  # a test clock may be ahead
    return await apply_old(intake, runtime.store, now_ms)


async def remind(ctx: Context) -> int:
    """Tells of credits that end soon; answers how many grants those are."""
    runtime = ctx["runtime"]
    if runtime.store is None:
        return 0
    return await remind_of_ends(runtime.store, await runtime.engine.now_ms(), runtime.settings.expiring_day_numbers)


async def deliver(ctx: Context) -> int:
    """Makes alerts into deliveries and attempts those that are due, as the worker does all the time by itself; answers
    how many attempts that were.
    """
    dispatcher, attempts, more = ctx.get("dispatcher"), 0, True
    while dispatcher is not None and more:
        done = await dispatcher.deliver(DELIVERY_PATIENCE_SECONDS)
        attempts, more = attempts + done.attempted, done.more
    return attempts
