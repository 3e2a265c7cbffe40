"""Credits in: durable first, applied once, whoever is killed or away in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from meter.engine import operations, upkeep
from meter.engine.operations import Asked
from meter.errors import StoreUnavailable, Unavailable
from meter.jobs import Jobs
from meter.ledger.pending_grants import Intake, grant_operation, pending_row
from meter.store.base import Store
from meter.store.rows import AlertRow, GrantRow
from tests.ledger.ground import Ground
from tests.ledger.test_flusher import Failing, alarms
from tests.partition import DAY, MINUTE, T0

SOON = 2**53
AMOUNT_MAX = 2**53 - 1


def wanted(amount: int = 50, *, key: str = "payment", grant_id: str = "g", **terms: Any) -> GrantRow:
    one = operations.grant("u", grant_id, amount, asked=Asked(key or f"grant u {grant_id}"), **terms)
    return pending_row(one, 1, key, T0)


def intake(ground: Ground, store: Store | None = None) -> Intake:
    return Intake(ground.engine, store or ground.store)


def available(ground: Ground) -> int:
    balances = ground.run(operations.balance("u")).balances
    assert balances is not None
    return balances[0]


async def sweep(ground: Ground) -> int:
    return await Jobs(ground.runtime).until_done("pending")


async def test_it_is_durable_applied_and_marked_by_the_flush(ground: Ground) -> None:
    line = await intake(ground).add(wanted())
    assert line.startswith("0 ok u g ") and line.endswith(" 50 50 0 0")
    assert [row.grant_id for row in await ground.store.pending_grants(SOON, 10)] == ["g"]
    await ground.drain()
    assert await ground.store.pending_grants(SOON, 10) == []
    row = (await ground.store.grants([("u", "g")]))["u", "g"]
    assert (row.pending, row.operation_id, row.remaining) == (False, "payment", 50)
    await ground.check()


@pytest.mark.parametrize("moment", ["pending", "flushed", "forgotten"])
async def test_the_same_again_answers_as_the_first_time(ground: Ground, moment: str) -> None:
    first = await intake(ground).add(wanted())
    if moment != "pending":
        await ground.drain()
    if moment == "forgotten":
        ground.run(operations.deduct("u", 50))
        await ground.drain()  # or nothing of it is forgotten
        for days in (1, 2, 3):
            ground.partition.freeze(T0 + days * (DAY + MINUTE))
            ground.run(upkeep.rotate())
            ground.run(upkeep.expire("u"))
        assert ground.partition.remaining("u") == {}
        await ground.drain()
    again = await intake(ground).add(wanted())
    assert again == "1" + first[1:], "the grant was applied a second time"
    assert available(ground) == (0 if moment == "forgotten" else 50)
    assert await intake(ground).add(wanted(51)) == "0 key_reused"
    assert (await intake(ground).add(wanted(51, key="other"))).startswith("0 exists")
    await ground.drain()
    assert len([row for row in await ground.transactions() if row.kind == "grant"]) == 1


async def test_many_are_applied_once_even_long_after_redis_forgot_them(ground: Ground) -> None:
    rows = [wanted(10, key="", grant_id=f"g{n}") for n in range(5)]
    await ground.store.insert_many(rows)
    assert await intake(ground).apply_many(rows[:3]) == 3
    await ground.drain()
    ground.run(operations.deduct("u", 30))
    await ground.drain()  # or nothing of it is forgotten
    for days in (1, 2, 3):
        ground.partition.freeze(T0 + days * (DAY + MINUTE))
        ground.run(upkeep.rotate())
        ground.run(upkeep.expire("u"))
    assert ground.partition.remaining("u") == {}
    stored = await ground.store.grants([("u", row.grant_id) for row in rows])
    assert await intake(ground).apply_many(list(stored.values())) == 2
    assert ground.partition.remaining("u") == {"g3": 10, "g4": 10}
    await ground.drain()
    await ground.check()


async def test_killed_between_insert_and_apply_the_sweep_applies_once(ground: Ground) -> None:
    await ground.store.add_pending_grant(wanted())
    assert await sweep(ground) == 1
    assert await sweep(ground) == 1  # still pending until it is flushed, and applied once all the same
    assert available(ground) == 50
    await ground.drain()
    assert await sweep(ground) == 0
    assert (await intake(ground).add(wanted())).startswith("1 ok u g ")
    await ground.check()


async def test_many_at_once_apply_it_once(ground: Ground) -> None:
    lines = await asyncio.gather(*(intake(ground).add(wanted()) for _ in range(10)))
    assert len({line[1:] for line in lines}) == 1 and sorted(line[0] for line in lines) == ["0"] + ["1"] * 9
    assert available(ground) == 50


async def test_without_the_store_nothing_is_written(ground: Ground) -> None:
    store: Any = Failing(ground.store, "add_pending_grant")
    with pytest.raises(StoreUnavailable):
        await intake(ground, store).add(wanted())
    assert available(ground) == 0 and await ground.store.pending_grants(SOON, 10) == []


async def test_without_redis_nothing_is_written(ground: Ground) -> None:
    ground.lose_everything()
    with pytest.raises(Unavailable):
        await intake(ground).add(wanted())
    assert await ground.store.pending_grants(SOON, 10) == []


async def test_when_redis_goes_in_between_it_stays_pending(ground: Ground) -> None:
    copies: dict[bytes, bytes] = {}

    class Losing(Failing):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._store, name)
            if name != "add_pending_grant":
                return real

            async def add(row: GrantRow) -> GrantRow | None:
                found: GrantRow | None = await real(row)
                copies.update({key: ground.client.dump(key) for key in ground.client.keys("*")})
                ground.lose_everything()
                return found

            return add

    store: Any = Losing(ground.store, "")
    assert await intake(ground, store).add(wanted()) == "0 pending u g 50"
    for key, text in copies.items():
        ground.client.restore(key, 0, text)
    assert await sweep(ground) == 1
    assert available(ground) == 50


@pytest.mark.parametrize("by", ["the sweep", "the same call again"])
async def test_one_that_ended_while_redis_was_away_is_given_all_the_same(ground: Ground, by: str) -> None:
    """It was promised: it is in the ledger, and so is its end."""
    row = wanted(expires_at_ms=T0 + MINUTE)
    await ground.store.add_pending_grant(row)
    ground.partition.freeze(T0 + 2 * MINUTE)
    if by == "the sweep":
        assert await sweep(ground) == 1
    else:
        assert (await intake(ground).add(row)).startswith("0 ok u g ")
    assert (await intake(ground).add(row)).startswith("1 ok u g ")
    assert available(ground) == 0
    await ground.drain()
    assert [one.kind for one in await ground.transactions()] == ["grant", "grant_expired"]
    assert await ground.store.pending_grants(SOON, 10) == [] and await alarms(ground.store) == []
    await ground.check()


class Between(Failing):
    """A store after one of whose calls, or before it, something happens."""

    def __init__(self, real: Store, name: str, happens: Callable[[], object], *, before: bool = False) -> None:
        super().__init__(real, "")
        self._name, self._happens, self._is_before = name, happens, before

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._name:
            return real

        async def call(*arguments: object) -> object:
            if self._is_before:
                self._happens()
            found: object = await real(*arguments)
            if not self._is_before:
                self._happens()
            return found

        return call


async def test_one_that_ended_on_its_way_is_given_by_its_first_try(ground: Ground) -> None:
    """Redis was away for as long as it lived. The try was refused, and forgot it under a twin that was let in."""
    row = wanted(expires_at_ms=T0 + MINUTE)
    store: Any = Between(ground.store, "add_pending_grant", lambda: ground.partition.freeze(T0 + 2 * MINUTE))
    assert (await intake(ground, store).add(row)).startswith("0 ok u g ")
    assert (await intake(ground).add(row)).startswith("1 ok u g ")
    await ground.drain()
    assert (await intake(ground).add(row)).startswith("1 ok u g ")
    assert [one.kind for one in await ground.transactions()] == ["grant", "grant_expired"]
    await ground.check()


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_one_whose_twin_was_let_in_while_it_was_refused_is_given_once(ground: Ground, is_flushed: bool) -> None:
    """The row of both is dropped then; the next try finds the twin by the grant_id, which is that of the key."""

    class Full(Failing):
        async def run(self, *asked: object) -> str:
            return "0 too_many 0 0 0"

    row, engine = wanted(50), Full(ground.engine, "")  # type: ignore[arg-type]
    twin = grant_operation(row, "")
    store: Any = Between(ground.store, "drop_pending_grant", lambda: ground.run(twin), before=True)
    assert (await Intake(engine, store).add(row)).startswith("0 too_many")  # type: ignore[arg-type]
    if is_flushed:
        await ground.drain()
    assert (await intake(ground).add(row)).startswith("1 ok u g ")
    await ground.drain()
    assert available(ground) == 50
    assert [one.kind for one in await ground.transactions()] == ["grant"]
    assert await ground.store.pending_grants(SOON, 10) == []
    await ground.check()


async def test_a_clock_that_is_ahead_keeps_no_sweep_waiting(ground: Ground) -> None:
    """A sidecar an hour ahead promises what Redis loses: it is old 30 seconds later by Redis' clock."""
    await intake(ground).add(wanted().model_copy(update={"created_at_ms": T0 + 60 * MINUTE}))
    (row,) = await ground.store.pending_grants(SOON, 10)
    assert row.created_at_ms == T0


