"""Two callers at one subscription (P7): one is stopped at each of its awaits while the other does all of its call.

What comes out is what one of the two serial orders gives: answers, subscription and credits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from meter.clock import milliseconds
from meter.jobs import Jobs
from meter.plans.allocation import Allocation
from meter.plans.planner import Asked
from meter.plans.subscriptions import Caller as Asker
from meter.plans.subscriptions import Proration, Subscriptions
from meter.store.base import Store
from meter.store.plan_rows import PlanRow, SubscriptionRow
from tests.plans.conftest import START
from tests.plans.town import Town, town

END = START.replace(month=2, day=28)


class Gated:
    """Another store, that waits at the n-th place of its calls until it is let go on."""

    stop_at = 0

    def __init__(self, store: Store) -> None:
        self._store = store

    def open_gate(self, stop_at: int) -> tuple[asyncio.Event, asyncio.Event]:
        self.stop_at, self.passed = stop_at, 0
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        return self.reached, self.go

    async def _gate(self) -> None:
        self.passed += 1
        if self.passed == self.stop_at:
            self.reached.set()
            await self.go.wait()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name not in ("get", "commit", "swap", "grants", "remove"):
            return call

        async def gated(*asked: Any) -> Any:
            await self._gate()
            done = await call(*asked)
            if name == "commit":
                await self._gate()
            return done

        return gated


ALONE = Asker(lambda _row: ())


class Caller:
    """The calls on one user's subscription, through one store."""

    def __init__(self, found: Town, store: Store) -> None:
        self._subscriptions = Subscriptions(found.engine, store, 1)
        self._allocation = Allocation(found.engine, store, 1)
        self._store = store

    async def call(self, name: str, user: str) -> object:
        calls: Mapping[str, Callable[[], Awaitable[object]]] = {
            "afresh": lambda: self._subscriptions.change(user, "team", Proration("now", "none"), ALONE),
            "difference": lambda: self._subscriptions.change(user, "team", Proration("now", "difference"), ALONE),
            "later": lambda: self._subscriptions.change(user, "team", Proration("period_end", "none"), ALONE),
            "back": lambda: self._subscriptions.change(user, "pro", Proration("now", "none"), ALONE),
            "end": lambda: self._subscriptions.end(user, "default", "now", "stay", ALONE),
            "void": lambda: self._subscriptions.end(user, "default", "now", "void", ALONE),
            "ending": lambda: self._subscriptions.end(user, "default", "period_end", "void", ALONE),
            "assign": lambda: self._subscriptions.assign(user, "pro", Asked(auto_renew=False), ALONE),
            "other": lambda: self._subscriptions.assign(user, "team", Asked(), ALONE),
            "advance": lambda: self._allocation.page(1000),
        }
        found = await calls[name]()
        if isinstance(found, SubscriptionRow):
            return found.plan_id, found.state, found.auto_renew, found.next_plan_id
        return found if isinstance(found, str) else "advanced"


CALLS = ("afresh", "difference", "later", "back", "end", "void", "ending", "assign", "other", "advance")


