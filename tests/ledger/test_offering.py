"""What sidecars remember is offered back to a rebuild: acknowledged, never flushed, and gone from Redis."""

from __future__ import annotations

from typing import cast

import pytest

from meter.engine import acknowledged, operations, priced, upkeep
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import Entry, Kind
from meter.engine.prices import usage_text
from meter.errors import PartitionRefused, StoreUnavailable
from meter.ledger.offering import Offering
from meter.ledger.pending_grants import Intake, grant_operation, pending_row, told_of
from meter.store.base import Store
from tests.ledger.ground import Ground
from tests.ledger.test_flusher import Failing
from tests.ledger.test_rebuild import Copy, books, rebuilding, rebuilt
from tests.lua.prices import put_card
from tests.partition import HOUR, T0, Answer, dump

OFFERED = {Kind.DEDUCT, Kind.REFUND, Kind.RESERVE, Kind.EXTEND, Kind.COMMIT, Kind.RELEASE, Kind.VOID, Kind.ADJUST}
USAGE = usage_text("gpt-4o", {"input": 1000, "output": 320})
ASKED_FOR = usage_text("gpt-4o", {"input": 1000, "max_output": 500})
LEFT_OUT = ("draws", "created_at_ms", "seq", "epoch", "prev", "transaction_id")


@pytest.fixture
def sidecar(live: Ground) -> Looking:
    """It remembers what it tells its callers."""
    return Looking(live)


async def tell(ground: Ground) -> list[tuple[Operation, Answer]]:
    """One of everything that can be offered back, asked for by way of the engine."""
    told: list[tuple[Operation, Answer]] = []

    async def call(user_id: str, one: Operation) -> Answer:
        answer = await ground.ask(user_id, one)
        assert answer.status == "ok", answer
        told.append((one, answer))
        return answer

    def key() -> Asked:
        return Asked(f"key-{len(told)}", f'"description":"call {len(told)}","metadata":{{"n":{len(told)}}}')

    charge = await call("u", operations.deduct("u", 30))
    await call("u", operations.deduct("u", 5, asked=key()))
    await call("v", operations.deduct("v", 80, "overdraft", key()))
    await call("w", operations.deduct("w", 1_000, "partial", key()))
    await call("u", operations.reserve("u", "hold", 35, HOUR, chosen=True, asked=key()))
    await call("u", operations.extend("hold", 2 * HOUR, 5, key()))
    await call("u", operations.reserve("u", f"r0_{'A' * 22}", 20, HOUR, chosen=False, at_end="charge"))
    await call("u", operations.reserve("u", f"r0_{'B' * 22}", 20, HOUR, chosen=False))
    await call("u", operations.commit(f"r0_{'B' * 22}", 12, asked=key()))
    await call("u", operations.reserve("u", "over", 20, HOUR, chosen=True))
    await call("u", operations.commit("over", 26))
    await call("u", operations.reserve("u", "given", 20, HOUR, chosen=True))
    await call("u", operations.release("given"))
    await call("u", operations.void("u", "void", key()))
    await call("u", operations.adjust("u", "", 4, key()))
    draws = tuple((draw.grant_id, draw.amount) for draw in ground.partition.entry_of(charge["transaction_id"]).draws)
    await call("p", priced.deduct_usage("p", USAGE, asked=key()))
    await call("p", priced.reserve_usage("p", f"r0_{'C' * 22}", ASKED_FOR, HOUR, chosen=False))
    await call("p", priced.reserve_usage("p", f"r0_{'D' * 22}", ASKED_FOR, HOUR, chosen=False, asked=key()))
    await call("p", priced.commit_usage(f"r0_{'D' * 22}", USAGE, asked=key()))
    await call("p", operations.commit(f"r0_{'C' * 22}"))
    name = charge["transaction_id"]
    await call("u", operations.refund("u", name, 10, charged=30, refunded=0, draws=draws, asked=key()))
    return told


async def give(ground: Ground) -> None:
    """Credits of four users, which the store has."""
    ground.run(operations.grant("u", "g", 500))
    ground.run(operations.grant("u", "void", 9, priority=99))
    ground.run(operations.configure("v", overdraft_limit=100))
    ground.run(operations.grant("w", "g", 7))
    ground.run(operations.grant("p", "g", 5_000_000))
    await ground.drain()
    put_card(ground.partition)


def without_draws(entry: Entry) -> dict[str, object]:
    found = {name: value for name, value in entry._asdict().items() if name not in LEFT_OUT}
    detail = {name: value for name, value in entry.detail.items() if name != "alerts"}
    return found | {"detail": detail}


