"""From a crossing to a grant, whatever the provider and the worker do: exactly one payment, exactly one grant."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from meter.amount import AmountScale
from meter.engine.operations import deduct, grant
from meter.engine.top_ups import Terms, top_up
from meter.ledger.pending_grants import Intake
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.store.rows import EventRow
from meter.top_ups.carrying import TopUps
from meter.top_ups.provider import EventRefused
from tests.partition import DAY
from tests.top_ups.conftest import Shop


async def one_payment_one_grant(shop: Shop) -> None:
    """What holds after everything: the money was taken once, and is there once."""
    row = await shop.row()
    assert (row.state, row.outcome) == ("ended", "paid")
    assert len(shop.bank.taken) == 1
    assert [(one.grant_id, one.amount) for one in await shop.bought()] == [(row.top_up_id, 200)]
    assert shop.available() == 240
    assert shop.state() == "a"
    drifts = (await Reconcile(shop.ground.engine, shop.ground.gateway, shop.ground.store).partition(0)).drifts
    assert drifts == ()


async def test_a_crossing_is_paid_for_once(shop: Shop) -> None:
    await shop.spend(60)
    await shop.work()

    await one_payment_one_grant(shop)
    (payment,) = shop.bank.taken.values()
    assert (payment.user_id, payment.reference, payment.attempt) == ("u", "cus_1:pm_1", 1)
    assert str(payment.credits) == "0.0002"
    assert await shop.told() == ["top_up_paid"]
    assert await shop.work(hours=100) == 0


async def test_workers_that_race_ask_once(shop: Shop) -> None:
    await shop.spend(60)
    workers = [shop.again() for _ in range(8)]

    for _ in range(4):
        await asyncio.gather(*(worker.page() for worker in workers))

    await shop.ground.drain()
    await one_payment_one_grant(shop)
    assert shop.bank.asked.total() == 1


async def test_the_next_crossing_is_another_payment(shop: Shop) -> None:
    await shop.spend(60)
    await shop.work()
    await shop.spend(200)
    await shop.work()

    assert len(shop.bank.taken) == len(await shop.bought()) == 2
    assert shop.available() == 240


@pytest.mark.parametrize("way", ["silent before", "silent behind"])
async def test_no_answer_is_looked_up_before_anything_else(shop: Shop, way: Any) -> None:
    shop.bank.ways = [way]
    await shop.spend(60)
    await shop.work()
    key = (await shop.row()).top_up_id
    assert (shop.bank.asked[key], shop.bank.looked_up[key]) == (1, 0)

    await shop.work(hours=0.1)

    assert shop.bank.looked_up[key] == 1
    assert shop.bank.asked[key] == (2 if way == "silent before" else 1)
    await one_payment_one_grant(shop)


async def test_it_is_not_asked_again_while_nobody_can_look_it_up(shop: Shop) -> None:
    shop.bank.ways, shop.bank.is_blind = ["silent behind"], True
    await shop.spend(60)
    for _ in range(12):
        await shop.work(hours=6)
    assert shop.bank.asked.total() == 1
    assert await shop.told() == ["top_up_stuck"]

    shop.bank.is_blind = False
    await shop.work(hours=6)

    await one_payment_one_grant(shop)


async def test_what_is_pending_is_looked_up_more_and_more_rarely(shop: Shop) -> None:
    shop.bank.ways = ["pending"]
    await shop.spend(60)
    await shop.work()
    row = await shop.row()
    assert (row.step, row.payment_id) == ("pending", f"pi_{row.top_up_id}")
    await shop.work(hours=1)
    assert shop.bank.looked_up.total() == 1

    (payment_key,) = shop.bank.known
    shop.bank.take(shop.top_ups._payment(row))
    await shop.work(hours=1)

    assert shop.bank.asked == {payment_key: 1}
    await one_payment_one_grant(shop)


async def test_declines_back_off_and_end_after_three(shop: Shop) -> None:
    shop.bank.ways = ["declined"] * 3
    await shop.spend(60)
    await shop.work()
    assert [(await shop.row()).declines, shop.state()] == [1, "w"]
    assert await shop.work(hours=0.9) == 0
    await shop.work(hours=0.2)
    assert (await shop.row()).declines == 2
    assert await shop.work(hours=23) == 0
    await shop.work(hours=1.1)

    row = await shop.row()
    assert (row.state, row.outcome, row.declines) == ("ended", "declined", 3)
    assert shop.bank.asked == {row.top_up_id: 1, f"{row.top_up_id}.2": 1, f"{row.top_up_id}.3": 1}
    assert [await shop.told(), shop.state(), shop.bank.taken] == [["top_up_failed"], "o", {}]
    await shop.spend(20)
    assert await shop.work(hours=1000) == 0

    shop.ground.run(top_up("u", "on"))
    await shop.ground.drain()
    await shop.work()
    assert len(await shop.bought()) == 1


async def test_a_second_payment_that_is_taken_makes_the_grant(shop: Shop) -> None:
    shop.bank.ways = ["declined"]
    await shop.spend(60)
    await shop.work()
    await shop.work(hours=2)

    await one_payment_one_grant(shop)
    assert [*shop.bank.taken] == [f"{(await shop.row()).top_up_id}.2"]


async def test_who_has_enough_again_is_not_charged(shop: Shop) -> None:
    shop.bank.ways = ["declined"]
    await shop.spend(60)
    await shop.work()
    shop.ground.run(grant("u", "gift", 500))
    await shop.work(hours=2)

    row = await shop.row()
    assert (row.outcome, row.error) == ("cancelled", "there are enough credits again")
    assert [shop.bank.taken, shop.state()] == [{}, "a"]


async def test_who_turned_it_off_is_not_charged(shop: Shop) -> None:
    await shop.spend(60)
    shop.ground.run(top_up("u", "off"))
    await shop.work()

    assert (await shop.row()).outcome == "cancelled"
    assert [shop.bank.asked.total(), shop.state()] == [0, "o"]


async def test_no_more_is_bought_than_a_period_may_have(shop: Shop) -> None:
    shop.ground.run(top_up("u", "set", Terms(50, 200, 500, "day", "cus_1:pm_1").text))
    for _ in range(3):
        await shop.spend(shop.available() - 40)
        await shop.work()

    assert len(shop.bank.taken) == 2
    assert await shop.told() == ["top_up_limited", "top_up_paid", "top_up_paid"]
    waiting = (await shop.rows())[-1]
    assert (waiting.step, waiting.error) == ("due", "no more may be bought within this day")
    await shop.work(hours=24)
    assert len(shop.bank.taken) == 3


async def test_events_may_come_twice_late_and_in_any_order(shop: Shop) -> None:
    shop.bank.ways = ["pending"]
    await shop.spend(60)
    await shop.work()
    key = (await shop.row()).top_up_id
    shop.bank.take(shop.top_ups._payment(await shop.row()))

    for state in ("paid", "paid", "pending", "declined", "paid"):
        assert await shop.tell(state, key)
        await shop.work()

    await one_payment_one_grant(shop)
    assert shop.bank.looked_up.total() == 0


async def test_a_decline_that_is_told_of_an_earlier_payment_says_nothing(shop: Shop) -> None:
    shop.bank.ways = ["declined", "pending"]
    await shop.spend(60)
    await shop.work()
    await shop.work(hours=2)
    key = (await shop.row()).top_up_id

    await shop.tell("declined", key)

    assert ((await shop.row()).step, (await shop.row()).declines) == ("pending", 1)
    await shop.tell("declined", f"{key}.2")
    assert ((await shop.row()).step, (await shop.row()).declines) == ("due", 2)


async def test_money_that_comes_after_all_is_granted(shop: Shop) -> None:
    shop.bank.ways = ["declined"] * 3
    await shop.spend(60)
    for _ in range(3):
        await shop.work(hours=25)
    key = (await shop.row()).top_up_id

    await shop.tell("paid", key)
    await shop.work()

    assert [one.grant_id for one in await shop.bought()] == [key]
    await shop.tell("paid", f"{key}.2")
    errors = await shop.ground.store.find(EventRow, {"kind": "error"}, order_by="created_at_ms", limit=9)
    assert ["two payments were made" in one.message for one in errors] == [True]
    assert len(await shop.bought()) == 1


@pytest.mark.parametrize("is_early", [False, True])
async def test_money_that_goes_back_voids_the_rest(shop: Shop, is_early: bool) -> None:
    shop.bank.ways = ["pending"]
    await shop.spend(60)
    await shop.work()
    key = (await shop.row()).top_up_id
    if not is_early:
        await shop.tell("paid", key)
        await shop.work()
        shop.ground.run(deduct("u", 90))  # 40 of g, 50 of what was bought
    for _ in range(2):
        await shop.tell("reversed", key)
        await shop.work()
    await shop.tell("paid", key)
    await shop.work()

    (bought,) = await shop.bought()
    assert (bought.state, bought.remaining) == ("voided", 0)
    assert shop.available() == (40 if is_early else 0)
    assert shop.state() == "o"
    assert (await shop.told()).count("top_up_reversed") == 1


async def test_an_event_that_is_not_signed_or_not_ours_changes_nothing(shop: Shop) -> None:
    await shop.spend(60)
    before = await shop.row()
    with pytest.raises(EventRefused):
        await shop.top_ups.heard({}, b"0")
    assert not await shop.tell("paid", "topup:9-9-x-9")

    assert await shop.row() == before


async def test_the_store_alone_goes_on_where_it_was(shop: Shop) -> None:
    shop.bank.ways = ["silent behind"]
    await shop.spend(60)
    await shop.work()
    shop.ground.lose_everything()
    await Rebuild(shop.ground.engine, shop.ground.gateway, shop.ground.store, DAY).partition(0)

    await shop.work(hours=1)

    await one_payment_one_grant(shop)


class Died(BaseException):
    """The worker is killed."""


@dataclass
class Mortal:
    """Stands for an object; the process dies before or behind one of its effects, when its life is over."""

    of: Any
    names: frozenset[str]
    life: list[int]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        if name not in self.names:
            return found

        async def effect(*args: Any, **named: Any) -> Any:
            self._live()
            done = await found(*args, **named)
            self._live()
            return done

        return effect

    def _live(self) -> None:
        self.life[0] -= 1
        if self.life[0] == 0:
            raise Died


def mortal(shop: Shop, steps: int) -> TopUps:
    """A worker that dies at that step: before or behind any of what reaches beyond the process."""
    life = [steps]
    engine = Mortal(shop.ground.engine, frozenset({"run", "run_many"}), life)
    kept = Mortal(shop.ground.store, frozenset({"commit", "swap", "add_pending_grant"}), life)
    bank = Mortal(shop.bank, frozenset({"pay", "look_up"}), life)

    return TopUps(engine, kept, Intake(engine, kept), AmountScale(6), bank)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["paid", "silent before", "silent behind", "pending", "declined"])
async def test_a_death_between_any_two_steps_loses_and_doubles_nothing(shop: Shop, way: Any) -> None:
    """Each step of the life of a request, one after the other; then a healthy worker."""
    deaths, alive = 0, shop.top_ups
    shop.bank.ways = [way]
    await shop.spend(60)
    for steps in range(1, 60):
        shop.top_ups = mortal(shop, steps)
        try:
            await shop.work(hours=0.05)
        except Died:
            deaths += 1
            continue
        break
    shop.top_ups = alive
    await shop.work(hours=2)
    row = await shop.row()
    if row.step == "pending":
        shop.bank.take(alive._payment(row))
        await shop.work(hours=2)
    await shop.work(hours=2)

    assert deaths >= 4
    await one_payment_one_grant(shop)
