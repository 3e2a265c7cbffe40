"""Whether lists that come from the store have what was booked up to now."""

from __future__ import annotations

import asyncio

from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.store.base import Store

_PATIENCE_SECONDS, _LOOK_SECONDS = 2.0, 0.05
"""A worker takes what is booked to the store within about a second; lists wait so long for it."""


async def is_settled(engine: Engine, redis: RedisGateway, store: Store) -> bool:
    """Whether the store has, after a little while, what Redis has booked by now."""
    states = [await redis.partition_state(keys.meta) for keys in engine.partitions]
    behind = {number: state.seq for number, state in enumerate(states) if state is not None}
    for _ in range(round(_PATIENCE_SECONDS / _LOOK_SECONDS)):
        for number, seq in list(behind.items()):
            watermark = await store.watermark(number)
            if seq == 0 or (watermark is not None and watermark.seq >= seq):
                del behind[number]
        if not behind:
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False
