"""What cannot be handled is set aside with an alarm (P5), and outages in the middle keep nothing unsaid (P16)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from meter.engine import operations
from meter.errors import StoreUnavailable, Unavailable
from meter.ledger.pending_grants import pending_row
from meter.plans.effects import Effects
from meter.store.base import StoreRefused
from meter.store.catalog import Change
from meter.store.memory.store import MemoryStore, _Tables
from meter.store.plan_rows import ErrandRow, SubscriptionRow
from meter.store.rows import AlertRow, GrantRow
from meter.worker.jobs import allocate, pending
from tests.plans.conftest import START
from tests.plans.town import Town, days, done, refusal, town

END = START.replace(month=2, day=28)


async def spoil(found: Town, user: str, **members: object) -> None:
    """Changes a stored row as no code of ours does."""
    row = await found.store.get(SubscriptionRow, user, "default")
    assert row is not None
    assert await found.store.swap(row.model_copy(update={**members, "version": row.version + 1}))


FAULTS: tuple[dict[str, object], ...] = ({"time_zone": "right/Europe/Berlin"}, {"plan_id": "gone"})


@pytest.mark.parametrize("fault", FAULTS, ids=["zone", "plan"])
async def test_p5_one_that_cannot_be_worked_out_holds_nobody_up(
    here: Town, fault: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.jobs.SUBSCRIPTIONS_PER_PAGE", 2)
    await here.plan("pro")
    for user in ("a", "b", "c", "x", "y", "z"):
        done(await here.meter.subscribe(user, "pro"))
    for user in ("a", "b", "c"):
        await spoil(here, user, **fault)
    await here.set_time(END)

    context = here.context
    assert await allocate(context) == 3

    assert context["jobs"].set_aside == {"subscription": 3}
    assert [await here.available(user) for user in "abcxyz"] == [0, 0, 0, 100, 100, 100]
    row = done(await here.meter.subscriptions("a")).items[0]
    assert row.state == "set_aside"
    assert row.fault
    alarms = await here.store.find(AlertRow, {"kind": "transaction_error"}, order_by="alert_id", limit=9)
    assert sorted(one.user_id for one in alarms) == ["a", "b", "c"]
    events = await here.store.events(kind="error", limit=9)
    assert all("is set aside" in event.message for event in events)
    assert await here.allocate() == 0
    assert refusal(await here.meter.subscribe("a", "pro")).code == "SUBSCRIPTION_SET_ASIDE"
    assert done(await here.meter.unsubscribe("b")).state == "ended"


async def test_p5_one_that_was_set_aside_is_tried_again(here: Town) -> None:
    await here.plan("pro")
    done(await here.meter.subscribe("u", "pro"))
    await spoil(here, "u", time_zone="Mars/Base")
    await here.set_time(END)
    assert await here.allocate() == 0
    await spoil(here, "u", time_zone="UTC")
    assert await here.allocate() == 0
    await here.set_time(END + days(1 / 24))
    assert await here.allocate() == 1
    assert await here.available() == 100
    assert done(await here.meter.subscriptions("u")).items[0].fault is None


class Refusing(MemoryStore):
    """Refuses rows of one user for good."""

    async def commit(self, change: Change) -> bool:
        if any(isinstance(row, SubscriptionRow) and row.user_id == "b" for row in change.swaps):
            raise StoreRefused("a value fits no column")
        return await super().commit(change)


async def test_p5_one_that_the_store_refuses_holds_nobody_up() -> None:
    async with town(START, store=Refusing(_Tables())) as found:
        await found.plan("pro")
        for user in "abc":
            done(await found.meter.subscribe(user, "pro"))
        await found.set_time(END)
        assert await found.allocate() == 2
        assert [await found.available(user) for user in "abc"] == [100, 0, 100]
        assert done(await found.meter.subscriptions("a")).items[0].state == "active"
        row = await found.store.get(SubscriptionRow, "b", "default")
        assert row is not None
        assert (row.state, row.fault) == ("set_aside", "a value fits no column")


async def test_p5_pending_grants_that_are_refused_hide_none_behind_them(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a page, and one that not even an operation can be made of."""
    monkeypatch.setattr("meter.ledger.pending_grants.OLD_PER_PAGE", 2)
    now_ms = await here.engine.now_ms()

    def row(user: str, at_ms: int, **members: object) -> GrantRow:
        one = operations.grant(user, "g", 5, asked=operations.Asked(f"grant {user} g"))
        return pending_row(one, 1, "", at_ms).model_copy(update=members)

    over = [row(f"over{n}", now_ms - 90_000 + n, effective_at_ms=now_ms, expires_at_ms=now_ms) for n in range(5)]
    broken = row("broken", now_ms - 80_000, at_end="no end at all")
    good = row("good", now_ms - 70_000)
    await here.store.insert_many([*over, broken, good])

    assert await pending(here.context) == 1

    assert await here.available("good") == Decimal("0.000005")
    alarms = await here.store.find(AlertRow, {"kind": "transaction_error"}, order_by="alert_id", limit=20)
    assert sorted(one.user_id for one in alarms) == ["broken", *(f"over{n}" for n in range(5))]
    assert await pending(here.context) == 1
    assert len(await here.store.find(AlertRow, {"kind": "transaction_error"}, order_by="alert_id", limit=20)) == 6


