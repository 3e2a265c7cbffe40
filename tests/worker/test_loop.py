"""What goes on beside arq: it rests while there is nothing to do, and until somebody wakes it."""

from __future__ import annotations

import asyncio

from meter.worker.loop import IDLE_STEPS_MAX, Loop
from tests.ledger.ground import until


async def test_idle_steps_lead_to_a_rest_that_a_wake_ends() -> None:
    steps: list[bool] = []
    busy = [True, False, True]

    async def step() -> bool:
        steps.append(bool(busy and busy.pop(0)))
        return steps[-1]

    loop = Loop("test", step, 0.0, rest_seconds=3_600)
    loop.start()
    try:
        until_rest = 3 + IDLE_STEPS_MAX + 1
        await until(lambda: len(steps) == until_rest, "it rests after so many idle steps in a row, not before")
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(steps) == until_rest
        loop.wake()
        await until(lambda: len(steps) == until_rest + 1 + IDLE_STEPS_MAX, "it is awake for a while")
    finally:
        await loop.close()


async def test_what_wakes_it_during_a_step_is_not_lost() -> None:
    steps: list[int] = []

    async def step() -> bool:
        steps.append(1)
        if len(steps) == IDLE_STEPS_MAX + 1:
            loop.wake()
        return False

    loop = Loop("test", step, 0.0, rest_seconds=3_600)
    loop.start()
    try:
        await until(lambda: len(steps) > IDLE_STEPS_MAX + 1, "the next step comes at once")
    finally:
        await loop.close()