class Arena:
    """Users of one town, each with the plan pro; `due`: whose period has just ended."""

    def __init__(self, found: Town, *, due: bool) -> None:
        self._town, self._due, self._count = found, due, 0
        self._gated = Gated(found.store)
        self.first, self.second = Caller(found, cast("Store", self._gated)), Caller(found, found.store)

    async def user(self) -> str:
        self._count += 1
        user = f"u{self._count}"
        if not self._due:
            assert await self.second.call("assign", user) == ("pro", "active", False, None)
            return user
        start_ms, end_ms = milliseconds(START), milliseconds(END)
        row = SubscriptionRow(
            user_id=user,
            subscription_id=f"s_{user}",
            plan_id="pro",
            anchor_at_ms=start_ms,
            billing_period="monthly",
            period_started_at_ms=start_ms,
            next_period_at_ms=end_ms,
            given=[[f"s_{user}.0", 100_000_000, start_ms, end_ms]],
            created_at_ms=start_ms,
            updated_at_ms=start_ms,
        )
        assert await self._town.store.insert(row)
        return user

    async def outcome(self, user: str, *answers: object) -> tuple[object, ...]:
        await Jobs(self._town.runtime).until_done("allocate")
        row = await self._town.store.get(SubscriptionRow, user, "default")
        assert row is not None
        seen = (row.plan_id, row.state, row.auto_renew, row.next_plan_id, row.unspent)
        return (*answers, seen, int(await self._town.available(user)))

    async def serial(self, one: str, two: str) -> set[Any]:
        found = set()
        user = await self.user()
        first = await self.second.call(one, user)
        found.add(await self.outcome(user, first, await self.second.call(two, user)))
        user = await self.user()
        second = await self.second.call(two, user)
        found.add(await self.outcome(user, await self.second.call(one, user), second))
        return found

    async def raced(self, one: str, two: str, stop_at: int) -> tuple[bool, tuple[object, ...]]:
        """Whether the place was reached, and what came out."""
        user = await self.user()
        reached, go = self._gated.open_gate(stop_at)
        first = asyncio.ensure_future(self.first.call(one, user))
        waiting = asyncio.ensure_future(reached.wait())
        await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
        second = await self.second.call(two, user)
        go.set()
        waiting.cancel()
        return reached.is_set(), await self.outcome(user, await first, second)


FEW = ("afresh", "void", "ending", "advance")


@pytest.mark.parametrize("due", [False, True], ids=["within a period", "at its end"])
@pytest.mark.parametrize("one", ["afresh", "difference", "end", "ending", "advance"])
async def test_p7_whoever_comes_in_between_the_outcome_is_serial(one: str, due: bool) -> None:
    await race(one, FEW, due=due)


@pytest.mark.slow
@pytest.mark.parametrize("due", [False, True], ids=["within a period", "at its end"])
@pytest.mark.parametrize("one", CALLS)
async def test_p7_every_call_against_every_other(one: str, due: bool) -> None:
    await race(one, CALLS, due=due)


async def race(one: str, others: Sequence[str], *, due: bool, store: Store | None = None) -> None:
    async with town(START, store=store) as found:
        await found.plan("pro")
        await found.plan("team", 500)
        await found.set_time(END)
        arena = Arena(found, due=due)
        for two in others:
            serial = await arena.serial(one, two)
            place, is_reached = 1, True
            while is_reached:
                is_reached, outcome = await arena.raced(one, two, place)
                assert outcome in serial, (one, two, place)
                place += 1
            assert place > (3 if due or one != "advance" else 1), (one, two)


@pytest.mark.parametrize("one", ["afresh", "difference", "later", "other"])
async def test_p7_a_plan_that_is_withdrawn_meanwhile_was_there_or_was_not(one: str) -> None:
    place, is_reached, seen = 1, True, set()
    while is_reached:
        async with town(START) as found:
            await found.plan("pro")
            await found.plan("team", 500)
            arena = Arena(found, due=False)
            user = await arena.user() if one != "other" else "new"
            reached, go = arena._gated.open_gate(place)
            first = asyncio.ensure_future(arena.first.call(one, user))
            waiting = asyncio.ensure_future(reached.wait())
            await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
            plan = await found.store.get(PlanRow, "team")
            assert plan is not None
            gone = {"deleted": True, "active": False, "version": 2}
            assert await found.store.swap(plan.model_copy(update=gone))
            go.set()
            waiting.cancel()
            answer, is_reached = await first, reached.is_set()
            left = int(await found.available(user))
            seen.add("refused" if isinstance(answer, str) else "done")
            refused = {"plan-not-found": 0 if one == "other" else 100}
            done_ = {"afresh": 500, "difference": 500, "later": 100, "other": 500}
            assert left == (refused[answer] if isinstance(answer, str) else done_[one])
        place += 1
    assert seen == {"refused", "done"}
