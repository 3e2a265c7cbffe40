"""The rules of docs/plans.md over the real scripts: random calls, jobs, spending, outages, rebuilds and races.

As tests/plans/test_model.py, whose second reading this uses, but with Redis: credits are spent in between, it goes away
behind a step that the store has, its partition is rebuilt, and two processes call at once, which gives what one of the
two orders gives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from meter.engine import operations, upkeep
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.errors import PartitionRefused
from meter.ledger.flusher import Flusher
from meter.ledger.rebuild import Rebuild
from meter.plans.allocation import Allocation
from meter.plans.planner import Asked
from meter.plans.subscriptions import Caller, Proration, Subscriptions
from meter.plans.terms import same_terms, terms_of
from meter.store.catalog import Change, Plain
from meter.store.memory.store import MemoryStore, _Tables
from meter.store.plan_rows import PlanRow, SubscriptionRow
from meter.store.row import Row
from meter.store.rows import EventRow, GrantRow
from meter.testing import fake_settings
from tests.partition import DAY
from tests.plans.model import Reading
from tests.plans.test_model import CALLS, FIRST, HOURS, PAPERS, ms, plan_row

R = TypeVar("R", bound=Row)
Call = tuple[Any, ...]

RACES = CALLS.filter(lambda call: call[0] != "put")
STEPS = st.one_of(
    CALLS,
    CALLS,
    st.tuples(st.just("spend"), st.sampled_from([1, 7, 40, 99, 300, 5000])),
    st.tuples(st.just("spend"), st.sampled_from([1, 7, 40, 99, 300, 5000])),
    st.tuples(st.just("away"), RACES, st.sampled_from(["before", "after"]), st.integers(0, 3)),
    st.tuples(st.just("rebuild"), st.sampled_from(["lost", "there", "unflushed"])),
    st.tuples(st.just("race"), RACES, RACES, st.integers(0, 1000)),
)
STORY = st.lists(st.tuples(HOURS, STEPS), min_size=1, max_size=14)
Story = list[tuple[int, Call]]


ENDED_BEFORE_REDIS_HAD_IT: Story = [
    (0, ("away", ("assign", "large", None), "before", 0)),
    (31 * 24, ("job",)),
]
"""Redis is away for longer than a period lasts: the rest of its credits lives on all the same."""


class Link(RedisGateway):
    """While `left` calls of it are over, Redis is away: before a call is applied, or after that."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(FakeAsyncRedis(server=server))
        self.away, self.left = "", 0

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        if not self.away:
            return await super().run(program, keys, arguments)
        self.left -= 1
        if self.left < 0 and self.away == "before":
            raise PartitionRefused("partition", "away")
        reply = await super().run(program, keys, arguments)
        if self.left < 0:
            raise PartitionRefused("partition", "away")
        return reply


class Jittery(MemoryStore):
    """The memory of another store; waits at random places, and lets Redis go away behind a commit."""

    def __init__(self, tables: _Tables, link: Link) -> None:
        super().__init__(tables)
        self._link = link
        self.lot: random.Random | None = None
        self.goes_away: tuple[str, int] | None = None

    async def _wait(self) -> None:
        while self.lot is not None and self.lot.random() < 0.6:
            await asyncio.sleep(0)

    async def get(self, model: type[R], *key: Plain) -> R | None:
        await self._wait()
        return await super().get(model, *key)

    async def commit(self, change: Change) -> bool:
        await self._wait()
        done = await super().commit(change)
        if done and self.goes_away is not None:
            self._link.away, self._link.left = self.goes_away
        await self._wait()
        return done

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        await self._wait()
        return await super().grants(keys)

    async def remove(self, rows: Sequence[Row]) -> None:
        await self._wait()
        await super().remove(rows)


class Process:
    """Calls and jobs of one process."""

    def __init__(self, engine: Engine, store: Jittery) -> None:
        self.engine, self.store = engine, store
        self._subscriptions, self._allocation = Subscriptions(engine, store, 1), Allocation(engine, store, 1)

    async def call(self, call: Call) -> bool | None:
        """Whether it was done; None for a job."""
        alone = Caller(lambda _row: ())
        match call:
            case ("assign", plan, renews):
                found: object = await self._subscriptions.assign("u", plan, Asked(auto_renew=renews), alone)
            case ("change", plan, when, how):
                found = await self._subscriptions.change("u", plan, Proration(when, how), alone)
            case ("end", when, unspent):
                found = await self._subscriptions.end("u", "default", when, unspent, alone)
            case _:
                await self.allocate()
                return None
        assert found != "busy"
        return isinstance(found, SubscriptionRow)

    async def allocate(self) -> None:
        while (await self._allocation.page(1000)).more:
            pass

    async def ask(self, one: Operation) -> list[str]:
        """An answer's words."""
        (line,) = await self.engine.run_many(0, [one])
        return line.split(" ")


