"""The delivery: alerts become deliveries, and deliveries that are due are attempted; see `meter.notify.dispatcher`."""

from __future__ import annotations

from workers.context import Context

PAGES_MAX = 1_000


async def deliver(ctx: Context) -> int:
    """Attempts all that is due; answers how many attempts that were."""
    dispatcher = ctx.get("dispatcher")
    if dispatcher is None:
        return 0
    now_ms, attempts = await ctx["runtime"].engine.now_ms(), 0
    for _ in range(PAGES_MAX):
        passed = await dispatcher.pass_on(now_ms)
        attempted = await dispatcher.deliver(now_ms)
        attempts += attempted
        if not passed and not attempted:
            break
    return attempts
