"""Forgetting: Redis keeps answers and finished reservations for the idempotency window, then lets them go."""

from __future__ import annotations

from meter.engine import upkeep
from meter.engine.engine import Engine


async def rotate_due(engine: Engine, *, waits: bool) -> int:
    """Forgets what is older than the window; answers in how many partitions it had passed. Where there is a store it
    `waits` for that to have what is forgotten.
    """
    one = upkeep.rotate(waits=waits)
    lines = [(await engine.run_many(number, (one,)))[0] for number in range(len(engine.partitions))]
    return sum(line == "0 ok 1" for line in lines)
