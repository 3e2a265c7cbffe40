"""One run: a deployment and clients inside one event loop, faults drawn from the seed, then peace and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fakeredis

from meter.config import Settings
from meter.store.connect import open_store
from tests.faults.checker.evidence import Evidence, Finding, Loss
from tests.faults.checker.history import Told, operations
from tests.faults.checker.invariants import check
from tests.faults.checker.redis_side import place_of, read_redis, strangers
from tests.simulator.client import Client, now_ms
from tests.simulator.deployment import Ground, Sidecar, Worker
from tests.simulator.processes import Fate
from tests.simulator.rows import Rows

DRAINED_SECONDS = 900.0
"""Of virtual time, until everything is in the store, or Redis is rebuilt; more is a run that does not recover."""
NOTICED_SECONDS = 60.0
META = "meter:{p0}:meta"
SHARE_PUT_BACK = 0.6
"""Of losses; after the others Redis is empty."""
CALLERS = 4


@dataclass(frozen=True)
class Weather:
    """How much goes wrong in a run, drawn from its seed."""

    fails: float
    crashes: float
    lingers: float
    losses: int
    """How often Redis is put back to an older state, or to nothing."""

    @classmethod
    def of(cls, lot: random.Random) -> Weather:
        losses = lot.choice((0, 0, 0, 1, 2))
        fails = (0.0, 0.004, 0.02) if losses else (0.0, 0.01, 0.06)  # a rebuild needs some hundred calls in a row
        return cls(lot.choice(fails), lot.choice((0.0, 0.001, 0.005)), lot.choice((0.0, 0.01, 0.05)), losses)


@dataclass
class World:
    """All of it. `run` plays it to its end."""

    seed: int
    operations: int
    lot: random.Random = field(init=False)
    told: dict[str, Told] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lot = random.Random(self.seed)
        self.weather = Weather.of(self.lot)
        self.fate = Fate(random.Random(f"fate-{self.seed}"))
        self.server = fakeredis.FakeServer()
        self.client: Any = fakeredis.FakeRedis(server=self.server)
        settings = Settings(
            partitions=1,
            store_url="memory://",
            auto_repair=True,
            outbox_retention_seconds=self.lot.choice((0, 5, 3_600)),
            flush_max=self.lot.choice((2, 7, 1_000)),
        )
        self.ground = Ground(self.server, open_store("memory://"), self.fate, settings)
        self.rows = Rows(self.ground.store)

    async def run(self) -> list[Finding]:
        """Traffic in that weather, then peace; what the checker finds."""
        sidecars = [Sidecar(self.ground, f"sidecar-{n}") for n in range(2)]
        workers = [Worker(self.ground, f"worker-{n}") for n in range(2)]
        kept = [asyncio.ensure_future(one.live()) for one in sidecars]
        kept += [asyncio.ensure_future(one.live()) for one in workers]
        client = Client(self.seed, sidecars, self.told)
        await self.until(client.makes_the_plan, "the plan is made")
        await client.gives_to_begin_with()
        weather, fate = self.weather, self.fate
        fate.fails, fate.crashes, fate.lingers = weather.fails, weather.crashes, weather.lingers
        left = iter(range(self.operations))
        await asyncio.gather(*(client.work(left) for _ in range(CALLERS)), *([self._lose()] if weather.losses else []))
        fate.end()
        await client.ask_again()
        await self.until(self._is_drained, "the store has everything")
        findings = check(await self._evidence())
        for task in kept:
            task.cancel()
        return findings

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for it, in virtual time."""
        deadline = time.monotonic() + DRAINED_SECONDS
        while not await condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {DRAINED_SECONDS} s: {what}")
            await asyncio.sleep(0.25)

    async def _is_drained(self) -> bool:
        return self.rows.place() == place_of(self.client) and not self.rows.pending()

    async def _evidence(self) -> Evidence:
        redis, outbox = read_redis(self.client)
        return Evidence(
            operations(self.told),
            self.rows.transactions(),
            self.rows.side(),
            redis,
            outbox,
            losses=self.losses,
            subscribed=self.rows.subscribed(),
            quarantine=self.rows.quarantine(),
            strangers=strangers(self.client),
        )

    async def _lose(self) -> None:
        """Redis is put back to what it was a while ago, or emptied."""
        for _ in range(self.weather.losses):
            await asyncio.sleep(self.lot.uniform(0.2, 4.0))
            self.fate.spared = "sidecar"  # what only they were told ends with them: nobody could notice
            before = {key: self.client.dump(key) for key in self.client.keys("*")}
            await asyncio.sleep(self.lot.uniform(0.05, 3.0))
            await self._put_back(before if self.lot.random() < SHARE_PUT_BACK else {})
            self.fate.spared = "-"

    async def _put_back(self, before: dict[bytes, bytes]) -> None:
        at_ms, place, stored_seq = now_ms(), place_of(self.client), self.rows.place()[1]
        self.client.flushall()
        self.client.script_flush()
        for key, text in before.items():
            self.client.restore(key, 0, text)
        if place_of(self.client) == place:
            return  # nothing was lost
        is_detected = await self._within(NOTICED_SECONDS, lambda: self._is_noticed(place[0]))
        self.fate.spared = "-"
        await self._within(DRAINED_SECONDS, lambda: self._is_open_after(place[0]))
        self.losses.append(Loss("lost history", at_ms, now_ms(), stored_seq, is_detected, loses=True))

    async def _within(self, seconds: float, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return condition()

    def _is_noticed(self, epoch: int) -> bool:
        state = self.client.hget(META, "state")
        return state in (b"lost", b"rebuilding") or place_of(self.client)[0] > epoch

    def _is_open_after(self, epoch: int) -> bool:
        return place_of(self.client)[0] > epoch and self.client.hget(META, "state") == b"open"
