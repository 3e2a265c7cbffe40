"""The sweep of all partitions (meter/expiration.py), as a job."""

from __future__ import annotations

from meter.expiration import expire_due
from workers.context import Context

CALLS_MAX = 10_000


async def sweep(ctx: Context) -> int:
    """Settles everything due in every partition; answers the number of transactions that made."""
    engine, redis = ctx["runtime"].engine, ctx["runtime"].redis
    return sum([(await expire_due(engine, redis, number, CALLS_MAX))[0] for number in range(len(engine.partitions))])