class World:
    """Two processes on one Redis and one store."""

    def __init__(self, link: Link, one: Process, two: Process) -> None:
        self.link, self.one, self.two = link, one, two
        self.settings = fake_settings(outbox_retention_seconds=0)

    async def put(self, plan_id: str, paper: Any, at: datetime) -> None:
        before = await self.one.store.get(PlanRow, plan_id)
        assert before is not None
        row = plan_row(plan_id, paper, at, before.version + 1)
        history = [] if same_terms(row, before) else [terms_of(before), terms_of(row)]
        assert await self.one.store.commit(Change([row], missing=history))

    async def away(self, call: Call, how: str, left: int) -> tuple[bool | None, bool]:
        """Redis goes away as soon as the store has the step of that call, some of its own calls later. Answers what the
        call answered, and whether it did.
        """
        self.one.store.goes_away = how, left
        try:
            return await self.one.call(call), True
        except PartitionRefused:  # behind the step that brought the subscription up to date
            return None, False
        finally:
            self.one.store.goes_away, self.link.away = None, ""

    async def rebuild(self, how: str) -> None:
        keys, store = self.one.engine.partitions[0], self.one.store
        if how != "unflushed":
            flusher = Flusher(self.link, self.one.engine, store, keys, self.settings)
            while await flusher.step():
                pass
        if how == "lost":
            await self.link._client.delete(*(key for key in keys.all if key != keys.meta))
        report = await Rebuild(self.one.engine, self.link, store, DAY).partition(0)
        assert report.lost == [], report

    async def race(self, first: Call, second: Call, seed: int) -> tuple[bool | None, bool | None]:
        lot = random.Random(seed)
        self.one.store.lot = self.two.store.lot = lot
        try:
            one, two = await asyncio.gather(self.one.call(first), self.two.call(second))
        finally:
            self.one.store.lot = self.two.store.lot = None
        return one, two

    async def available(self) -> int:
        return int((await self.one.ask(operations.balance("u")))[-3])


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    server, tables = FakeServer(), _Tables()
    link = Link(server)
    async with Engine(link, fake_settings()) as one, Engine(link, fake_settings()) as two:
        yield World(link, Process(one, Jittery(tables, link)), Process(two, Jittery(tables, link)))
    await link.close()


def readings_of(reading: Reading, now: datetime, *orders: Sequence[tuple[Call, bool | None]]) -> list[Reading]:
    """What each order of calls makes of a reading, where their answers are those."""
    found = []
    for order in orders:
        one = deepcopy(reading)
        if all(answer is None or getattr(one, call[0])(*call[1:], now) == answer for call, answer in order):
            found.append(one)
    return found


async def tell(story: Story) -> None:
    """Tells a story, and compares."""
    readings = [Reading({name: [(None, paper)] for name, paper in PAPERS.items()})]
    async with world() as found:
        for name, paper in PAPERS.items():
            await found.one.store.insert(plan_row(name, paper, FIRST, 1))
        now = FIRST
        for hours, step in story:
            now += timedelta(hours=hours)
            await found.one.ask(upkeep.clock("set", ms(now)))
            readings = await told(found, readings, step, now)
            assert readings, (now, step)
            if any(reading.is_open for reading in readings):
                assume(False)
        await found.one.allocate()
        await compare(found, readings, now)


async def told(found: World, readings: list[Reading], step: Call, now: datetime) -> list[Reading]:
    match step:
        case ("spend", amount):
            await found.two.allocate()  # as the worker does all the time
            words = await found.two.ask(operations.deduct("u", amount, "partial"))
            taken = int(words[5]) if words[1] == "ok" else 0
            return [reading for reading in readings if reading.spend(amount, now) == taken]
        case ("put", plan, paper):
            await found.put(plan, paper, now)
            for reading in readings:
                reading.put(plan, paper, now)
            return readings
        case ("rebuild", how):
            await found.rebuild(how)
            return readings
        case ("race", first, second, seed):
            one, two = await found.race(first, second, seed)
            pairs = (first, one), (second, two)
            return [each for reading in readings for each in readings_of(reading, now, pairs, pairs[::-1])]
        case ("away", call, how, left):
            answer, is_answered = await found.away(call, how, left)
            if not is_answered:
                return readings  # nothing of it was done
            return [each for reading in readings for each in readings_of(reading, now, [(call, answer)])]
        case call:
            answer = await found.one.call(call)
            return [each for reading in readings for each in readings_of(reading, now, [(call, answer)])]


async def compare(found: World, readings: list[Reading], now: datetime) -> None:
    events = await found.one.store.find(EventRow, {}, order_by="event_id", limit=5)
    assert [event.message for event in events if event.kind == "error"] == [], "a grant was refused"
    row = await found.one.store.get(SubscriptionRow, "u", "default")
    seen = (seen_of(row), await found.available())
    assert seen in [(read_of(reading, now), reading.worth(now)) for reading in readings]


def seen_of(row: SubscriptionRow | None) -> tuple[object, ...] | None:
    if row is None:
        return None
    here = SimpleNamespace(**row.model_dump())
    if here.state != "active":
        return here.state, here.plan_id
    times = (here.anchor_at_ms, here.period_started_at_ms, here.next_period_at_ms)
    return ("active", here.plan_id, here.auto_renew, here.next_plan_id, here.period, here.billing_period, *times)


def read_of(reading: Reading, now: datetime) -> tuple[object, ...] | None:
    reading.pass_time(now)
    if reading.plan is None:
        return None
    if not reading.running:
        return "ended", reading.plan
    times = map(ms, (reading.anchor, reading.starts, reading.ends))
    return ("active", reading.plan, reading.renews, reading.coming, reading.number, reading.unit, *times)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(story=STORY)
@example(story=ENDED_BEFORE_REDIS_HAD_IT)
def test_whatever_is_spent_lost_or_raced_the_rules_hold(story: Story) -> None:
    asyncio.run(tell(story))


@pytest.mark.long
@settings(max_examples=1_000, deadline=None)
@given(story=STORY)
def test_a_thousand_stories_over_the_scripts(story: Story) -> None:
    asyncio.run(tell(story))
