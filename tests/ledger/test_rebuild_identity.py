"""What a rebuild finds only in Redis stays what it was: id, kind, key, links, text and time. Money is never invented.

X1: a refund came back as a grant, and what it refunded under another id, so that it could be refunded again. X2: the id
that a caller was given, and the answer to its key, named nothing. X14: what nobody can know is said.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from typing import Any

import pytest

from meter.engine import operations
from meter.engine.at_end import AtEnd
from meter.engine.operations import Asked, Operation
from meter.ledger.history_guard import HistoryLost
from meter.ledger.rebuild import RebuildReport
from meter.ledger.reconcile import Reconcile
from meter.ledger.supervisor import Supervisor
from meter.store.row import Row
from tests.ledger.ground import Ground, until
from tests.ledger.test_flusher import alarms, poison
from tests.ledger.test_property import USERS, Traffic
from tests.ledger.test_rebuild import Copy, now_of, rebuilding, rebuilt
from tests.partition import DAY, HOUR, MINUTE, Answer

KEPT_SECONDS = 3_600
"""The outbox keeps what the store has, as a worker's does."""
SEEDS = int(os.environ.get("METER_TEST_REBUILD_SEEDS", "4"))

Figures = dict[str, Any]


async def figures(ground: Ground) -> Figures:
    """Everything that the store has of accounts and their history, without what a rebuild changes: the epoch."""
    users = [row.user_id for row in await ground.store.scan_accounts(0, "", 1_000)]
    grants = [row for user in users for row in await ground.store.grants_of(user, limit=1_000)]
    holds = [row for user in users for row in await ground.store.reservations_of(user, state=None, limit=1_000)]
    rows: list[Row] = [*await ground.transactions(), *(await ground.store.accounts(users)).values(), *grants, *holds]
    return {f"{type(row).__name__} {number}": row.model_dump(exclude={"epoch"}) for number, row in enumerate(rows)}


def settled(ground: Ground) -> None:
    """What is due is booked, so that the two ways are compared at one and the same point."""
    for user in USERS:
        ground.run(operations.balance(user))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_rebuild_of_what_was_not_flushed_is_a_flush(live: Ground, seed: int) -> None:
    """X1: whatever was asked, and wherever the flush stopped, the store comes to have the very same rows."""
    lot = random.Random(seed)
    traffic = Traffic(live, lot)
    live.partition.freeze(now_of(live))
    for user in USERS[:2]:
        live.run(operations.configure(user, overdraft_limit=100))
    for _ in range(lot.choice([0, 40])):
        traffic.one()
    if lot.random() < 0.8:
        await live.flusher(flush_max=lot.choice([1, 30]), outbox_retention_seconds=KEPT_SECONDS).step()
    for _ in range(120):
        traffic.one()
        if lot.random() < 0.1:
            live.partition.advance(lot.randrange(2 * MINUTE))
    settled(live)
    entries = live.partition.entries()

    report = await rebuilt(live)

    assert report.lost == []
    for row, entry in zip(await live.transactions(), entries, strict=True):
        assert (row.seq, row.transaction_id, row.kind, row.user_id, row.amount) == (
            *(entry.seq, entry.transaction_id, entry.kind, entry.user_id, entry.amount),
        )
        assert (row.available_after, row.reserved_after, row.debt_after) == (
            *(entry.available, entry.reserved, entry.debt),
        )
        assert (row.operation_id or "", row.created_at_ms) == (entry.operation_id, entry.created_at_ms)
        assert (row.refund_of, row.reservation_id) == (entry.text("refund_of"), entry.text("reservation_id"))
    once = await figures(live)
    traffic.repeat_all()
    await rebuilt(live)
    assert await figures(live) == once, "a second rebuild changed something"
    traffic.repeat_all()
    await live.drain()
    await live.check()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_two_histories_become_one(live: Ground, seed: int) -> None:
    """X1, an older append-only file came back and lived on: each acknowledged transaction is there once, or named."""
    lot = random.Random(1_000 + seed)
    first = Traffic(live, lot, "a")
    live.partition.freeze(now_of(live))
    for user in USERS[:2]:
        live.run(operations.configure(user, overdraft_limit=100))
    for _ in range(40):
        first.one()
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy = Copy(live)
    for _ in range(40):
        first.one()
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy.restore()
    live.partition.sender = "after"
    second = Traffic(live, lot, "b", first)
    for _ in range(60):
        second.one()
        if lot.random() < 0.1:
            live.partition.advance(lot.randrange(2 * MINUTE))

    made = {entry.operation_id: entry.transaction_id for entry in live.partition.entries()}

    report = await rebuilt(live)
    rows = {row.transaction_id: row for row in await live.transactions()}
    lost = {line.split(" ")[0] for line in report.lost if " of it " not in line}
    doubled = {line.split(" ")[0] for line in report.doubled}
    assert first.acknowledged | second.acknowledged <= rows.keys() | lost | doubled
    refunded: dict[str, int] = defaultdict(int)
    for row in rows.values():
        if row.refund_of is not None:
            refunded[row.refund_of] += row.amount
    assert all(amount <= rows[charge].amount for charge, amount in refunded.items()), "more than was charged"
    gone = lost | doubled
    second.repeat_all({key for key, transaction_id in made.items() if transaction_id in gone} | gone)
    first.repeat_all()
    settled(live)
    await live.drain()
    await live.check()
    drift = await Reconcile(live.engine, live.gateway, live.store).partition(0)
    assert (drift.drifts, drift.unsettled) == ((), ())
    again = await rebuilt(live)
    assert (again.reapplied, again.lost) == (0, [])


