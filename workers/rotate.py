"""The rotation: Redis forgets answers and finished reservations that are older than the idempotency window."""

from __future__ import annotations

from meter import operation
from workers.context import Context


async def rotate(ctx: Context) -> int:
    """Rotates the recent hashes of each partition where the window has passed; answers how many it was."""
    engine = ctx["runtime"].engine
    lines = [(await engine.run_many(number, (operation.rotate(),)))[0] for number in range(len(engine.partitions))]
    return sum(line == "0 ok 1" for line in lines)
