"""What every store does with a flush: all of it once, or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meter.store.base import Flush, Store, StoreMismatch, StoreRefused
from meter.store.top_up_rows import TopUpRow
from tests.store import samples
from tests.store.conftest import Place, Servers
from tests.store.samples import BIGGEST, T0


async def test_a_store_answers_a_ping_and_knows_nothing_at_first(store: Store) -> None:
    await store.ping()

    assert await store.watermark(0) is None
    assert await store.accounts([]) == {}
    assert await store.accounts(["user-1"]) == {}
    assert await store.grants([]) == {}
    assert await store.reservations([]) == {}
    assert await store.reservations(["hold-1"]) == {}
    assert await store.transaction("0-1-lane-1") is None


async def test_a_flush_stores_every_row_as_it_was_given(store: Store) -> None:
    given = samples.flush(
        None,
        [samples.transaction(1, draws=[["grant-1", 5]], detail={"late": True}, metadata={"order": 7})],
        accounts=[samples.account(profile={"team": "red"}, suspended=True, top_up="a,1,2,-,day,cus_1")],
        grants=[samples.grant(operation_id="key-1", fingerprint="f", description="a gift", metadata={"a": [1, 2.5]})],
        reservations=[samples.reservation()],
        operations=[samples.operation("key-1", "0-1-lane-1")],
        events=[samples.event("event-1", user_id="user-1", detail={"seq": 1})],
        alerts=[samples.alert("low-1", payload={"available": 95})],
        top_ups=[samples.top_up("topup:1", most=500)],
        quarantine=[samples.poison(9)],
    )

    flushed = await store.apply(given)

    assert (flushed.done, list(flushed.repeated_operations)) == (True, [])
    assert await store.watermark(0) == given.reached
    assert await store.transaction("0-1-lane-1") == given.transactions[0]
    assert await store.accounts(["user-1", "nobody"]) == {"user-1": given.accounts[0]}
    assert await store.grants([("user-1", "grant-1"), ("user-1", "no")]) == {("user-1", "grant-1"): given.grants[0]}
    assert await store.reservations(["hold-1", "no"]) == {"hold-1": given.reservations[0]}
    assert await store.operations_since(0, 0, None, 10) == list(given.operations)
    assert await store.events(limit=10) == list(given.events)
    assert await store.get(TopUpRow, "topup:1") == given.top_ups[0]


async def test_read_rows_have_the_types_that_validation_would_give(store: Store) -> None:
    await store.apply(samples.flush(None, accounts=[samples.account()], grants=[samples.grant()]))

    account = (await store.accounts(["user-1"]))["user-1"]
    grant = (await store.grants([("user-1", "grant-1")]))["user-1", "grant-1"]

    assert account.suspended is False
    assert grant.pending is False
    assert type(account.available) is int
    assert type(account).model_validate(account.model_dump()) == account
    assert account.model_copy(update={"available": 1}).available == 1


async def test_amounts_are_exact_to_the_last_unit(store: Store) -> None:
    biggest = samples.transaction(BIGGEST, amount=BIGGEST, available_after=BIGGEST, debt_after=BIGGEST)
    account = samples.account(available=BIGGEST, spent=-BIGGEST, last_seq=BIGGEST)

    await store.apply(samples.flush(None, [biggest], accounts=[account], grants=[samples.grant(amount=BIGGEST)]))

    assert await store.transaction(biggest.transaction_id) == biggest
    assert (await store.accounts(["user-1"]))["user-1"] == account
    assert (await store.grants([("user-1", "grant-1")]))["user-1", "grant-1"].amount == BIGGEST


_NESTED: Any = {"leaf": 1}
for _ in range(200):
    _NESTED = [_NESTED]


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": "naïve 🦊 \u2028 \\ ' \" % \n", "ключ": "日本"},
        {"integer": 2**53 + 1, "bigger": 2**64 - 1, "smallest": -(2**63), "fraction": 0.1, "huge": 1e300},
        {"$where": 1, "a.b": {"$in": []}, "": None, "nul": "\x00", "\x00": "nul"},
        {"_json": "[1]"},
        {"_json": 1},
        [[[]], {}, "", 0, False, None, [True]],
        "a text",
        _NESTED,
    ],
    ids=["unicode", "numbers", "names", "wrapped", "not-wrapped", "lists", "text", "deep"],
)
async def test_any_json_comes_back_as_it_was_given(store: Store, metadata: Any) -> None:
    given = samples.transaction(1, metadata=metadata)

    await store.apply(samples.flush(None, [given], accounts=[samples.account(profile=metadata)]))

    assert await store.transaction(given.transaction_id) == given
    assert (await store.accounts(["user-1"]))["user-1"].profile == metadata


@pytest.mark.parametrize("text", ["", " spaced ", "🦊" * 500, "back\\slash 'quoted' %s \"x\"", "tab\tline\n"])
async def test_any_text_comes_back_as_it_was_given(store: Store, text: str) -> None:
    given = samples.transaction(1, description=text)

    await store.apply(samples.flush(None, [given], quarantine=[samples.poison(2, text=text * 1000)]))

    assert await store.transaction(given.transaction_id) == given


async def test_a_nul_in_a_text_does_not_stop_a_flush(store: Store) -> None:
    """PostgreSQL cannot keep it; a caller's description must not block everyone else's ledger."""
    given = samples.transaction(1, description="a\x00b")

    await store.apply(samples.flush(None, [given]))

    found = await store.transaction(given.transaction_id)
    assert found is not None
    assert found.description in ("a\x00b", "a\ufffdb")


async def test_ids_that_differ_in_case_are_different(store: Store) -> None:
    users = ["user", "USER", "User"]

    await store.apply(
        samples.flush(
            None,
            [samples.transaction(seq, user) for seq, user in enumerate(users, 1)],
            accounts=[samples.account(user, available=at) for at, user in enumerate(users)],
            grants=[samples.grant(grant, user_id="user") for grant in ("g", "G")],
        )
    )

    assert {user: row.available for user, row in (await store.accounts(users)).items()} == {
        "user": 0,
        "USER": 1,
        "User": 2,
    }
    assert set(await store.grants([("user", "g"), ("user", "G"), ("USER", "g")])) == {("user", "g"), ("user", "G")}
    assert [row.user_id for row in await store.history("USER", limit=10)] == ["USER"]


async def test_a_flush_from_another_watermark_does_nothing(store: Store) -> None:
    first = samples.flush(None, [samples.transaction(1)], accounts=[samples.account(available=95)])
    await store.apply(first)
    wrong = [None, samples.watermark(2), samples.watermark(1, epoch=2), samples.watermark(1, head="0-1-other-1")]

    for expected in wrong:
        late = samples.flush(expected, [samples.transaction(5)], accounts=[samples.account(available=1, last_seq=5)])
        assert not (await store.apply(late)).done

    assert await store.watermark(0) == first.reached
    assert await store.transaction("0-5-lane-1") is None
    assert (await store.accounts(["user-1"]))["user-1"].available == 95


async def test_a_repeated_flush_does_nothing(store: Store) -> None:
    first = samples.flush(None, [samples.transaction(1)], accounts=[samples.account()])
    second = samples.flush(first.reached, [samples.transaction(2)], accounts=[samples.account(last_seq=2)])
    await store.apply(first)
    await store.apply(second)

    assert not (await store.apply(first)).done
    assert not (await store.apply(second)).done
    assert len(await store.history("user-1", limit=10)) == 2


@pytest.mark.parametrize("begun", [False, True], ids=["first-flush", "later-flush"])
async def test_of_flushers_that_race_one_wins(place: Place, store: Store, servers: Servers, begun: bool) -> None:
    servers.need_concurrent_transactions(place.kind)
    expected = None
    if begun:
        expected = samples.watermark(1)
        await store.apply(samples.flush(None, reached=expected))
    racers = [place.store() for _ in range(4)]
    for racer in racers:
        await racer.open({})
    flushes = [
        samples.flush(
            expected,
            [samples.transaction(seq) for seq in range(2, 30)],
            accounts=[samples.account(last_seq=29)],
            reached=samples.watermark(29),
        )
        for _ in racers
    ]

    done = await asyncio.gather(*(racer.apply(one) for racer, one in zip(racers, flushes, strict=True)))

    assert sorted(one.done for one in done) == [False, False, False, True]
    assert [row.seq for row in await store.history("user-1", limit=100)] == list(range(29, 1, -1))
    assert await store.watermark(0) == samples.watermark(29)
    for racer in racers:
        await racer.close()


async def test_partitions_do_not_wait_for_each_other(place: Place, store: Store, servers: Servers) -> None:
    servers.need_concurrent_transactions(place.kind)
    flushes = [
        Flush(
            partition,
            None,
            samples.watermark(1, partition=partition),
            transactions=[samples.transaction(1, transaction_id=f"{partition}-1-lane-1", partition=partition)],
            operations=[samples.operation("same-key", f"{partition}-1-lane-1", partition=partition)],
        )
        for partition in range(5)
    ]

    done = await asyncio.gather(*map(store.apply, flushes))

    assert all(one.done and not one.repeated_operations for one in done)
    assert [await store.watermark(partition) for partition in range(5)] == [one.reached for one in flushes]


async def test_a_flush_that_fails_at_its_last_row_leaves_nothing(place: Place, store: Store) -> None:
    first = samples.flush(None, [samples.transaction(1)], accounts=[samples.account()], quarantine=[samples.poison(7)])
    await store.apply(first)
    broken = samples.flush(
        first.reached,
        [samples.transaction(2)],
        accounts=[samples.account(available=1, last_seq=2)],
        grants=[samples.grant()],
        operations=[samples.operation("key", "0-2-lane-1")],
        quarantine=[samples.poison(7, reason="another one")],
    )

    with pytest.raises(StoreRefused):
        await store.apply(broken)

    assert await store.watermark(0) == first.reached
    if place.kind != "mongo":  # a standalone server has no transactions; what it wrote is written again, the same
        assert await store.transaction("0-2-lane-1") is None
        assert (await store.accounts(["user-1"]))["user-1"].available == 95
        assert await store.grants([("user-1", "grant-1")]) == {}
        assert await store.operations_since(0, 0, None, 10) == []
    mended = samples.flush(
        first.reached,
        broken.transactions,
        accounts=broken.accounts,
        grants=broken.grants,
        operations=broken.operations,
        quarantine=[samples.poison(8)],
    )
    assert (await store.apply(mended)).repeated_operations in ((), [])
    assert len(await store.history("user-1", limit=10)) == 2
    assert (await store.accounts(["user-1"]))["user-1"].available == 1


@pytest.mark.parametrize(
    "second",
    [
        samples.transaction(1, amount=6),
        samples.transaction(1, transaction_id="0-1-other-2"),
        samples.transaction(2, transaction_id="0-1-lane-1"),
    ],
    ids=["same-id-other-content", "same-seq-other-id", "same-id-other-seq"],
)
async def test_a_transaction_that_contradicts_a_stored_one_is_refused_loudly(store: Store, second: Any) -> None:
    first = samples.flush(None, [samples.transaction(1)])
    await store.apply(first)

    with pytest.raises(StoreRefused):
        await store.apply(samples.flush(first.reached, [second], reached=samples.watermark(2)))

    assert await store.transaction("0-1-lane-1") == samples.transaction(1)
    assert await store.watermark(0) == first.reached


async def test_two_transactions_of_one_seq_in_a_flush_are_refused(store: Store) -> None:
    twice = [samples.transaction(1), samples.transaction(1, transaction_id="0-1-other-2")]

    with pytest.raises(StoreRefused):
        await store.apply(samples.flush(None, twice))

    assert await store.watermark(0) is None


async def test_snapshots_replace_what_is_there_and_keep_what_was_said_at_the_making(store: Store) -> None:
    first = samples.flush(
        None,
        accounts=[samples.account(profile={"a": 1})],
        grants=[
            samples.grant(operation_id="key", fingerprint="f", description="gift", metadata={"b": 2}, pending=True)
        ],
        reservations=[samples.reservation()],
    )
    await store.apply(first)
    newer: dict[str, Any] = {"created_at_ms": T0 + 99, "last_seq": 2}
    second = samples.flush(
        first.reached,
        accounts=[samples.account(available=7, profile=None, suspended=True, last_seq=2)],
        grants=[
            samples.grant(remaining=3, state="exhausted", description="other", transaction_id="0-2-lane-1", **newer)
        ],
        reservations=[samples.reservation(state="committed", charged=4, ended_at_ms=T0 + 5, draws=None, **newer)],
    )

    await store.apply(second)

    assert (await store.accounts(["user-1"]))["user-1"] == second.accounts[0]
    kept = {"operation_id": "key", "fingerprint": "f", "description": "gift", "metadata": {"b": 2}}
    assert (await store.grants([("user-1", "grant-1")]))["user-1", "grant-1"] == second.grants[0].model_copy(
        update=kept
    )
    assert (await store.reservations(["hold-1"]))["hold-1"] == second.reservations[0].model_copy(
        update={"created_at_ms": T0}
    )


async def test_an_older_snapshot_replaces_nothing(store: Store) -> None:
    newer = samples.flush(
        None,
        accounts=[samples.account(last_seq=9)],
        grants=[samples.grant(last_seq=9)],
        reservations=[samples.reservation(last_seq=9)],
    )
    await store.apply(newer)

    older = samples.flush(
        newer.reached,
        accounts=[samples.account(last_seq=8, available=1)],
        grants=[samples.grant(last_seq=8, remaining=1)],
        reservations=[samples.reservation(last_seq=8, charged=1)],
    )
    assert (await store.apply(older)).done

    assert (await store.accounts(["user-1"]))["user-1"] == newer.accounts[0]
    assert (await store.grants([("user-1", "grant-1")]))["user-1", "grant-1"] == newer.grants[0]
    assert (await store.reservations(["hold-1"]))["hold-1"] == newer.reservations[0]


async def test_a_flush_of_5000_transactions(store: Store) -> None:
    transactions = [
        samples.transaction(seq, f"user-{seq % 1000}", draws=[[f"grant-{seq % 1000}", 5]], metadata={"n": seq})
        for seq in range(1, 5001)
    ]
    given = samples.flush(
        None,
        transactions,
        accounts=[samples.account(f"user-{n}", last_seq=4000 + n) for n in range(1000)],
        grants=[samples.grant(f"grant-{n}", f"user-{n}", operation_id=f"make-{n}") for n in range(1000)],
        operations=[samples.operation(f"key-{seq}", f"0-{seq}-lane-1") for seq in range(1, 5001)],
    )

    assert (await store.apply(given)).done

    assert await store.transaction("0-4321-lane-1") == transactions[4320]
    assert await store.accounts([f"user-{n}" for n in range(1500)]) == {row.user_id: row for row in given.accounts}
    keys = [(f"user-{n}", f"grant-{n}") for n in range(1500)]
    assert await store.grants(keys) == {(row.user_id, row.grant_id): row for row in given.grants}
    assert len(await store.operations_since(0, 0, None, 10_000)) == 5000
    assert len(await store.live_grants([f"user-{n}" for n in range(1500)])) == 1000


async def test_settings_are_kept_at_the_first_start_and_checked_after(place: Place, store: Store) -> None:
    await store.open({"decimal_places": "6"})
    await store.open({"decimal_places": "6", "partitions": "4"})
    other = place.store()

    with pytest.raises(StoreMismatch, match="decimal_places is 6 in the store and 2 here"):
        await other.open({"decimal_places": "2", "partitions": "4"})
    with pytest.raises(StoreMismatch, match="partitions"):
        await other.open({"decimal_places": "6", "partitions": "1"})
    await other.close()


async def test_what_one_store_wrote_another_reads(place: Place, store: Store) -> None:
    await store.apply(samples.flush(None, [samples.transaction(1)]))
    other = place.store()
    await other.open({})

    assert await other.transaction("0-1-lane-1") == samples.transaction(1)
    assert await other.watermark(0) == samples.watermark(1)
    await other.close()


class TestMoveEpoch:
    async def test_it_fences_every_flusher_of_the_epoch_before(self, store: Store) -> None:
        first = samples.flush(None, [samples.transaction(1)])
        await store.apply(first)
        moved = samples.watermark(1, epoch=2)

        assert await store.move_epoch(first.reached, moved)

        assert not (await store.apply(samples.flush(first.reached, [samples.transaction(2)]))).done
        assert await store.watermark(0) == moved
        assert (await store.apply(samples.flush(moved, [samples.transaction(2, epoch=2)]))).done

    async def test_it_needs_the_expected_watermark(self, store: Store) -> None:
        assert not await store.move_epoch(samples.watermark(1), samples.watermark(1, epoch=2))
        assert await store.move_epoch(None, samples.watermark(0, epoch=2))
        assert not await store.move_epoch(None, samples.watermark(0, epoch=3))
        assert await store.watermark(0) == samples.watermark(0, epoch=2)

    async def test_of_movers_that_race_one_wins(self, place: Place, store: Store) -> None:
        await store.apply(samples.flush(None, [samples.transaction(1)]))
        other = place.store()
        await other.open({})
        reached = [samples.watermark(1, epoch=epoch) for epoch in (2, 3, 4, 5)]

        moved = await asyncio.gather(
            *(one.move_epoch(samples.watermark(1), to) for one, to in zip([store, other] * 2, reached, strict=True))
        )

        assert sorted(moved) == [False, False, False, True]
        assert await store.watermark(0) == reached[moved.index(True)]
        await other.close()


class TestOperations:
    async def test_an_id_that_another_transaction_has_is_reported_and_the_first_one_stays(self, store: Store) -> None:
        first = samples.flush(
            None,
            [samples.transaction(1)],
            operations=[samples.operation("key", "0-1-lane-1"), samples.operation("Key", "0-1-lane-1")],
        )
        assert not (await store.apply(first)).repeated_operations
        again = samples.flush(
            first.reached,
            [samples.transaction(2), samples.transaction(3)],
            operations=[samples.operation("key", "0-2-lane-1"), samples.operation("new", "0-3-lane-1")],
        )

        flushed = await store.apply(again)

        assert flushed.done
        assert list(flushed.repeated_operations) == ["key"]
        found = {row.operation_id: row.transaction_id for row in await store.operations_since(0, 0, None, 10)}
        assert found == {"key": "0-1-lane-1", "Key": "0-1-lane-1", "new": "0-3-lane-1"}

    async def test_an_id_that_is_twice_in_one_flush_goes_to_the_first(self, store: Store) -> None:
        given = samples.flush(
            None,
            [samples.transaction(1), samples.transaction(2)],
            operations=[samples.operation("key", "0-1-lane-1"), samples.operation("key", "0-2-lane-1")],
        )

        flushed = await store.apply(given)

        assert list(flushed.repeated_operations) == ["key"]
        assert [row.transaction_id for row in await store.operations_since(0, 0, None, 10)] == ["0-1-lane-1"]

    async def test_two_grants_never_share_an_id_nor_stop_the_flush(self, store: Store) -> None:
        await store.add_pending_grant(samples.grant("first", operation_id="key", pending=True))
        given = samples.flush(
            None,
            grants=[
                samples.grant("first", operation_id="key", last_seq=1),
                samples.grant("second", operation_id="key", last_seq=2),
                samples.grant("third", operation_id="new", last_seq=3),
                samples.grant("fourth", operation_id="new", last_seq=4),
            ],
        )

        flushed = await store.apply(given)

        assert flushed.done
        assert sorted(flushed.repeated_operations) == ["key", "new"]
        found = {row.grant_id: row.operation_id for row in await store.grants_of("user-1", limit=10)}
        assert found == {"first": "key", "second": None, "third": "new", "fourth": None}


async def test_events_and_alerts_that_are_there_stay(store: Store) -> None:
    first = samples.flush(None, events=[samples.event("e-1")], alerts=[samples.alert("i-1")])
    await store.apply(first)
    second = samples.flush(
        first.reached,
        events=[samples.event("e-1", message="other"), samples.event("e-2"), samples.event("e-2", message="twice")],
        alerts=[samples.alert("i-1", next_attempt_at_ms=3), samples.alert("i-2")],
    )

    assert (await store.apply(second)).done

    assert await store.events(limit=10) == [samples.event("e-2"), samples.event("e-1")]


async def test_a_request_for_credits_that_is_there_stays_as_it_is(store: Store) -> None:
    await store.apply(samples.flush(None, top_ups=[samples.top_up("topup:1")]))
    claimed = samples.top_up("topup:1", version=2, step="asking")
    assert await store.swap(claimed)

    again = [samples.top_up("topup:1"), samples.top_up("topup:2", next_attempt_at_ms=T0 + 1)]
    await store.apply(samples.flush(samples.watermark(1), top_ups=again))

    assert await store.get(TopUpRow, "topup:1") == claimed
    assert await store.due(TopUpRow, "open", "next_attempt_at_ms", T0 + 1, 10) == [claimed, again[1]]