async def refund(ground: Ground, user: str, charge: str, amount: int | None = None) -> Answer:
    """As the API makes one: what was charged and given back is what the store says."""
    row = await ground.store.transaction(charge)
    assert row is not None, "404"
    draws = tuple((str(draw[0]), int(draw[1])) for draw in row.draws)  # type: ignore[union-attr,index,arg-type]
    refunded = await ground.store.refunded(charge)
    one = operations.refund(user, charge, amount, charged=row.amount, refunded=refunded, draws=draws)
    return ground.partition.run(one)


async def by_hand(live: Ground) -> RebuildReport:
    return await rebuilt(live)


async def by_itself(live: Ground) -> RebuildReport:
    """The worker repairs what it finds lost."""
    reports: list[RebuildReport] = []

    async def repair(number: int) -> None:
        reports.append(await rebuilding(live).partition(number))

    supervisor = Supervisor([live.flusher()], live.settings, repair)
    supervisor.start()
    try:
        await until(lambda: reports, "the partition is repaired")
    finally:
        await supervisor.close()
    return reports[0]


@pytest.mark.parametrize("mend", [by_hand, by_itself])
@pytest.mark.parametrize("forked", [False, True])
async def test_a_refund_stays_the_refund_of_its_charge(live: Ground, forked: bool, mend: Any) -> None:
    """X1: add 100, drained; worker killed; deduct 40, refund 40 of it, deduct 10. 90 are left, before and after."""
    live.run(operations.grant("u", "g", 100))
    live.run(operations.grant("v", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    if forked:
        copy = Copy(live)
        live.run(operations.deduct("v", 1))
        live.run(operations.configure("u", suspended=False))
        await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
        copy.restore()
        live.partition.sender = "after"
    asked = Asked("key-d", '"description":"image","metadata":{"n":1}')
    charged = live.run(operations.deduct("u", 40, asked=asked))
    charge = charged["transaction_id"]
    given = live.partition.refund("u", charge)
    last = live.run(operations.deduct("u", 10))
    assert last.balances == (90, 0, 0)

    report = await mend(live) if forked or mend is by_hand else await by_hand(live)

    assert report.lost == []
    assert live.run(operations.balance("u")).balances == (90, 0, 0)
    rows = {row.transaction_id: row for row in await live.transactions()}
    row = rows[charge]
    assert (row.kind, row.amount, row.operation_id, row.description, row.metadata) == (
        *("deduct", 40, "key-d", "image", {"n": 1}),
    )
    assert (rows[given["transaction_id"]].kind, rows[given["transaction_id"]].refund_of) == ("refund", charge)
    assert [row.kind for row in rows.values()].count("grant") == 2
    assert (await refund(live, "u", charge)).status == "exceeds", "refunded twice"
    assert (await refund(live, "u", last["transaction_id"], 4)).balances == (94, 0, 0)
    assert live.partition.run(operations.deduct("u", 40, asked=asked)).line == "1" + charged.line[1:]
    await live.drain()
    await live.check()


async def test_the_rest_of_a_charge_can_be_refunded_after_a_rebuild(live: Ground) -> None:
    """X1: part before the flush, part before the rebuild, the rest after it; never more."""
    live.run(operations.grant("u", "g", 100))
    charge = live.run(operations.deduct("u", 60))["transaction_id"]
    live.partition.refund("u", charge, 10)
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    live.partition.refund("u", charge, 15, refunded=10)
    await rebuilt(live)
    assert (await refund(live, "u", charge, 36)).status == "exceeds"
    assert (await refund(live, "u", charge)).fields == {
        "user_id": "u",
        "amount": 35,
        "forfeited": 0,
        "left": 0,
        "transaction_id": live.partition.entries()[-1].transaction_id,
    }
    assert live.run(operations.balance("u")).balances == (100, 0, 0)
    await live.drain()
    await live.check()


SIBLINGS: dict[str, list[Operation]] = {
    "a void": [operations.void("u", "g", Asked("k"))],
    "an extend": [operations.extend("h", 2 * HOUR, 5, Asked("k"))],
    "a configure": [
        operations.configure("u", overdraft_limit=7, thresholds=(9, 3), metadata='{"n":1}', asked=Asked("k"))
    ],
    "an overdraft": [operations.deduct("u", 190, "overdraft", Asked("k"))],
    "a partial deduct": [operations.deduct("u", 1_000, "partial", Asked("k"))],
    "a commit of more": [operations.commit("h", 90, "overdraft", Asked("k"))],
    "a release": [operations.release("h", Asked("k"))],
    "a grant with an end": [
        operations.grant("u", "x", 5, priority=3, expires_at_ms=10**13 - 2, at_end=AtEnd(3, 9, "p"), asked=Asked("k"))
    ],
    "several": [
        operations.deduct("u", 3, asked=Asked("k")),
        operations.reserve("u", "h2", 5, HOUR, chosen=True, asked=Asked("k2")),
        operations.commit("h2", 4, asked=Asked("k3")),
        operations.deduct("v", 3, asked=Asked("k4")),
    ],
}


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("name", SIBLINGS)
async def test_whatever_was_asked_keeps_its_id_and_its_answer(live: Ground, name: str, forked: bool) -> None:
    """X1, X2."""
    for user in ("u", "v"):
        live.run(operations.grant(user, "g", 100))
        live.run(operations.grant(user, "other", 50, priority=20))
    live.run(operations.configure("u", overdraft_limit=100))
    live.run(operations.reserve("u", "h", 20, HOUR, chosen=True, at_end="charge"))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    if forked:
        copy = Copy(live)
        live.run(operations.deduct("u", 1))
        await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
        copy.restore()
        live.partition.sender = "after"
    answers = live.partition.batch(*SIBLINGS[name])
    before = len(live.partition.entries())
    entries = live.partition.entries()[-len(answers) :]
    assert [answer.status for answer in answers] == ["ok"] * len(answers)

    for _ in range(2):
        report = await rebuilt(live)
        cut = 1 if forked and name in ("an overdraft", "a partial deduct") else 0
        assert sum(" are not covered" in line for line in report.lost) <= cut and len(report.lost) <= cut
        for one, answer in zip(SIBLINGS[name], answers, strict=True):
            assert live.partition.run(one).line == "1" + answer.line[1:], one
        rows = {row.transaction_id: row for row in await live.transactions()}
        for entry in entries:
            row = rows[entry.transaction_id]
            assert (row.kind, row.user_id, row.operation_id) == (entry.kind, entry.user_id, entry.operation_id)
            assert row.created_at_ms == entry.created_at_ms
            assert (row.seq == entry.seq) is not forked
    assert before >= len(entries)
    await live.drain()
    await live.check()


async def test_a_late_commit_is_the_commit_that_it_was(live: Ground) -> None:
    """X1: what fell due before the rebuild is booked at its own time, however long the rebuild takes to come."""
    live.partition.freeze(now_of(live))
    live.run(operations.grant("u", "g", 100, expires_at_ms=now_of(live) + 30 * MINUTE))
    live.run(operations.grant("u", "rolling", 50, priority=90, expires_at_ms=now_of(live) + 20 * MINUTE))
    live.run(operations.reserve("u", "h", 30, MINUTE, chosen=True))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    live.partition.advance(2 * MINUTE)
    late = live.run(operations.commit("h", 25, asked=Asked("k")))
    assert late["late"] == 1
    charge = live.run(operations.deduct("u", 75))
    live.partition.advance(40 * MINUTE)
    forfeit = live.partition.refund("u", charge["transaction_id"], 10)
    assert forfeit["forfeited"] == 10
    entries = live.partition.entries()
    live.partition.advance(DAY // 2)

    report = await rebuilt(live)

    assert (report.lost, report.reapplied) == ([], len(entries) - 3)
    assert [row.transaction_id for row in await live.transactions()] == [entry.transaction_id for entry in entries]
    assert live.partition.run(operations.commit("h", 25, asked=Asked("k"))).line == "1" + late.line[1:]
    await live.drain()
    await live.check()


async def test_a_charge_that_is_lost_is_not_refunded(live: Ground) -> None:
    """X1: money is never invented. Both histories spent the same 100; the second one's refund has nothing to refund."""
    live.run(operations.grant("u", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy = Copy(live)
    live.run(operations.deduct("u", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy.restore()
    live.partition.sender = "after"
    charge = live.run(operations.deduct("u", 100))["transaction_id"]
    live.partition.refund("u", charge, 30)

    report = await rebuilt(live)

    assert [line.split(": ")[1] for line in report.lost] == ["insufficient", "what it refunds is lost"]
    assert live.run(operations.balance("u")).balances == (0, 0, 0)
    await live.drain()
    await live.check()


async def test_one_reservation_id_used_in_both_histories_for_other_things_is_named(live: Ground) -> None:
    live.run(operations.grant("u", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy = Copy(live)
    live.run(operations.reserve("u", "h", 10, HOUR, chosen=True))
    live.run(operations.grant("u", "x", 5))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy.restore()
    live.partition.sender = "after"
    live.run(operations.reserve("u", "h", 20, HOUR, chosen=True))
    live.run(operations.grant("u", "x", 7))

    report = await rebuilt(live)

    assert [line.split(": ")[1] for line in report.lost] == [
        "its id is another reservation's",
        "its id is another grant's",
    ]
    assert live.run(operations.balance("u")).balances == (95, 10, 0)
    await live.drain()
    await live.check()


async def test_what_cannot_be_read_is_put_aside_and_named(live: Ground, unchecked: None) -> None:
    """Not skipped: it is in quarantine as its seq, as a flush would have it."""
    live.run(operations.grant("u", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    live.run(operations.deduct("u", 1))
    live.run(operations.deduct("u", 2))
    poison(live, 2, b"\xff\x00 no")

    report = await rebuilt(live)

    assert len(report.lost) == 1 and "it is in quarantine" in report.lost[0]
    assert live.run(operations.balance("u")).balances == (97, 0, 0), "the next entry says what is left"
    (event,) = await live.store.events(kind="quarantine", limit=10)
    assert "entry 2 of partition 0" in event.message


@pytest.mark.parametrize("found", ["whole", "ahead", "forked", "empty"])
async def test_a_report_always_says_what_it_cannot_know(live: Ground, found: str) -> None:
    """X14: acknowledged after the last flush, and gone."""
    live.run(operations.grant("u", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
    copy = Copy(live)
    if found in ("ahead", "forked"):
        live.run(operations.deduct("u", 1))
    if found == "forked":
        await live.drain(live.flusher(outbox_retention_seconds=KEPT_SECONDS))
        copy.restore()
        live.partition.sender = "after"
        with pytest.raises(HistoryLost):
            await live.flusher().step()
    if found == "empty":
        live.lose_everything()

    report = await rebuilt(live)

    seq = {"whole": 1, "ahead": 2, "forked": 2, "empty": 1}[found]
    assert f"after seq {seq} " in report.unknown and "was never in the store" in report.unknown
    (event, *_) = await live.store.events(kind="system", limit=1)
    assert event.detail == {"lost": [], "doubled": [], "unknown": report.unknown}


async def test_what_cannot_come_back_is_named(live: Ground) -> None:
    live.run(operations.grant("a", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy = Copy(live)
    live.run(operations.deduct("a", 80))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy.restore()
    live.partition.sender = "after"
    lost = [
        live.run(operations.deduct("a", 60)),
        live.run(operations.reserve("a", "r", 30, HOUR, chosen=True)),
        live.run(operations.commit("r", 30)),
    ]
    with pytest.raises(HistoryLost):
        await live.flusher().step()
    report = await rebuilt(live)
    assert [line.split(":")[0].split(" ")[1:] for line in report.lost] == [
        ["deduct", "a", "60"],
        ["reserve", "a", "30"],
        ["commit", "a", "30"],
    ]
    assert lost[0]["transaction_id"] in report.lost[0] and "40 of it are not covered" in report.lost[0]
    assert live.run(operations.balance("a")).balances == (0, 0, 0)
    (event, *_) = await alarms(live.store, "system")
    assert event.detail == {"lost": report.lost, "doubled": [], "unknown": report.unknown}
    await live.drain()
    await live.check()


async def test_one_key_used_in_both_histories_is_applied_once(live: Ground) -> None:
    live.run(operations.grant("a", "g", 100))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy = Copy(live)
    one = operations.deduct("a", 10, asked=Asked("same"))
    first = live.run(one)
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy.restore()
    live.partition.sender = "after"
    assert live.run(one).line.startswith("0")
    with pytest.raises(HistoryLost):
        await live.flusher().step()
    report = await rebuilt(live)
    assert report.lost == []
    assert live.run(operations.balance("a")).balances == (90, 0, 0)
    assert live.partition.run(one).line == "1" + first.line[1:]
