"""The allocation: each subscription whose period has ended moves on, and gets the credits of the next one, once.

From an index by time, in bounded pages, so that what was missed while no worker ran is caught up.
"""

from __future__ import annotations

from meter.subscriptions import Subscriptions
from workers.context import Context

SUBSCRIPTIONS_PER_PAGE = 1_000
PAGES_MAX = 10_000


async def allocate(ctx: Context) -> int:
    """Allocates all that is due; answers how many subscriptions moved on."""
    runtime = ctx["runtime"]
    if runtime.store is None:
        return 0
    service, moved = Subscriptions(runtime.engine, runtime.store, runtime.settings.partitions), 0
    for _ in range(PAGES_MAX):
        now_ms = await runtime.engine.now_ms()
        rows = await service.due(now_ms, SUBSCRIPTIONS_PER_PAGE)
        if not rows:
            break
        done = await service.advance(rows, now_ms)
        moved += done
        if not done:
            break  # other processes are at it, or the next run is
    return moved
