"""The allocation when another process deals with the same subscription at that very moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from meter.plans.allocation import Allocation, Page
from meter.store.base import Store
from meter.store.catalog import Change, Plain
from meter.store.memory.store import MemoryStore
from meter.store.plan_rows import SubscriptionRow
from meter.store.row import Row
from tests.plans.conftest import START
from tests.plans.town import Town, done

END = START.replace(month=2, day=28)
R = TypeVar("R", bound=Row)


class Meddled(MemoryStore):
    """The memory of another store; another process comes in once, before the first call of that name."""

    def __init__(self, store: Store, before: str, meddle: Callable[[], Awaitable[None]]) -> None:
        assert isinstance(store, MemoryStore)
        super().__init__(store._tables)
        self._before = before
        self._meddle: Callable[[], Awaitable[None]] | None = meddle

    async def _let_in(self, name: str) -> None:
        if name == self._before and self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            await meddle()

    async def commit(self, change: Change) -> bool:
        await self._let_in("commit")
        return await super().commit(change)

    async def get(self, model: type[R], *key: Plain) -> R | None:
        await self._let_in(f"get {model.__name__}")
        return await super().get(model, *key)


async def change(store: Store, user: str, **members: object) -> None:
    """The next version of a subscription."""
    row = await store.get(SubscriptionRow, user, "default")
    assert row is not None
    assert await store.swap(row.model_copy(update={"version": row.version + 1, **members}))


async def test_of_a_page_the_others_move_on(here: Town) -> None:
    """One version that has changed must not hold up the rest of the transaction."""
    await here.plan("pro")
    for user in "abcd":
        done(await here.meter.subscribe(user, "pro"))
    await here.set_time(END)
    meddled = Meddled(here.store, "commit", lambda: change(here.store, "b", metadata={"seen": 1}))

    page = await Allocation(here.engine, meddled, 1).page(100)

    assert (page.moved, page.aside) == (3, 0)
    assert await Allocation(here.engine, here.store, 1).page(100) == Page(1, more=False)
    row = await here.store.get(SubscriptionRow, "b", "default")
    assert row is not None and (row.period, row.metadata) == (1, {"seen": 1})


async def test_what_was_dealt_with_is_not_set_aside(here: Town) -> None:
    await here.plan("pro")
    done(await here.meter.subscribe("a", "pro"))
    await change(here.store, "a", time_zone="right/Europe/Berlin")
    await here.set_time(END)
    meddled = Meddled(here.store, "get SubscriptionRow", lambda: change(here.store, "a", state="ended"))

    page = await Allocation(here.engine, meddled, 1).page(100)

    assert (page.moved, page.aside) == (0, 0)
    row = await here.store.get(SubscriptionRow, "a", "default")
    assert row is not None and row.state == "ended"
