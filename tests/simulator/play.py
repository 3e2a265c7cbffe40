"""One seed, from its beginning to the verdict."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from tests.faults.checker.evidence import Finding
from tests.simulator.processes import task_factory
from tests.simulator.virtual_time import run
from tests.simulator.world import Weather, World

OPERATIONS = 40


@dataclass(frozen=True)
class Played:
    """What came of a seed."""

    findings: list[Finding]
    operations: int
    weather: Weather
    happened: list[str]
    losses: int


def play(seed: int, operations: int = OPERATIONS) -> Played:
    """Plays a seed."""
    random.seed(seed)  # of code that draws from no lot of its own
    world = World(seed, operations)

    async def main() -> list[Finding]:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(task_factory)
        return await world.run()

    findings = run(main(), random.Random(f"names-{seed}"))
    return Played(findings, len(world.told), world.weather, world.fate.happened, len(world.losses))
