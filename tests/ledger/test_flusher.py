"""The flusher, step by step: what is committed, what a failure leaves behind, what is trimmed, what is an alarm."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from meter.amount import AmountScale
from meter.engine import operations, upkeep
from meter.engine.operations import Asked
from meter.engine.outbox import Entry, NewerEntry, read_outbox_entry
from meter.errors import RedisUnavailable, StoreUnavailable
from meter.ledger.flusher import Flusher
from meter.ledger.history_guard import HistoryLost
from meter.ledger.log_file import LedgerFile
from meter.store.base import Flush, Flushed, Store, StoreRefused
from meter.store.rows import AlertRow, EventRow
from tests.ledger.ground import Ground, open_at, same_on_both_sides
from tests.ledger.story import tell
from tests.partition import DAY, HOUR, T0


class Failing:
    """A store whose method fails, before or after it has done what it should."""

    def __init__(self, store: Store, method: str, *, after: bool = False, times: int = 1) -> None:
        self._store = store
        self._method = method
        self._after = after
        self._times = times

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._method or self._times == 0:
            return real

        async def failing(*args: object, **named: object) -> object:
            self._times -= 1
            if self._after:
                await real(*args, **named)
            raise StoreUnavailable("gone")

        return failing


def in_pairs(ground: Ground, many: list[operations.Operation]) -> None:
    """Two operations a call: as many entries of the outbox as that makes, each with two transactions."""
    for n in range(0, len(many), 2):
        ground.partition.batch(*many[n : n + 2])


def note_at_once(flusher: Flusher) -> None:
    """The next step notes and trims, however short ago the last one did."""
    flusher._backlog._noted_at = -1e9


def poison(ground: Ground, seq: int, text: bytes | None = None, **changed: Any) -> bytes:
    """Replaces a transaction of the outbox, the whole entry where that has no other; with `changed` members of it
    (detail, kind, available) or of its entry (version, epoch, prev) it stays readable. Answers the entry's new text.
    """
    key = ground.partition.keys.outbox
    entries = ground.client.xrange(key)
    ground.client.delete(key)
    became = b""
    for entry_id, members in entries:
        body = members[b"e"]
        last = int(entry_id.split(b"-")[0])
        if last - body.count(b"\n") < seq <= last:
            body = became = _poisoned(body, seq, last, text, changed)
        ground.client.xadd(key, {"e": body}, id=entry_id)
    assert became
    return became


def _poisoned(body: bytes, seq: int, last: int, text: bytes | None, changed: dict[str, Any]) -> bytes:
    head, *rows = body.split(b"\n")
    if text is not None and (len(rows) == 1 or b"\n" in text):
        return text
    row = len(rows) - 1 - (last - seq)
    if text is None:
        entry = next(e for e in read_outbox_entry(last, body, seq) if e.seq == seq)
        assert isinstance(entry, Entry)
        common = dict(zip(("version", "epoch", "first", "prev"), orjson.loads(head)[:4], strict=True))
        head = orjson.dumps(
            [*{n: changed.pop(n, told) for n, told in common.items()}.values(), *orjson.loads(head)[4:]]
        )
        entry = entry._replace(**changed)
        balances = (entry.available, entry.reserved, entry.debt)
        draws = [list(draw) for draw in entry.draws]
        besides = (entry.operation_id, entry.detail, entry.created_at_ms)
        text = orjson.dumps([entry.kind, entry.user_id, entry.amount, *balances, draws, *besides])
    return b"\n".join((head, *rows[:row], text, *rows[row + 1 :]))


async def alarms(store: Store, kind: str = "error") -> list[EventRow]:
    return await store.events(kind=kind, limit=100)


async def alerts(store: Store) -> list[AlertRow]:
    return await store.find(AlertRow, {}, order_by="alert_id", limit=100)


@pytest.mark.parametrize("flush_max", [1, 3, 1_000])
async def test_everything_is_flushed_once_whatever_the_batch(ground: Ground, flush_max: int) -> None:
    tell(ground.partition, T0)
    flusher = ground.flusher(flush_max=flush_max)
    total = len(ground.partition.entries())
    assert await flusher.step() == min(flush_max, total)
    await ground.drain(flusher)
    assert await flusher.step() == 0
    await ground.check()
    ground.partition.freeze(T0 + 2 * DAY)
    ground.run(operations.balance("u"))
    await ground.drain(flusher)
    await ground.check()


async def test_a_new_worker_goes_on_where_the_last_one_was(ground: Ground) -> None:
    tell(ground.partition, T0)
    for _ in range(len(ground.partition.entries())):
        assert await ground.flusher(flush_max=1).step() == 1
    await ground.check()


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_failed_apply_leaves_nothing_behind_and_the_next_step_repairs(ground: Ground, after: bool) -> None:
    tell(ground.partition, T0)
    store: Any = Failing(ground.store, "apply", after=after, times=2)
    flusher = ground.flusher(store, flush_max=5)
    with pytest.raises(StoreUnavailable):
        await flusher.step()
    watermark = await ground.store.watermark(0)
    assert (watermark.seq if watermark else 0) == (5 if after else 0)
    assert len(await ground.transactions()) == (5 if after else 0)
    with pytest.raises(StoreUnavailable):
        await flusher.step()
    await ground.drain(flusher)
    await ground.check()


@pytest.mark.parametrize("method", ["watermark", "accounts", "grants", "reservations"])
async def test_a_failed_read_changes_nothing(ground: Ground, method: str) -> None:
    ground.run(operations.grant("u", "g", 100))
    ground.run(operations.reserve("u", "hold", 30, HOUR, chosen=True))
    await ground.drain()
    before = await ground.transactions()
    ground.run(operations.commit("hold", 10))
    store: Any = Failing(ground.store, method)
    flusher = ground.flusher(store)
    with pytest.raises(StoreUnavailable):
        await flusher.step()
    assert len(before) == 2 and await ground.transactions() == before
    await ground.drain(flusher)
    await ground.check()


async def test_only_what_the_store_has_is_trimmed_and_only_after_the_retention(ground: Ground) -> None:
    in_pairs(ground, [operations.grant(f"u{n % 7}", f"g{n}", 1) for n in range(400)])
    flusher = ground.flusher(flush_max=300, outbox_retention_seconds=3_600)
    await flusher.step()
    note_at_once(flusher)
    await flusher.step()
    assert ground.client.xlen(ground.partition.keys.outbox) == 200
    assert int(ground.client.hget(ground.partition.keys.meta, "flushed")) == 400
    in_pairs(ground, [operations.deduct(f"u{n % 7}", 1) for n in range(300)])
    eager = ground.flusher(flush_max=250)
    await eager.step()
    first = ground.partition.entries()[0].seq
    assert 1 < first <= 651, "what is above the watermark was trimmed"
    assert ground.partition.entries()[-1].seq == 700
    await ground.drain(eager)
    await ground.check()


async def test_a_commit_that_failed_trims_nothing(ground: Ground) -> None:
    in_pairs(ground, [operations.grant(f"u{n % 9}", f"g{n}", 1) for n in range(300)])
    store: Any = Failing(ground.store, "apply", times=100)
    flusher = ground.flusher(store)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await flusher.step()
        note_at_once(flusher)
    assert ground.client.xlen(ground.partition.keys.outbox) == 150
    assert int(ground.client.hget(ground.partition.keys.meta, "flushed")) == 0


async def test_trimming_waits_for_the_transaction(ground: Ground) -> None:
    """While the store is at work on a step, everything of that step is still in Redis, and not noted as flushed."""
    ground.partition.batch(*(operations.grant(f"u{n % 9}", f"g{n}", 1) for n in range(300)))
    seen: list[tuple[int, int]] = []

    class Watching(Failing):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._store, name)
            if name != "apply":
                return real

            async def apply(flush: Flush) -> Flushed:
                meta = ground.client.hmget(ground.partition.keys.meta, "flushed", "seq")
                seen.append((int(meta[0]), flush.reached.seq))
                assert ground.partition.entries()[-1].seq == int(meta[1])
                first = flush.reached.seq - len(flush.transactions) + 1
                assert ground.partition.entries()[0].seq <= first
                done: Flushed = await real(flush)
                return done

            return apply

    store: Any = Watching(ground.store, "")
    flusher = ground.flusher(store, flush_max=100)
    for _ in range(3):
        note_at_once(flusher)
        assert await flusher.step() == 100
    assert all(flushed < reached for flushed, reached in seen) and len(seen) == 3


async def test_a_store_that_went_back_finds_the_entries_again(ground: Ground, tmp_path: Any) -> None:
    """It was restored from a copy, say: its watermark is back with it, and the retention has what it lacks."""
    tell(ground.partition, T0)
    restored = await open_at(f"sqlite:///{tmp_path}/restored.db")
    await ground.flusher(restored, flush_max=5, outbox_retention_seconds=60).step()
    flusher = ground.flusher(outbox_retention_seconds=60)
    await ground.drain(flusher)
    flusher._backlog._marks[0] = (-1e9, flusher._backlog._marks[0][1])  # old enough to be trimmed
    flusher._store, flusher._known = restored, None
    note_at_once(flusher)
    assert await flusher.step() == len(ground.partition.entries()) - 5
    assert ground.partition.entries()[0].seq == 1
    await same_on_both_sides(ground.client, restored)
    await restored.close()


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\xfe", b'[1,"x"]', b"null", b'[1,1,2,"-","a","","grant","u"]'])
async def test_an_unreadable_entry_goes_to_quarantine(ground: Ground, text: bytes, unchecked: None) -> None:
    tell(ground.partition, T0)
    poison(ground, 11, text)
    await ground.drain()
    rows = await ground.transactions()
    last = int(ground.client.hget(ground.partition.keys.meta, "seq"))
    assert [row.seq for row in rows] == [seq for seq in range(1, last + 1) if seq != 11]
    assert any("entry 11 of partition 0 is in quarantine" in event.message for event in await alarms(ground.store))
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"


@pytest.mark.parametrize("size", [1, 1_000])
@pytest.mark.parametrize("seq", [1, 10, 24])
async def test_the_flush_goes_on_behind_a_poison_entry(ground: Ground, size: int, seq: int, unchecked: None) -> None:
    """In the same step, in the next one, and by a worker that was not there."""
    tell(ground.partition, T0)
    last = ground.partition.entries()[-1]
    poison(ground, seq, b"poison")
    for _ in range(1 + len(ground.partition.client.xrange(ground.partition.keys.outbox)) // size):
        await ground.flusher(flush_max=size, outbox_retention_seconds=3_600).step()
    watermark = await ground.store.watermark(0)
    assert watermark is not None and (watermark.seq, watermark.head) == (last.seq, last.transaction_id)
    ground.run(operations.deduct("u", 1))
    await ground.drain()


async def test_the_partition_can_be_opened_with_a_poison_entry_at_the_watermark(
    ground: Ground, unchecked: None
) -> None:
    ground.run(operations.grant("u", "g", 10))
    ground.run(operations.deduct("u", 1))
    poison(ground, 2, b"poison")
    await ground.flusher(outbox_retention_seconds=3_600).step()
    watermark = await ground.store.watermark(0)
    assert watermark is not None
    assert ground.partition.open(watermark=(watermark.epoch, watermark.seq, watermark.head)) == "present"
    assert await ground.flusher().step() == 0
    ground.run(operations.deduct("u", 1))
    assert ground.partition.open(watermark=(watermark.epoch, watermark.seq, watermark.head)) == "present"
    assert await ground.drain() == 1


async def test_an_entry_that_cannot_be_booked_goes_to_quarantine(ground: Ground, unchecked: None) -> None:
    tell(ground.partition, T0)
    kinds = ground.partition.kinds()
    seq = kinds.index("reserve") + 1
    text = poison(ground, seq, detail={"reservation_id": "hold"})
    await ground.drain()
    assert seq not in [row.seq for row in await ground.transactions()]
    (event,) = await alarms(ground.store, "quarantine")
    assert event.event_id == f"quarantine-0-{seq}"
    assert text


async def test_an_entry_that_the_store_refuses_goes_to_quarantine_alone(ground: Ground, unchecked: None) -> None:
    tell(ground.partition, T0)
    ids = {row.transaction_id for row in ground.partition.entries()}

    class Picky(Failing):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._store, name)
            if name != "apply":
                return real

            async def apply(flush: Flush) -> Flushed:
                if any(row.seq == 13 for row in flush.transactions):
                    raise StoreRefused("a value fits no column")
                done: Flushed = await real(flush)
                return done

            return apply

    store: Any = Picky(ground.store, "")
    await ground.drain(ground.flusher(store))
    rows = await ground.transactions()
    assert {row.transaction_id for row in rows} == ids - {ground.partition.entries()[12].transaction_id} or len(
        rows
    ) == len(ids) - 1
    (event,) = await alarms(ground.store, "quarantine")
    assert event.event_id == "quarantine-0-13"


async def test_an_entry_of_a_version_to_come_is_waited_for_and_never_skipped(ground: Ground, unchecked: None) -> None:
    for _ in range(3):
        ground.run(operations.grant("u", f"g{_}", 1))
    poison(ground, 3, version=3)
    flusher = ground.flusher()
    assert await flusher.step() == 2
    for _ in range(2):
        with pytest.raises(NewerEntry, match="upgrade"):
            await flusher.step()
    assert await alarms(ground.store, "quarantine") == []
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"


async def test_a_key_that_comes_again_after_its_window_is_an_alarm(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.run(operations.grant("u", "g", 100))
    ground.run(operations.deduct("u", 5, asked=Asked("key")))
    await ground.drain()
    for _ in range(2):
        ground.partition.freeze(T0 + (_ + 1) * (DAY + 1))
        ground.run(upkeep.rotate())
    ground.run(operations.deduct("u", 5, asked=Asked("key")))
    with caplog.at_level(logging.ERROR):
        await ground.drain()
    assert "operation key was applied again" in caplog.text
    (event,) = await alarms(ground.store)
    assert "operation key was applied again" in event.message and event.user_id == "u"
    (told,) = [row for row in await alerts(ground.store) if row.kind == "transaction_error"]
    last = (await ground.transactions())[-1]
    assert (told.alert_id, told.user_id) == (f"transaction_error.{event.event_id}", "u")
    assert told.payload == {
        "event_id": event.event_id,
        "message": event.message,
        "operation_id": "key",
        "transaction_id": last.transaction_id,
        "seq": last.seq,
    }
    assert len([row for row in await ground.transactions() if row.operation_id == "key"]) == 2


@pytest.mark.parametrize("flush_max", [1, 1_000])
async def test_an_error_of_a_user_is_told_once_however_it_is_flushed(
    ground: Ground, unchecked: None, flush_max: int
) -> None:
    """With the flush that keeps it, and by an id that a replay in other batches makes again."""
    ground.run(operations.grant("u", "g", 9))
    for _ in range(3):
        ground.run(operations.deduct("u", 1))
    poison(ground, 1, b"poison")
    store: Any = Failing(ground.store, "apply")
    flusher = ground.flusher(store, flush_max=flush_max)
    with pytest.raises(StoreUnavailable):
        await flusher.step()
    assert await alerts(ground.store) == []
    await ground.drain(flusher)
    errors = [event for event in await alarms(ground.store) if event.user_id == "u"]
    assert sorted(event.event_id for event in errors) == ["flush-0-2-0", "flush-0-2-1"]
    told = {row.alert_id: row for row in await alerts(ground.store)}
    assert set(told) == {f"transaction_error.{event.event_id}" for event in errors}
    second = next(row for row in await ground.transactions() if row.seq == 2)
    for event in errors:
        payload = told[f"transaction_error.{event.event_id}"].payload
        about = {"transaction_id": second.transaction_id, "seq": 2}
        assert payload == {"event_id": event.event_id, "message": event.message, **about}


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"prev": "0-2-other-9"}, "follows 0-2-other-9"), ({"epoch": 7}, "of epoch 7"), ({"available": 99}, "leaves 99")],
)
async def test_a_broken_chain_closes_the_partition(
    ground: Ground, unchecked: None, changed: dict[str, Any], why: str
) -> None:
    for _ in range(3):
        ground.run(operations.grant("u", f"g{_}", 1))
    poison(ground, 3, **changed)
    flusher = ground.flusher(flush_max=2)
    assert await flusher.step() == 2
    with pytest.raises(HistoryLost, match=why):
        await flusher.step()
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"lost"
    assert ground.partition.send("x", 1, operations.balance("u")).startswith("refused lost ")
    (event,) = await alarms(ground.store, "system")
    assert why in event.message
    for _ in range(3):
        with pytest.raises(HistoryLost):
            await flusher.step()
    assert len(await alarms(ground.store, "system")) == 1
    assert len(await ground.transactions()) == 2


async def test_a_gap_closes_the_partition(ground: Ground, unchecked: None) -> None:
    for _ in range(5):
        ground.run(operations.grant("u", f"g{_}", 1))
    await ground.flusher(flush_max=2).step()
    ground.client.xdel(ground.partition.keys.outbox, "3-0")
    with pytest.raises(HistoryLost, match="seq 3 is gone"):
        await ground.flusher().step()


async def test_a_flusher_that_slept_takes_up_where_the_others_are(ground: Ground) -> None:
    """Its entries are trimmed by now, which is no loss."""
    tell(ground.partition, T0)
    sleeper = ground.flusher(flush_max=5)
    assert await sleeper.step() == 5
    ground.partition.batch(*(operations.grant(f"u{n % 9}", f"g{n}", 1) for n in range(300)))
    await ground.drain()
    assert ground.partition.entries()[0].seq > 6
    ground.run(operations.deduct("u1", 1))
    assert await sleeper.step() == 0
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"
    assert await sleeper.step() == 1
    await ground.check()


async def test_a_redis_that_is_away_is_told_as_such(ground: Ground) -> None:
    class Away:
        def __getattr__(self, _: str) -> Any:
            async def away(*_: object) -> None:
                raise RedisUnavailable("redis", "gone")

            return away

    gateway: Any = Away()
    with pytest.raises(RedisUnavailable):
        await ground.flusher(gateway=gateway).step()


async def test_transactions_and_alarms_are_in_the_ledger_log(ground: Ground, tmp_path: Any, unchecked: None) -> None:
    log = LedgerFile(tmp_path / "deep" / "er" / "ledger.jsonl", AmountScale(6))
    log.start()
    tell(ground.partition, T0)
    poison(ground, 11, b"poison")
    flusher = ground.flusher()
    flusher._ledger = log
    await ground.drain(flusher)
    log.close()
    lines = [orjson.loads(line) for line in (tmp_path / "deep" / "er" / "ledger.jsonl").read_bytes().splitlines()]
    assert [line["transaction_id"] for line in lines if line["kind"] == "transaction"] == [
        row.transaction_id for row in await ground.transactions()
    ]
    assert [line["message"] for line in lines if line["kind"] == "quarantine"] == [
        "outbox entry 11 of partition 0 is in quarantine"
    ]
