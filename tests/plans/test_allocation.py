"""The allocation: exactly once, however often, in parallel or cut off it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from meter.plans import allocation as job
from meter.plans.allocation import Allocation
from meter.store.catalog import Change, Plain
from meter.store.memory.store import MemoryStore, _Tables
from meter.store.row import Row, VersionedRow
from meter.store.rows import AlertRow, GrantRow
from tests.plans.conftest import START
from tests.plans.town import Town, days, done, town

END = START.replace(month=2, day=28)
R = TypeVar("R", bound=Row)


async def pause() -> None:
    """A place where a process can die, or another one can come in between."""
    await asyncio.sleep(0)


class Interruptible(MemoryStore):
    """A store each of whose calls waits before and after, as a remote one does."""

    async def get(self, model: type[R], *key: Plain) -> R | None:
        await pause()
        found = await super().get(model, *key)
        await pause()
        return found

    async def insert(self, row: Row) -> bool:
        await pause()
        found = await super().insert(row)
        await pause()
        return found

    async def swap(self, row: VersionedRow) -> bool:
        await pause()
        found = await super().swap(row)
        await pause()
        return found

    async def commit(self, change: Change) -> bool:
        await pause()
        found = await super().commit(change)
        await pause()
        return found

    async def insert_many(self, rows: Sequence[Row]) -> int:
        await pause()
        added = await super().insert_many(rows)
        await pause()
        return added

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        done_ = 0
        for row in rows:
            done_ += await self.swap(row)
        return done_

    async def find(
        self,
        model: type[R],
        equal: Mapping[str, Plain],
        *,
        order_by: str,
        until: int | None = None,
        after: Sequence[Plain] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[R]:
        await pause()
        return await super().find(
            model, equal, order_by=order_by, until=until, after=after, descending=descending, limit=limit
        )

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        await pause()
        return await super().grants(keys)

    async def remove(self, rows: Sequence[Row]) -> None:
        await pause()
        await super().remove(rows)
        await pause()


class Killed(Exception):
    """The process died here."""


@dataclass
class Mortal:
    """Runs a coroutine up to its n-th suspension, and then never again: what `kill -9` does."""

    run: Coroutine[Any, Any, Any]
    suspensions: int

    def __await__(self) -> Generator[Any, None, Any]:
        left = self.suspensions
        inner = self.run.__await__()
        while True:
            try:
                waiting = next(inner)
            except StopIteration as end:
                return end.value
            left -= 1
            if left < 0:
                self.run.close()
                raise Killed
            yield waiting


async def killed(run: Coroutine[Any, Any, Any], suspensions: int) -> bool:
    """Whether the coroutine died on its way."""
    try:
        await Mortal(run, suspensions)
    except Killed:
        return True
    return False


@asynccontextmanager
async def village() -> AsyncIterator[Town]:
    """Subscriptions of every kind, each due at END."""
    async with town(START, store=Interruptible(_Tables())) as found:
        await found.plan("pro")
        await found.plan("team", 500)
        for user in ("renews", "changes", "ends", "voids"):
            done(await found.meter.subscribe(user, "pro", auto_renew=user != "ends"))
        done(await found.meter.upgrade("changes", "team", when="period_end"))
        done(await found.meter.unsubscribe("voids", when="period_end", unspent="void"))
        await found.set_time(END)
        yield found


async def check_village(found: Town) -> None:
    """Everything that was due was done once."""
    expected = {"renews": 100, "changes": 500, "ends": 0, "voids": 0}
    assert {user: await found.available(user) for user in expected} == expected
    for user, limit in (("renews", 100), ("changes", 500)):
        assert [one for one in await found.kinds(user) if one[0] == "grant"] == [("grant", 100), ("grant", limit)]
    assert [one for one in await found.kinds("voids") if one[0] == "grant"] == [("grant", 100)]
    news = await found.store.find(AlertRow, {}, order_by="alert_id", limit=100)
    assert sorted((row.kind, row.user_id) for row in news if row.kind.startswith("subscription")) == [
        ("subscription_ended", "ends"),
        ("subscription_ended", "voids"),
        ("subscription_renewed", "changes"),
        ("subscription_renewed", "renews"),
    ]


async def test_a_second_run_changes_nothing() -> None:
    async with village() as found:
        assert await found.allocate() == 4
        await check_village(found)
        assert await found.allocate() == 0
        await check_village(found)


async def test_runs_in_parallel_grant_once() -> None:
    async with village() as found:
        await asyncio.gather(*(found.allocate() for _ in range(5)), found.meter.allocate())
        await check_village(found)


async def test_a_run_may_be_killed_between_any_two_awaits() -> None:
    number, died = 0, True
    while died:
        async with village() as found:
            died = await killed(found.allocate(), number)
            await asyncio.gather(found.allocate(), found.allocate())
            await check_village(found)
        number += 1
    assert number > 15


@pytest.mark.parametrize("way", ["assign", "upgrade", "difference", "end"])
async def test_a_call_that_died_is_completed_by_its_repetition(way: str) -> None:
    number, died = 0, True
    while died:
        async with town(START, store=Interruptible(_Tables())) as found:
            await found.plan("pro")
            await found.plan("team", 500)
            if way != "assign":
                done(await found.meter.subscribe("u", "pro"))
                await found.set_time(START + days(14))
            calls = {
                "assign": lambda: found.meter.subscribe("u", "pro"),
                "upgrade": lambda: found.meter.upgrade("u", "team"),
                "difference": lambda: found.meter.upgrade("u", "team", proration="difference"),
                "end": lambda: found.meter.unsubscribe("u", unspent="void"),
            }
            died = await killed(calls[way](), number)
            done(await calls[way]())
            expected = {"assign": 100, "upgrade": 500, "difference": 300, "end": 0}[way]
            assert await found.available() == expected, number
        number += 1
    assert number > 5


async def test_racing_upgrades_leave_one_period(here: Town) -> None:
    await here.plan("pro")
    await here.plan("team", 500)
    done(await here.meter.subscribe("u", "pro"))
    answers = await asyncio.gather(*(here.meter.upgrade("u", "team") for _ in range(10)))
    assert len({done(answer).subscription_id for answer in answers}) == 1
    assert await here.available() == 500


async def test_what_was_missed_gives_one_current_grant(here: Town) -> None:
    await here.plan("day", 10, "daily")
    await here.plan("month", 100)
    done(await here.meter.subscribe("d", "day"))
    done(await here.meter.subscribe("m", "month"))
    await here.set_time(START + days(200))
    assert await here.allocate() == 2
    assert [await here.available(user) for user in "dm"] == [10, 100]
    assert [kind for kind, _ in await here.kinds("d") if kind == "grant"] == ["grant", "grant"]
    row = done(await here.meter.subscriptions("m")).items[0]
    assert (row.period, row.period_started_at.day) == (6, 31)
    assert row.period_started_at <= START + days(200) < row.next_period_at


async def test_many_are_done_in_bounded_pages(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.jobs.SUBSCRIPTIONS_PER_PAGE", 3)
    limits: list[int] = []
    page = Allocation.page

    async def watched(self: Allocation, limit: int) -> job.Page:
        limits.append(limit)
        return await page(self, limit)

    monkeypatch.setattr(Allocation, "page", watched)
    await here.plan("pro")
    for number in range(8):
        done(await here.meter.subscribe(f"u{number}", "pro"))
    await here.set_time(END)
    assert await here.allocate() == 8
    assert limits == [3, 3, 3]


async def test_the_call_of_a_scheduler_says_whether_more_is_due(here: Town) -> None:
    await here.plan("pro")
    done(await here.meter.subscribe("u", "pro"))
    assert done(await here.meter.allocate()).allocated == 0
    await here.set_time(END)
    answer = done(await here.meter.allocate())
    assert (answer.allocated, answer.more) == (1, False)
