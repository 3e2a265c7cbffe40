"""U9: a call that is cut off anywhere is finished by the next one; what has to end first is said; nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meter.engine import operations
from meter.engine.operations import Asked
from meter.ledger import anonymise
from meter.ledger.anonymise import Anonymised, Anonymiser, Left
from meter.ledger.flusher import Flusher
from meter.ledger.reconcile import Reconcile
from meter.store.plan_rows import ErrandRow, SubscriptionRow
from meter.store.rows import AnonymisationRow
from tests.ledger.ground import Ground
from tests.ledger.naming import keys_naming, rows_naming, working
from tests.ledger.test_rebuild import rebuilt
from tests.partition import HOUR, T0

CALLS_MAX = 60


class CutOff(Exception):
    """The process died."""


class Mortal:
    """Something whose `at`-th awaited call of all is the last: before it is made, or before its answer is heard."""

    def __init__(self, at: int, *, is_made: bool) -> None:
        self.left = at
        self.is_made = is_made

    def of(self, real: Any) -> Any:
        return _Mortal(real, self)


class _Mortal:
    def __init__(self, real: Any, life: Mortal) -> None:
        self._real, self._life = real, life

    def __getattr__(self, name: str) -> Any:
        real, life = getattr(self._real, name), self._life
        if not asyncio.iscoroutinefunction(real):
            return real if name != "fields_naming" else self._pages(real)

        async def mortal(*args: object, **named: object) -> object:
            life.left -= 1
            if life.left > 0:
                return await real(*args, **named)
            if life.is_made:
                await real(*args, **named)
            raise CutOff

        return mortal

    def _pages(self, real: Any) -> Any:
        async def mortal(*args: object) -> AsyncIterator[object]:
            async for page in real(*args):
                self._life.left -= 1
                if self._life.left <= 0:
                    raise CutOff
                yield page

        return mortal


def anonymiser(ground: Ground, life: Mortal | None = None) -> Anonymiser:
    parts: list[Any] = [ground.engine, ground.gateway, ground.store]
    return Anonymiser(*parts) if life is None else Anonymiser(*(life.of(part) for part in parts))


def live_and_end(ground: Ground, user: str) -> None:
    """An account that has come to nothing, with the name in all that its caller chose."""
    ground.run(operations.grant(user, f"{user}-g", 10, asked=Asked(f"k-{user}", f'"metadata":{{"of":"{user}"}}')))
    ground.run(operations.reserve(user, f"{user}-r", 4, HOUR, chosen=True, asked=Asked("", f'"reference":"{user}"')))
    ground.run(operations.commit(f"{user}-r", 3))
    ground.run(operations.deduct(user, 7))


async def nothing_names(ground: Ground, user: str) -> None:
    assert await rows_naming(ground.store, user) == []
    assert keys_naming(ground.client, user) == []


async def no_drifts(ground: Ground) -> None:
    report = await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)
    assert (report.drifts, report.unsettled) == ((), ())


@pytest.mark.parametrize("is_made", [False, True])
async def test_u9_cut_off_at_any_await_the_next_call_finishes_it(ground: Ground, is_made: bool) -> None:
    flusher = ground.flusher(outbox_retention_seconds=3600)
    for at in range(1, CALLS_MAX):
        user, life = f"user.{at:03}.", Mortal(at, is_made=is_made)
        live_and_end(ground, user)
        await ground.drain(flusher)
        async with working(flusher):
            try:
                await anonymiser(ground, life).run(user)
            except CutOff:
                assert (await anonymiser(ground).run(user)).state == "anonymised"
        await nothing_names(ground, user)
        await no_drifts(ground)
        if life.left > 0:
            break
    else:
        pytest.fail(f"a call awaits more than {CALLS_MAX} times")
    assert at > 20, "it was cut off at each of its steps"
    assert len(await ground.store.scan_accounts(0, "", 500)) == at, "an account each"
    assert (await rebuilt(ground)).lost == []
    await no_drifts(ground)


async def test_u9_redis_is_lost_between_its_step_and_the_flush(ground: Ground) -> None:
    """Nobody was told that it was done: the account is there again by its name, and the next call does it."""
    live_and_end(ground, "user.a.")
    await ground.drain()
    flush_seconds, anonymise.FLUSH_SECONDS = anonymise.FLUSH_SECONDS, 0.0
    try:
        assert (await anonymiser(ground).run("user.a.")).state == "pending"
    finally:
        anonymise.FLUSH_SECONDS = flush_seconds
    ground.lose_everything()
    assert (await rebuilt(ground)).lost == []
    assert ground.run(operations.balance("user.a."))["granted"] == 10

    flusher = ground.flusher()
    async with working(flusher):
        assert (await anonymiser(ground).run("user.a.")).state == "anonymised"
    await nothing_names(ground, "user.a.")
    await no_drifts(ground)


async def test_u9_a_rebuild_books_the_step_that_only_redis_had(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    live_and_end(ground, "user.a.")
    await ground.drain()
    monkeypatch.setattr(anonymise, "FLUSH_SECONDS", 0.0)
    assert (await anonymiser(ground).run("user.a.")).state == "pending"

    assert (await rebuilt(ground)).lost == []

    await no_drifts(ground)
    assert (await anonymiser(ground).run("user.a.")).state == "anonymised"
    await nothing_names(ground, "user.a.")
    await no_drifts(ground)


async def test_u9_who_comes_by_the_same_name_meanwhile_is_somebody_else(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_and_end(ground, "user.a.")
    await ground.drain()
    monkeypatch.setattr(anonymise, "FLUSH_SECONDS", 0.0)
    assert (await anonymiser(ground).run("user.a.")).state == "pending"
    ground.run(operations.grant("user.a.", "new", 5))
    assert ground.run(operations.balance("user.a."))["granted"] == 5
    await ground.drain()

    assert (await anonymiser(ground).run("user.a.")).state == "anonymised"

    await no_drifts(ground)
    (account,) = (await ground.store.accounts(["user.a."])).values()
    assert (account.granted, account.available) == (5, 5)
    assert [row.kind for row in await ground.store.history("user.a.", limit=9)] == ["grant"]
    assert [row.grant_id for row in await ground.store.grants_of("user.a.", limit=9)] == ["new"]
    assert (await rebuilt(ground)).lost == []
    await no_drifts(ground)


async def test_u9_two_calls_at_once_are_one(ground: Ground) -> None:
    live_and_end(ground, "user.a.")
    flusher = ground.flusher()
    async with working(flusher):
        found = await asyncio.gather(*(anonymiser(ground).run("user.a.") for _ in range(4)))
    assert {one.state for one in found} == {"anonymised"}
    await nothing_names(ground, "user.a.")
    assert len(await ground.store.scan_accounts(0, "", 9)) == 1
    await no_drifts(ground)


@pytest.mark.parametrize(
    ("left", "ending"),
    [
        (Left(credits=10), operations.void("u", "g")),
        (Left(reservations=1), operations.release("h")),
        (Left(debt=4), operations.grant("u", "paid", 4)),
    ],
    ids=["credits", "reservations", "debt"],
)
async def test_u9_what_is_left_has_to_end_first(
    ground: Ground, left: Left, ending: operations.Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anonymise, "FLUSH_SECONDS", 0.0)
    ground.run(operations.configure("u", overdraft_limit=9))
    if left.credits:
        ground.run(operations.grant("u", "g", 10, effective_at_ms=T0 + HOUR))
    if left.reservations:
        ground.run(operations.reserve("u", "h", 0, HOUR, chosen=True))
    if left.debt:
        ground.run(operations.deduct("u", 4, "overdraft"))
    await ground.drain()

    assert await anonymiser(ground).run("u") == Anonymised("live", left)
    assert await ground.store.find(AnonymisationRow, {}, order_by="user_id", limit=1) == []

    ground.run(ending)
    await ground.drain()
    flusher = ground.flusher()
    monkeypatch.setattr(anonymise, "FLUSH_SECONDS", 10.0)
    async with working(flusher):
        assert (await anonymiser(ground).run("u")).state == "anonymised"


@pytest.mark.parametrize("state", ["active", "set_aside", "ended"])
async def test_u9_a_subscription_has_to_end_first_and_what_it_left_to_do_is_done(ground: Ground, state: str) -> None:
    live_and_end(ground, "u")
    await ground.drain()
    row = SubscriptionRow(
        user_id="u",
        subscription_id="s_1",
        plan_id="pro",
        state=state,
        anchor_at_ms=T0,
        period_started_at_ms=T0,
        next_period_at_ms=T0,
        created_at_ms=T0,
        updated_at_ms=T0,
    )
    errand = ErrandRow(errand_id="void.s_1.2", kind="void", user_id="u", created_at_ms=T0)
    await ground.store.insert(row)
    await ground.store.insert(errand)

    found = await anonymiser(ground).run("u")

    assert found.state == ("busy" if state == "ended" else "subscribed")
    assert ground.run(operations.balance("u"))["granted"] == 10
    if state == "ended":
        await ground.store.remove([errand])
        async with working(ground.flusher()):
            assert (await anonymiser(ground).run("u")).state == "anonymised"


async def test_u9_a_name_that_nothing_has_is_not_known(ground: Ground) -> None:
    assert (await anonymiser(ground).run("nobody")).state == "unknown"
    assert await ground.store.find(AnonymisationRow, {}, order_by="user_id", limit=1) == []


async def test_u9_more_rows_than_a_call_may_take_are_gone_on_with(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_and_end(ground, "user.a.")
    await ground.drain()
    monkeypatch.setattr(anonymise, "PAGE", 1)
    monkeypatch.setattr(anonymise, "WORK_SECONDS", -1.0)
    flusher: Flusher = ground.flusher()
    async with working(flusher):
        assert (await anonymiser(ground).run("user.a.")).state == "pending"
        monkeypatch.setattr(anonymise, "WORK_SECONDS", 20.0)
        assert (await anonymiser(ground).run("user.a.")).state == "anonymised"
    await nothing_names(ground, "user.a.")