class Looking:
    """A sidecar whose watch looks when it is told to."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._offering = Offering(ground.engine, ground.gateway, ground.store)

    async def look(self) -> None:
        await self._offering.see(0, await self._ground.gateway.partition_state(self._ground.partition.keys.meta))


async def test_what_is_remembered_is_what_was_booked_but_for_its_draws(live: Ground, sidecar: Looking) -> None:
    await give(live)
    before = len(live.partition.entries())
    told = await tell(live)
    booked = [entry for entry in live.partition.entries()[before:] if entry.kind in OFFERED]
    kept = live.engine.acknowledged(0).entries()
    assert len(kept) == len(told)
    for entry, was, (one, answer) in zip(kept, booked, told, strict=True):
        assert without_draws(entry) == without_draws(was), one
        assert entry.transaction_id in ("", was.transaction_id), one
        timed = entry._replace(created_at_ms=was.created_at_ms)
        assert operations.answer_of(timed) == answer.line[2:], one
    assert {entry.kind for entry in kept} == OFFERED


@pytest.mark.parametrize("begins", ["now", "with something flushed", "by a process that has ended"])
async def test_x1_what_was_spent_of_credits_that_nobody_flushed_is_not_given_back(
    live: Ground, sidecar: Looking, begins: str
) -> None:
    """The grants are durable, but their entries, and so the store's sums, are not: spending of them is booked behind
    them all the same, and keeps its id and its answer.
    """
    if begins == "with something flushed":
        live.run(operations.grant("u", "g0", 5, priority=1))
        await live.drain()
    intake = Intake(live.engine, live.store)
    key = Asked("k", '"description":"of nobody\'s"')
    wanted = operations.grant("u", "g", 100, priority=2, chosen=True, asked=Asked("add"))
    row = pending_row(wanted, 1, "add", T0)
    if begins == "by a process that has ended":
        assert await live.store.add_pending_grant(row) is None
        added = live.run(grant_operation(row, told_of(row))).line
    else:
        added = await intake.add(row)
    assert added.startswith("0 ok u g ")
    charge = await live.ask("u", operations.deduct("u", 60, asked=key))
    await live.ask("u", operations.reserve("u", "hold", 30, HOUR, chosen=True))
    before = live.run(operations.balance("u")).line
    live.lose_everything()
    await sidecar.look()
    report = await rebuilt(live)
    assert (report.offered, report.reapplied, report.lost, report.doubled) == (2, 1, [], [])
    assert live.run(operations.balance("u")).line == before
    assert (await live.ask("u", operations.deduct("u", 60, asked=key))).line == "1" + charge.line[1:]
    again = (await intake.add(row)).split(" ")
    assert again[:4] == ["1", "ok", "u", "g"] and again[4]
    assert again[1:] == added.split(" ")[1:] or begins == "by a process that has ended"  # nobody knows what it answered
    assert live.run(operations.balance("u")).line == before
    await live.drain()
    await live.check()


@pytest.mark.parametrize("flushed", [0, 7])
async def test_after_a_total_loss_nothing_that_was_acknowledged_is_gone(
    live: Ground, sidecar: Looking, flushed: int
) -> None:
    await give(live)
    told = await tell(live)
    if flushed:
        await live.flusher(flush_max=flushed).step()
    before = books(live)
    balances = {user: live.run(operations.balance(user)).line for user in "uvwp"}
    live.lose_everything()
    await sidecar.look()
    report = await rebuilt(live)
    assert (report.offered, report.lost, report.doubled) == (len(told) - flushed, [], [])
    assert f"{report.offered} of those were offered back" in report.unknown
    assert {user: live.run(operations.balance(user)).line for user in "uvwp"} == balances
    assert books(live)["holds"].keys() == before["holds"].keys()
    for one, answer in told:
        if one[1] or one[0] in ("commit", "release"):
            assert (await live.ask("u", one)).line == "1" + answer.line[1:], one
    row = await live.store.transaction(told[0][1]["transaction_id"])
    assert row is not None and (row.kind, row.amount) == ("deduct", 30)
    await live.drain()
    await live.check()
    assert "meter:{p0}:offers" not in dump(live.client)


@pytest.mark.parametrize(("left", "missing"), [(500, 0), (70, 20)])
async def test_what_two_histories_acknowledged_is_booked_once_as_far_as_credits_go(
    live: Ground, sidecar: Looking, left: int, missing: int
) -> None:
    """A stale replica took over and acknowledged more, before anybody noticed."""
    live.run(operations.grant("u", "g", left))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy = Copy(live)
    await live.ask("u", operations.deduct("u", 20, asked=Asked("first")))
    second = await live.ask("u", operations.deduct("u", 30))
    copy.restore()
    live.partition.sender = "after"
    live.run(operations.deduct("u", 40, asked=Asked("other")))
    with pytest.raises(PartitionRefused, match="lost"):
        await live.ask("u", operations.deduct("u", 1))
    await sidecar.look()
    report = await rebuilt(live)
    assert (report.reapplied, report.offered, len(report.lost)) == (1, 2, bool(missing))
    assert live.run(operations.balance("u")).balances == (max(0, left - 90), 0, 0)
    row = await live.store.transaction(second["transaction_id"])
    assert row is not None and row.amount == 30 - missing
    await live.drain()
    await live.check()


async def test_what_a_caller_repeated_meanwhile_is_not_booked_again(live: Ground, sidecar: Looking) -> None:
    """Its key was lost with it, so that another sidecar did it anew before the offer was made."""
    await give(live)
    once = operations.deduct("u", 20, asked=Asked("once"))
    copy = Copy(live)
    await live.ask("u", once)
    copy.restore()
    live.partition.sender = "after"
    live.run(once)
    await sidecar.look()
    live.partition.run(upkeep.state("lost", 0, "told so"))
    await sidecar.look()
    report = await rebuilt(live)
    assert (report.reapplied, report.offered, len(report.doubled)) == (1, 0, 1)
    assert live.run(operations.balance("u")).balances == (489, 0, 0)


async def test_a_rebuild_that_was_cut_off_with_offers_books_them_once(live: Ground, sidecar: Looking) -> None:
    await give(live)
    told = await tell(live)
    balances = {user: live.run(operations.balance(user)).line for user in "uvwp"}
    live.lose_everything()
    await sidecar.look()
    with pytest.raises(StoreUnavailable):
        await rebuilding(live, cast("Store", Failing(live.store, "scan_accounts"))).partition(0)
    report = await rebuilt(live)
    assert (report.offered, report.lost, report.doubled) == (0, [], [])
    assert {user: live.run(operations.balance(user)).line for user in "uvwp"} == balances
    rows = [row.transaction_id for row in await live.transactions()]
    named = [answer["transaction_id"] for one, answer in told if one[0] in ("deduct", "commit", "refund", "void")]
    assert set(named) <= set(rows) and len(rows) == len(set(rows))


async def test_what_the_store_has_is_forgotten_and_what_nobody_took_is_told(
    live: Ground, sidecar: Looking, caplog: pytest.LogCaptureFixture
) -> None:
    kept = live.engine.acknowledged(0)
    await give(live)
    await tell(live)
    await sidecar.look()
    assert len(kept) > 0
    await live.drain()
    await sidecar.look()
    assert len(kept) == 0
    gone = await live.ask("u", operations.deduct("u", 1))
    live.lose_everything()
    await rebuilt(live)  # it is over before this process has looked
    await sidecar.look()
    named = f'first=["{gone["transaction_id"]} deduct u 1"]'
    assert f"acknowledged, and gone partition=0 transactions=1 {named}" in caplog.text
    assert len(kept) == 0


async def test_only_the_latest_are_kept(live: Ground, sidecar: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "OPERATIONS_MAX", 3)
    await give(live)
    last = [(await live.ask("u", operations.deduct("u", n)))["transaction_id"] for n in range(5)][-3:]
    kept = live.engine.acknowledged(0)
    assert (len(kept), [entry.transaction_id for entry in kept.entries()]) == (3, last)


async def test_what_a_pool_paid_is_told_of_and_nobody_else_pays_it(live: Ground, sidecar: Looking) -> None:
    """An answer tells the whole of a charge: what is booked of it again is the part of the path's own credits."""
    live.run(operations.grant("t", "g", 100))
    live.run(operations.grant("t/u", "g", 10))
    live.run(operations.configure("t", pool=True))
    await live.drain()
    charge = await live.ask("t/u", operations.deduct("t/u", 15))
    await live.ask("t/u", operations.reserve("t/u", "hold", 7, HOUR, chosen=True))
    live.lose_everything()
    await sidecar.look()
    report = await rebuilt(live)
    assert (report.offered, [line.split(": ")[1] for line in report.lost]) == (
        1,
        ["5 of it are not covered", "insufficient"],
    )
    assert live.run(operations.balance("t/u")).balances == (0, 0, 0)
    assert live.run(operations.balance("t")).balances == (100, 0, 0)
    row = await live.store.transaction(charge["transaction_id"])
    assert row is not None and row.amount == 10
    await live.drain()
    await live.check()