async def test_one_that_had_ended_when_it_was_asked_for_is_no_promise(ground: Ground) -> None:
    """Not for a call that finds the row of its twin, either."""
    row = wanted(expires_at_ms=T0 - MINUTE)
    await ground.store.add_pending_grant(row)
    assert (await intake(ground).add(row)).startswith("0 ended")
    assert await sweep(ground) == 0
    assert await ground.store.pending_grants(SOON, 10) == [] and await alarms(ground.store) == []
    assert ground.partition.entries() == []


async def test_a_clock_that_is_behind_makes_no_promise_of_what_has_ended(ground: Ground) -> None:
    """A sidecar an hour behind ends before it can tell its caller no."""
    row = wanted(expires_at_ms=T0 - MINUTE).model_copy(update={"created_at_ms": T0 - 60 * MINUTE})

    class Killed(Failing):
        def __getattr__(self, name: str) -> Any:
            if name == "drop_pending_grant":
                raise RuntimeError("killed")
            return getattr(self._store, name)

    store: Any = Killed(ground.store, "")
    with pytest.raises(RuntimeError):
        await intake(ground, store).add(row)
    assert await sweep(ground) == 0
    assert await ground.store.pending_grants(SOON, 10) == [] and ground.partition.entries() == []


async def test_what_redis_refuses_is_not_kept(ground: Ground) -> None:
    line = await intake(ground).add(wanted(expires_at_ms=T0 - 1))
    assert line.startswith("0 ended")
    assert await ground.store.pending_grants(SOON, 10) == []
    assert await ground.store.grants([("u", "g")]) == {}


async def test_a_pending_one_that_is_refused_later_is_an_alarm(ground: Ground) -> None:
    await ground.store.add_pending_grant(wanted(AMOUNT_MAX))
    await ground.store.add_pending_grant(wanted(7, key="k2", grant_id="earlier"))
    ground.partition.advance(2 * MINUTE)
    for _ in range(2):
        assert await sweep(ground) == 1
    (event,) = await alarms(ground.store)
    assert event.user_id == "u" and "is durable, but refused: overflow" in event.message
    (told,) = await ground.store.find(AlertRow, {}, order_by="alert_id", limit=9)
    assert (told.alert_id, told.kind, told.user_id) == (
        f"transaction_error.{event.event_id}",
        "transaction_error",
        "u",
    )
    assert told.payload == {"event_id": event.event_id, "message": event.message, "grant_id": "g"}
    assert told.created_at_ms == T0 + 2 * MINUTE
    assert available(ground) == 7


def test_a_grants_key_is_none_that_a_caller_can_have() -> None:
    assert grant_operation(wanted(), "")[1] == "grant u g"
