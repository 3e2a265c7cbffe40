"""The allocation: each subscription whose period has ended moves on, and gets the credits of the next one, once.

From an index by time, in bounded pages, so that what was missed while nobody ran it is caught up.
"""

from __future__ import annotations

from meter.engine.engine import Engine
from meter.plans.subscriptions import Subscriptions

SUBSCRIPTIONS_PER_PAGE = 1_000
PAGES_MAX = 10_000


async def allocate_page(engine: Engine, service: Subscriptions, limit: int) -> tuple[int, bool]:
    """Moves on up to `limit` subscriptions that are due; answers how many moved, and whether more may be due."""
    now_ms = await engine.now_ms()
    rows = await service.due(now_ms, limit)
    moved = await service.advance(rows, now_ms) if rows else 0
    return moved, len(rows) == limit


async def allocate_due(engine: Engine, service: Subscriptions) -> int:
    """Allocates all that is due; answers how many subscriptions moved on."""
    moved = 0
    for _ in range(PAGES_MAX):
        done, _ = await allocate_page(engine, service, SUBSCRIPTIONS_PER_PAGE)
        moved += done
        if not done:
            break  # nothing is due, or other processes are at it, and the next run looks again
    return moved
