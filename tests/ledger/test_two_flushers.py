"""Two workers on one partition: whoever pauses where, each step is won once, and nothing is lost, doubled or closed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from meter.engine import operations
from meter.ledger.flusher import Flusher
from tests.ledger.ground import Ground
from tests.ledger.story import tell
from tests.partition import T0

CALLS_MAX = 12


class Pausing:
    """Something whose every awaited call asks for leave first, and afterwards."""

    def __init__(self, real: Any, leave: Any) -> None:
        self._real = real
        self._leave = leave

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)

        async def pausing(*args: object, **named: object) -> object:
            await self._leave()
            answer = await real(*args, **named)
            await self._leave()
            return answer

        return pausing


class Stops:
    """Leaves a flusher alone up to its `at`-th pause, and stops it there until it is told to go on."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.reached.set()
            await self.go_on.wait()


def pausing(ground: Ground, leave: Any, **changed: object) -> Flusher:
    store: Any = Pausing(ground.store, leave)
    gateway: Any = Pausing(ground.gateway, leave)
    flusher = ground.flusher(store, gateway, **changed)
    flusher._backlog._noted_at = -1e9
    return flusher


async def step_until_paused(flusher: Flusher, stops: Stops) -> asyncio.Task[int]:
    task = asyncio.create_task(flusher.step())
    waiting = asyncio.create_task(stops.reached.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "with rows at hand"])
@pytest.mark.parametrize("at", range(1, 2 * CALLS_MAX, 2))
async def test_one_pauses_at_each_await_while_the_other_goes_on(ground: Ground, at: int, warm: bool) -> None:
    tell(ground.partition, T0)
    stops = Stops(0)
    paused = pausing(ground, stops, flush_max=8)
    won = 0
    if warm:
        won += await paused.step()
        paused._backlog._noted_at = -1e9
    stops.at, stops.seen = at, 0
    task = await step_until_paused(paused, stops)
    other = ground.flusher(flush_max=5)
    for _ in range(3):
        other._backlog._noted_at = -1e9
        won += await other.step()
    ground.partition.batch(*(operations.grant("z", f"z{n}", 1) for n in range(200)))
    won += await ground.drain()
    ground.run(operations.deduct("z", 1))
    stops.go_on.set()
    won += await task
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"
    won += await ground.drain(paused)
    watermark = await ground.store.watermark(0)
    assert watermark is not None and won == watermark.seq, "a step was won twice, or not counted"
    await ground.check()


@pytest.mark.parametrize("seed", range(8))
async def test_at_random_each_step_is_won_once(ground: Ground, seed: int) -> None:
    """Three workers, each awaiting its turn at every call; the next turn goes to one of them by lot."""
    lot = random.Random(seed)
    waiting: list[asyncio.Event] = []

    async def turn() -> None:
        mine = asyncio.Event()
        waiting.append(mine)
        await mine.wait()

    async def work(flusher: Flusher) -> list[int]:
        won = []
        for _ in range(12):
            flusher._backlog._noted_at = -1e9
            won.append(await flusher.step())
        return won

    tell(ground.partition, T0)
    workers = [asyncio.create_task(work(pausing(ground, turn, flush_max=4))) for _ in range(3)]
    made = 0
    while not all(worker.done() for worker in workers):
        while len(waiting) < sum(not worker.done() for worker in workers):
            await asyncio.sleep(0)
            if all(worker.done() for worker in workers):
                break
            if not waiting:
                await asyncio.sleep(0.001)
            else:
                break
        if waiting:
            waiting.pop(lot.randrange(len(waiting))).set()
        if made < 10 and lot.random() < 0.05:
            made += 1
            ground.run(operations.grant("u", f"late{made}", 1))
    won = [count for worker in workers for count in worker.result()]
    watermark = await ground.store.watermark(0)
    assert watermark is not None and sum(won) == watermark.seq, "a step was won twice, or not counted"
    await ground.drain()
    await ground.check()
