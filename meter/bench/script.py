"""What a script call costs Redis by its own count (commandstats), alone on a Redis of its own: calls of one deduct and
of a hundred, in turn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from meter.bench.cases import BATCH
from meter.bench.ground import Ground
from meter.bench.samples import Spread, spread
from meter.bench.traffic import user_name
from meter.dev.redis_server import EmbeddedServer
from meter.engine import operations

ONES = 300
"""Calls of one deduct in a round."""
BATCHES = 60
"""Calls of `BATCH` deducts in a round."""


@dataclass(slots=True)
class ScriptCost:
    """Microseconds of a call of one deduct and of one of `BATCH`, by rounds, and bytes of the outbox
    for each deduct of `BATCH`.
    """

    one_us: list[float] = field(default_factory=list)
    batch_us: list[float] = field(default_factory=list)
    outbox_bytes: float = 0.0

    @property
    def single_us(self) -> Spread:
        """A call of one deduct."""
        return spread(self.one_us)

    @property
    def operation_us(self) -> Spread:
        """One deduct of `BATCH`, its share of the call included."""
        return spread([each / BATCH for each in self.batch_us])

    @property
    def call_us(self) -> Spread:
        """What a call costs before its first deduct: the line through both kinds of call at no deduct."""
        return spread(
            [one - (batch - one) / (BATCH - 1) for one, batch in zip(self.one_us, self.batch_us, strict=True)]
        )


async def script_cost(folder: Path, rounds: int, users: int) -> ScriptCost:
    """Measures on a Redis server of its own, with an append-only file as in production."""
    found, chance = ScriptCost(), random.Random(1)
    with EmbeddedServer(data_dir=folder / "script") as server:
        async with Ground(server.url) as ground:
            await ground.give(user_name(number) for number in range(users))
            for number in range(rounds + 1):
                one = await _call_us(ground, ONES, 1, users, chance)
                before = ground.outbox_bytes()
                batch = await _call_us(ground, BATCHES, BATCH, users, chance)
                found.outbox_bytes = (ground.outbox_bytes() - before) / (BATCHES * BATCH)
                if number:  # the first one warms up
                    found.one_us.append(one)
                    found.batch_us.append(batch)
    return found


async def _call_us(ground: Ground, calls: int, size: int, users: int, chance: random.Random) -> float:
    before = ground.script_microseconds()
    for _ in range(calls):
        await ground.run(operations.deduct(user_name(chance.randrange(users)), 1) for _ in range(size))
    return (ground.script_microseconds() - before) / calls
