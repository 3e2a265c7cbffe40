"""The rebuild: after a total loss, and after a rollback with more acknowledged on top, everything is as it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meter.engine import operations, upkeep
from meter.engine.operations import Asked
from meter.errors import StoreUnavailable
from meter.ledger.history_guard import HistoryLost
from meter.ledger.pending_grants import Intake, pending_row
from meter.ledger.rebuild import Rebuild, RebuildFailed, RebuildReport
from meter.store.base import Flush, Flushed, Store
from tests.ledger.ground import Ground, open_at
from tests.ledger.story import Told, tell
from tests.ledger.test_flusher import Failing, alarms, in_pairs, poison
from tests.ledger.test_two_flushers import Pausing, Stops
from tests.partition import DAY, HOUR, MINUTE, dump

BOOKS = ("grants", "holds", "order", "agenda", "profiles")


def now_of(ground: Ground) -> int:
    return int(ground.run(upkeep.clock())["now_ms"])


def rebuilding(ground: Ground, store: Store | None = None) -> Rebuild:
    return Rebuild(ground.engine, ground.gateway, store or ground.store, DAY)


async def rebuilt(ground: Ground) -> RebuildReport:
    return await rebuilding(ground).partition(0)


def books(ground: Ground) -> dict[str, Any]:
    """What Redis holds of accounts, without grants that have nothing left: a rebuild forgets those."""
    found = {name: dump(ground.client).get(f"meter:{{p0}}:{name}") or {} for name in BOOKS}
    spent = {name for name, text in found["grants"].items() if name and text.split()[8] == b"X"}

    def is_known(member: bytes) -> bool:
        return not member or b" ".join([member.split()[0], member.split()[-1]]) not in spent

    return {
        "grants": {name: text for name, text in found["grants"].items() if name not in spent},
        "order": [item for item in found["order"] if is_known(item[0])],
        "agenda": [item for item in found["agenda"] if is_known(item[0])],
        "holds": found["holds"],
        "profiles": found["profiles"],
    }


def figures(ground: Ground) -> dict[str, str]:
    return {user: ground.run(operations.balance(user)).line for user in ("u", "v", "w")}


def again(ground: Ground, told: list[Told]) -> None:
    """Every call that has a key answers as it did then."""
    for one in told:
        chosen = one.one[0] == "reserve" and one.one[8] == "1"
        ended = one.one[0] in ("commit", "release")
        if one.one[1] or chosen or ended:
            answer = ground.partition.run(one.one)
            assert answer.line == "1" + one.answer.line[1:], one.one


async def test_after_a_total_loss_everything_is_as_before(live: Ground) -> None:
    told = tell(live.partition, now_of(live))
    await live.drain()
    before, numbers = books(live), figures(live)
    live.lose_everything()
    assert live.partition.send("x", 1, operations.balance("u")) == "refused missing meta"
    with pytest.raises(HistoryLost, match="Redis has nothing"):
        await live.flusher().step()
    report = await rebuilt(live)
    assert (report.epoch, report.accounts, report.reservations, report.lost) == (2, 4, 2, [])
    assert "after seq" in report.unknown
    assert (books(live), figures(live)) == (before, numbers)
    again(live, told)
    await live.check()
    live.run(operations.commit("hold", 38))
    live.run(operations.deduct("v", 40, "overdraft"))
    assert live.partition.entries()[0].seq == report.seq + 1
    await live.drain()
    await live.check()
    (event, *_) = await alarms(live.store, "system")
    assert "was rebuilt to epoch 2" in event.message


async def test_what_falls_due_after_a_rebuild_does(live: Ground) -> None:
    now_ms = now_of(live)
    tell(live.partition, now_ms)
    await live.drain()
    live.lose_everything()
    await rebuilt(live)
    live.partition.freeze(now_ms + 2 * DAY + MINUTE)
    kinds_before = len(live.partition.kinds())
    live.run(operations.balance("u"))
    assert sorted(live.partition.kinds()[kinds_before:]) == [
        "grant_expired",
        "grant_expired",
        "grant_rolled_over",
        "grant_started",
        "reservation_expired",
        "reservation_expired",
    ]
    assert live.partition.remaining("u")["rolling.rollover"] == 4
    await live.drain()
    await live.check()


async def test_a_rebuild_of_what_is_whole_changes_nothing(live: Ground) -> None:
    told = tell(live.partition, now_of(live))
    await live.drain()
    before, numbers = books(live), figures(live)
    report = await rebuilt(live)
    assert (report.reapplied, report.lost) == (0, [])
    assert (books(live), figures(live)) == (before, numbers)
    again(live, told)


async def test_a_rebuild_in_the_middle_of_the_flush_loses_nothing(live: Ground) -> None:
    told = tell(live.partition, now_of(live))
    await live.flusher(flush_max=9, outbox_retention_seconds=60).step()
    numbers = figures(live)
    report = await rebuilt(live)
    assert (report.seq, report.lost) == (9, [])
    assert report.reapplied == len(told) - 9
    for user, line in figures(live).items():
        assert line.split(" ")[-4:] == numbers[user].split(" ")[-4:], "holds and balances"
    again(live, told)
    await live.drain()
    await live.check()


async def test_nothing_was_flushed_ever(live: Ground) -> None:
    tell(live.partition, now_of(live))
    numbers = figures(live)
    report = await rebuilt(live)
    assert report.lost == [] and report.accounts == 4
    assert {user: line.split(" ")[-3:] for user, line in figures(live).items()} == {
        user: line.split(" ")[-3:] for user, line in numbers.items()
    }
    await live.drain()
    await live.check()


async def test_an_empty_deployment_is_opened(live: Ground) -> None:
    live.lose_everything()
    report = await rebuilt(live)
    assert (report.epoch, report.seq, report.lost) == (2, 0, [])  # sidecars may remember one of epoch 1
    live.run(operations.grant("u", "g", 5))
    await live.drain()
    await live.check()


class Copy:
    """Every key of the partition as it was."""

    def __init__(self, ground: Ground) -> None:
        self._client = ground.client
        self._keys = {key: self._client.dump(key) for key in self._client.keys("*")}

    def restore(self) -> None:
        self._client.flushall()
        for key, text in self._keys.items():
            self._client.restore(key, 0, text)


async def rolled_back(live: Ground) -> list[Told]:
    """Redis went back to an earlier state and then acknowledged more; answers what was asked before."""
    told = tell(live.partition, now_of(live))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy = Copy(live)
    live.run(operations.deduct("u", 11, asked=Asked("flushed")))
    live.run(operations.reserve("u", "flushed-hold", 13, HOUR, chosen=True))
    live.run(operations.release("hold"))
    live.run(operations.grant("w", "flushed-grant", 17))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy.restore()
    live.partition.sender = "after"
    live.partition.batch_number = 0
    return told


async def test_a_rollback_is_found_before_anything_is_acknowledged(live: Ground) -> None:
    await rolled_back(live)
    with pytest.raises(HistoryLost, match="Redis is at epoch 1 seq"):
        await live.flusher().step()
    assert live.partition.send("x", 1, operations.balance("u")).startswith("refused lost Redis is at epoch 1 seq")
    report = await rebuilt(live)
    assert (report.reapplied, report.lost) == (0, [])
    await live.check()
    assert live.partition.run(operations.release("hold")).replayed
    assert live.partition.run(operations.deduct("u", 11, asked=Asked("flushed"))).replayed


@pytest.mark.parametrize("more", [1, 3, 12])
async def test_what_was_acknowledged_after_a_rollback_is_applied_on_top(live: Ground, more: int) -> None:
    """Below, at and beyond the seq that the store has."""
    told = await rolled_back(live)
    spent = [
        Told(one, live.run(one)) for one in (operations.deduct("u", n + 1, asked=Asked(f"on-{n}")) for n in range(more))
    ]
    with pytest.raises(HistoryLost):
        await live.flusher().step()
    row = (await live.store.accounts(["u"]))["u"]
    report = await rebuilt(live)
    assert (report.reapplied, report.lost) == (more, [])
    again(live, [*told, *spent] if more else told)
    balance = live.run(operations.balance("u"))
    assert balance.balances is not None
    assert balance.balances[0] == row.available - sum(n + 1 for n in range(more))
    assert live.run(operations.balance("w")).balances == (17, 0, 0)
    await live.drain()
    await live.check()


async def test_every_kind_of_change_comes_back_on_top(live: Ground) -> None:
    live.run(operations.grant("a", "g", 1_000))
    charge = live.run(operations.deduct("a", 100))
    live.run(operations.reserve("a", "r1", 50, HOUR, chosen=True))
    live.run(operations.reserve("a", "r2", 50, HOUR, chosen=True))
    live.run(operations.grant("a", "void", 5, priority=50))
    live.run(operations.configure("a", overdraft_limit=500))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy = Copy(live)
    live.run(operations.configure("b", suspended=True))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    copy.restore()
    live.partition.sender = "after"
    live.run(
        operations.grant("a", "new", 70, expires_at_ms=now_of(live) + DAY, asked=Asked("", '"description":"paid"'))
    )
    live.run(operations.grant("a", "later", 7, effective_at_ms=now_of(live) + DAY))
    live.run(operations.commit("r1", 20))
    live.run(operations.extend("r2", 2 * HOUR, 25))
    live.run(operations.reserve("a", "r3", 30, HOUR, chosen=True))
    live.run(operations.reserve("a", "r4", 30, HOUR, chosen=True))
    live.run(operations.release("r3"))
    live.run(operations.void("a", "void"))
    live.partition.refund("a", charge["transaction_id"], 30)
    live.partition.refund("a", charge["transaction_id"], 20)
    live.run(operations.configure("a", overdraft_limit=900, metadata='{"n":1}'))
    live.run(operations.deduct("a", 1_200, "overdraft"))
    numbers = live.run(operations.balance("a")).line.split(" ")
    holds = sorted(live.run(operations.reservations("a", "", 10)).items)
    with pytest.raises(HistoryLost):
        await live.flusher().step()
    report = await rebuilt(live)
    assert report.lost == []
    after = live.run(operations.balance("a")).line.split(" ")
    assert after == numbers
    assert [item[:2] for item in sorted(live.run(operations.reservations("a", "", 10)).items)] == [
        item[:2] for item in holds
    ]
    assert live.client.hget(live.partition.keys.profiles, "a") == b'{"n":1}'
    draws = (("g", 100),)
    refunded = await live.store.refunded(charge["transaction_id"])
    refund = operations.refund("a", charge["transaction_id"], 60, charged=100, refunded=refunded, draws=draws)
    assert live.partition.run(refund).status == "exceeds", "a refund was forgotten, so that it could be had twice"
    await live.drain()
    await live.check()
    rows = await live.transactions()
    assert [row.description for row in rows if row.kind == "grant" and row.amount == 70] == ["paid"]


async def test_a_poison_entry_hides_nothing_from_the_rebuild(live: Ground) -> None:
    """What comes after it and is in the store is not applied a second time."""
    for n in range(12):
        live.run(operations.grant("a", f"g{n}", 1 << n))
    for seq in (3, 4, 5, 8):
        poison(live, seq, b"poison")
    await live.drain(live.flusher(outbox_retention_seconds=60))
    available = (await live.store.accounts(["a"]))["a"].available
    report = await rebuilt_unproved(live)
    assert report.reapplied == 0 and available == (1 << 12) - 1


async def rebuilt_unproved(live: Ground) -> RebuildReport:
    """Grants in quarantine are not in the store, so that the sums cannot be right."""
    command = rebuilding(live)

    async def taken(*_: object) -> None: ...

    monkeyed: Any = command
    monkeyed._prove = taken
    return await command.partition(0)


async def test_it_refuses_to_forget_what_only_redis_has(live: Ground) -> None:
    in_pairs(live, [operations.grant("a", f"g{n}", 1) for n in range(400)])
    await live.drain()
    assert live.partition.entries()[0].seq > 1
    before = dump(live.client)
    empty = await _empty_store()
    with pytest.raises(RebuildFailed, match="Restore the store"):
        await rebuilding(live, empty).partition(0)
    assert dump(live.client) == before
    live.client.delete(live.partition.keys.outbox)
    with pytest.raises(RebuildFailed, match="the outbox is empty"):
        await rebuilding(live, empty).partition(0)
    live.client.flushall()


async def _empty_store() -> Store:
    return await open_at("memory://")


@pytest.mark.parametrize(
    "method",
    [
        "scan_accounts",
        "live_grants",
        "operations_since",
        "pending_grants",
        "put_events",
        "events",
        "watermark",
        "apply",
    ],
)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_rebuild_that_was_cut_off_is_done_again(live: Ground, method: str, times: int) -> None:
    """Even of what only Redis had, which the first one has already taken out of it."""
    await rolled_back(live)
    spent = Told(
        operations.deduct("u", 5, asked=Asked("on-top")), live.run(operations.deduct("u", 5, asked=Asked("on-top")))
    )
    live.run(operations.deduct("u", 3))
    expected = (await live.store.accounts(["u"]))["u"].available - 8
    store: Any = Failing(live.store, method, times=times)
    command = rebuilding(live, store)
    failures = 0
    report = None
    while report is None:
        try:
            report = await command.partition(0)
        except StoreUnavailable:
            failures += 1
            state = live.client.hget(live.partition.keys.meta, "state")
            assert state != b"open" or method in ("watermark", "put_events"), "it serves what is not whole"
    assert failures == times
    balance = live.run(operations.balance("u")).balances
    assert balance is not None and balance[0] == expected
    again(live, [spent])
    await live.drain()
    await live.check()


async def test_of_two_rebuilds_one_is_done(live: Ground) -> None:
    tell(live.partition, now_of(live))
    await live.drain()
    live.lose_everything()
    watermark = await live.store.watermark(0)
    answers = await asyncio.gather(
        *(rebuilding(live).partition_at(0, watermark) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(answer, RebuildReport) for answer in answers) == 1
    assert sum(isinstance(answer, RebuildFailed) for answer in answers) == 2
    await live.drain()
    await live.check()


@pytest.mark.parametrize("at", range(1, 40, 3))
async def test_a_rebuild_that_was_overtaken_does_no_more(live: Ground, at: int) -> None:
    """One sleeps at an await, another is done meanwhile and users go on; the sleeper must not touch their accounts."""
    tell(live.partition, now_of(live))
    await live.drain()
    live.lose_everything()
    stops = Stops(at)
    store: Any = Pausing(live.store, stops)
    sleeper = asyncio.create_task(rebuilding(live, store).partition(0))
    waiting = asyncio.create_task(stops.reached.wait())
    await asyncio.wait([sleeper, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not sleeper.done():
        await rebuilt(live)
        live.run(operations.deduct("u", 7))
        live.run(operations.reserve("u", "after", 9, HOUR, chosen=True))
    numbers = figures(live)
    await live.drain()
    stops.go_on.set()
    (answer,) = await asyncio.gather(sleeper, return_exceptions=True)
    assert isinstance(answer, RebuildReport | RebuildFailed)
    if isinstance(answer, RebuildFailed):
        assert figures(live) == numbers
    assert live.client.hget(live.partition.keys.meta, "state") == b"open"
    await live.drain()
    await live.check()


async def test_a_worker_that_slept_through_a_rebuild_closes_nothing(live: Ground) -> None:
    tell(live.partition, now_of(live))
    sleeper = live.flusher()
    await live.drain(sleeper)
    live.lose_everything()
    await rebuilt(live)
    live.run(operations.deduct("u", 1))
    assert await sleeper.step() == 0
    assert live.client.hget(live.partition.keys.meta, "state") == b"open"
    assert await sleeper.step() == 1
    await live.check()


async def test_a_partition_that_a_boot_has_closed_is_lost_for_the_flusher_too(live: Ground) -> None:
    live.run(operations.grant("u", "g", 5))
    await live.drain()
    live.partition.run(upkeep.state("lost"))
    with pytest.raises(HistoryLost, match="is lost"):
        await live.flusher().step()
    await rebuilt(live)
    assert await live.flusher().step() == 0


async def test_pending_grants_come_back_at_once(live: Ground) -> None:
    live.run(operations.grant("u", "g", 5))
    await live.drain()
    one = operations.grant("u", "paid", 50, asked=Asked("payment"))
    row = pending_row(one, 1, "payment", now_of(live))
    assert (await Intake(live.engine, live.store).add(row)).startswith("0 ok")
    live.lose_everything()
    report = await rebuilt(live)
    assert report.reapplied == 1
    assert live.run(operations.balance("u")).balances == (55, 0, 0)
    await live.drain()
    await live.check()
    assert await live.store.pending_grants(2**53, 10) == []


@pytest.mark.parametrize("warm", [False, True])
async def test_what_a_flusher_held_in_its_hands_is_not_written_after_the_rebuild(live: Ground, warm: bool) -> None:
    """Its entries were lost with Redis: others have their seqs by now, or nobody yet."""
    tell(live.partition, now_of(live))
    await live.flusher(flush_max=12).step()
    sleeper, asleep, go_on = live.flusher(flush_max=4), asyncio.Event(), asyncio.Event()
    if warm:
        await sleeper.step()

    class Drowsy:
        def __getattr__(self, name: str) -> Any:
            return self.apply_later if name == "apply" else getattr(live.store, name)

        async def apply_later(self, flush: Flush) -> Flushed:
            asleep.set()
            await go_on.wait()
            return await live.store.apply(flush)

    drowsy: Any = Drowsy()
    sleeper._store = drowsy
    step = asyncio.create_task(sleeper.step())
    await asleep.wait()
    live.lose_everything()
    await rebuilt(live)
    before = await live.transactions()
    go_on.set()
    assert await step == 0
    assert await live.transactions() == before, "a lost history was written into the new one"
    live.run(operations.deduct("u", 1))
    await live.drain()
    await live.check()