class Failing(MemoryStore):
    """Goes away before or after the n-th commit: the caller cannot tell which."""

    fails: tuple[int, str] = (0, "")

    async def commit(self, change: Change) -> bool:
        number, moment = self.fails
        self.fails = (number - 1, moment)
        if number == 1 and moment == "before":
            raise StoreUnavailable("away")
        found = await super().commit(change)
        if number == 1:
            raise StoreUnavailable("away")
        return found


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("key", [None, "key-1"])
@pytest.mark.parametrize("way", ["assign", "afresh", "difference", "void"])
async def test_p16_a_store_that_goes_in_the_middle_did_all_or_nothing(way: str, key: str | None, moment: str) -> None:
    store = Failing(_Tables())
    async with town(START, store=store) as found:
        await found.plan("pro")
        await found.plan("team", 500)
        if way != "assign":
            done(await found.meter.subscribe("u", "pro"))
        calls: dict[str, Any] = {
            "assign": lambda: found.meter.subscribe("u", "team", idempotency_key=key),
            "afresh": lambda: found.meter.upgrade("u", "team", idempotency_key=key),
            "difference": lambda: found.meter.upgrade("u", "team", proration="difference", idempotency_key=key),
            "void": lambda: found.meter.unsubscribe("u", unspent="void", idempotency_key=key),
        }
        store.fails = (1, moment)
        with pytest.raises(Unavailable):
            await calls[way]()
        left = await found.available()
        await found.allocate()
        expected = {"assign": 500, "afresh": 500, "difference": 500, "void": 0}[way]
        assert await found.available() == (expected if moment == "after" else left)
        done(await calls[way]())
        assert await found.available() == expected
        assert await found.store.find(ErrandRow, {}, order_by="errand_id", limit=9) == []


@pytest.mark.parametrize("way", ["assign", "afresh", "void"])
async def test_p16_a_redis_that_goes_after_the_decision_is_told_later(
    here: Town, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the truth: the credits are durable, and come when Redis is back."""
    await here.plan("pro")
    await here.plan("team", 500)
    if way != "assign":
        done(await here.meter.subscribe("u", "pro"))

    async def away(*_: object) -> None:
        return None

    with monkeypatch.context() as outage:
        outage.setattr(Effects, "carry_out", away)
        if way == "void":
            assert done(await here.meter.unsubscribe("u", unspent="void")).state == "ended"
        elif way == "assign":
            assert done(await here.meter.subscribe("u", "team")).state == "active"
        else:
            assert done(await here.meter.upgrade("u", "team")).plan_id == "team"
        assert await here.available() == (0 if way == "assign" else 100)

    await here.allocate()

    assert await here.available() == (0 if way == "void" else 500)
    assert await here.store.find(ErrandRow, {}, order_by="errand_id", limit=9) == []


async def test_p16_without_redis_nothing_is_kept(here: Town) -> None:
    await here.plan("pro")
    here.server.connected = False
    for _ in range(2):
        with pytest.raises(Unavailable):
            await here.meter.subscribe("u", "pro")
    here.server.connected = True
    assert await here.store.find(SubscriptionRow, {}, order_by="user_id", limit=9) == []
    assert done(await here.meter.subscribe("u", "pro")).state == "active"
    assert await here.available() == 100
