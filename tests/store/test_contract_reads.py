"""What every store answers, in which order, and in which pages."""

from __future__ import annotations

import asyncio

import pytest

from meter.store.base import Store
from tests.store import samples
from tests.store.conftest import Place
from tests.store.samples import T0

MIXED = [
    "0",
    "A",
    "Z",
    "_",
    "a",
    "a-b",
    "a.b",
    "a/b",
    "a:b",
    "aB",
    "a_b",
    "ab",
    "b",
    "team/A",
    "team/a",
    "team:a",
    "z@x",
]
BYTEWISE = sorted(MIXED, key=str.encode)


class TestHistory:
    @pytest.fixture(autouse=True)
    async def _rows(self, store: Store) -> None:
        kinds = ["grant", "deduct", "refund", "deduct", "void"]
        rows = [samples.transaction(seq, kind=kinds[seq % 5]) for seq in range(1, 21)]
        rows.append(samples.transaction(21, "user-2"))
        await store.apply(samples.flush(None, rows))

    async def _seqs(self, store: Store, user_id: str = "user-1", **filters: object) -> list[int]:
        return [row.seq for row in await store.history(user_id, **{"limit": 100, **filters})]  # type: ignore[arg-type]

    async def test_it_is_of_one_user_newest_first(self, store: Store) -> None:
        assert await self._seqs(store) == list(range(20, 0, -1))
        assert await self._seqs(store, "user-2") == [21]
        assert await self._seqs(store, "user-3") == []

    async def test_it_filters_by_what_the_caller_calls_it(self, store: Store) -> None:
        """P19: by reference, or by the key."""
        named = [samples.transaction(seq, reference="ref", created_at_ms=T0 + seq // 2) for seq in range(31, 36)]
        keyed = samples.transaction(36, operation_id="ref")
        other = samples.transaction(37, "user-3", reference="ref")
        await store.apply(samples.flush(await store.watermark(0), [*named, keyed, other]))
        assert await self._seqs(store, reference="ref") == [36, 35, 34, 33, 32, 31]
        assert await self._seqs(store, reference="ref", limit=2, before_seq=35) == [34, 33]
        assert await self._seqs(store, reference="other") == []
        traced = await store.traced("ref", limit=100)
        assert [row.seq for row in traced] == [37, 35, 34, 33, 32, 31]
        pages: list[int] = []
        before: tuple[int, int, int] | None = None
        while page := await store.traced("ref", before=before, limit=2):
            pages += [row.seq for row in page]
            before = (page[-1].created_at_ms, page[-1].seq, page[-1].partition)
        assert pages == [37, 35, 34, 33, 32, 31]
        assert await store.traced("nobody", limit=1) == []

    async def test_it_pages_by_seq(self, store: Store) -> None:
        assert await self._seqs(store, limit=3) == [20, 19, 18]
        assert await self._seqs(store, limit=3, before_seq=18) == [17, 16, 15]
        assert await self._seqs(store, before_seq=1) == []

    async def test_it_filters_by_kind(self, store: Store) -> None:
        assert await self._seqs(store, kinds=["refund"]) == [17, 12, 7, 2]
        assert await self._seqs(store, kinds=("refund", "void"), limit=3) == [19, 17, 14]
        assert await self._seqs(store, kinds=["unheard"]) == []

    async def test_it_filters_by_time_from_inclusive_to_exclusive(self, store: Store) -> None:
        assert await self._seqs(store, from_ms=T0 + 18) == [20, 19, 18]
        assert await self._seqs(store, to_ms=T0 + 3) == [2, 1]
        assert await self._seqs(store, from_ms=T0 + 5, to_ms=T0 + 7) == [6, 5]
        assert await self._seqs(store, from_ms=T0 + 5, to_ms=T0 + 15, kinds=["void"], before_seq=14) == [9]

    async def test_the_transaction_at_a_time_is_the_last_one_up_to_it(self, store: Store) -> None:
        assert await store.transaction_at("user-1", T0) is None
        for at_ms, seq in ((T0 + 1, 1), (T0 + 7, 7), (T0 + 10_000, 20)):
            found = await store.transaction_at("user-1", at_ms)
            assert found is not None
            assert found.seq == seq


async def test_of_transactions_of_one_time_the_last_one_counts(store: Store) -> None:
    rows = [samples.transaction(seq, created_at_ms=T0, available_after=seq) for seq in (1, 2, 3)]
    await store.apply(samples.flush(None, rows))

    assert await store.transaction_at("user-1", T0) == rows[-1]


async def test_refunds_of_a_charge_add_up(store: Store) -> None:
    big = 2**53 - 2
    rows = [
        samples.transaction(1, amount=big),
        samples.transaction(2, kind="refund", refund_of="0-1-lane-1", amount=1),
        samples.transaction(3, kind="refund", refund_of="0-1-lane-1", amount=big - 1),
        samples.transaction(4, kind="refund", refund_of="0-1-LANE-1", amount=9),
    ]
    await store.apply(samples.flush(None, rows))

    refunded = await store.refunded("0-1-lane-1")

    assert refunded == big
    assert type(refunded) is int
    assert await store.refunded("0-2-lane-1") == 0


class TestAccounts:
    async def test_a_scan_pages_by_the_bytes_of_user_id(self, store: Store) -> None:
        elsewhere = samples.account("elsewhere", partition=1)
        await store.apply(samples.flush(None, accounts=[*(samples.account(user) for user in MIXED), elsewhere]))

        found, after = [], ""
        while page := await store.scan_accounts(0, after, 5):
            assert len(page) <= 5
            found += [row.user_id for row in page]
            after = found[-1]

        assert found == BYTEWISE
        assert [row.user_id for row in await store.scan_accounts(1, "", 10)] == ["elsewhere"]

    async def test_longest_ids(self, store: Store) -> None:
        user = "u/" * 64
        given = samples.account(user)
        await store.apply(samples.flush(None, accounts=[given], grants=[samples.grant("g" * 128, user)]))

        assert await store.accounts([user]) == {user: given}
        assert list(await store.grants([(user, "g" * 128)])) == [(user, "g" * 128)]


class TestGrantsOf:
    async def test_they_page_by_their_making_and_the_bytes_of_their_id(self, store: Store) -> None:
        given = [samples.grant(name, created_at_ms=T0 + n % 3) for n, name in enumerate(BYTEWISE) if "/" not in name]
        await store.apply(samples.flush(None, grants=[*given, samples.grant("other", "user-2")]))
        expected = [(row.created_at_ms, row.grant_id) for row in given]
        expected.sort(key=lambda pair: (pair[0], pair[1].encode()))

        found: list[tuple[int, str]] = []
        while page := await store.grants_of("user-1", after=found[-1] if found else None, limit=4):
            found += [(row.created_at_ms, row.grant_id) for row in page]

        assert found == expected

    async def test_the_expiring_are_the_live_ones_by_their_end(self, store: Store) -> None:
        ends = T0 + 100
        given = [
            samples.grant("later", expires_at_ms=ends + 2),
            samples.grant("b", expires_at_ms=ends),
            samples.grant("a", expires_at_ms=ends),
            samples.grant("first", expires_at_ms=ends - 1),
            samples.grant("at-the-limit", expires_at_ms=ends + 3),
            samples.grant("empty", remaining=0, state="exhausted", expires_at_ms=ends),
            samples.grant("held", remaining=0, reserved=5, state="exhausted", expires_at_ms=ends + 1),
            samples.grant("expired", remaining=0, state="expired", expires_at_ms=ends),
            samples.grant("pending", pending=True, expires_at_ms=ends),
        ]
        await store.apply(samples.flush(None, grants=given))

        found = await store.grants_of("user-1", limit=10, expires_before_ms=ends + 3)
        assert [row.grant_id for row in found] == ["first", "a", "b", "held", "later"]

        rest = await store.grants_of("user-1", limit=2, expires_before_ms=ends + 3, after=(ends, "a"))
        assert [row.grant_id for row in rest] == ["b", "held"]


async def test_live_grants_are_what_a_rebuild_needs(store: Store) -> None:
    given = [
        samples.grant("active"),
        samples.grant("scheduled", remaining=0, state="scheduled"),
        samples.grant("held", remaining=0, reserved=1, state="exhausted"),
        samples.grant("voided-but-held", remaining=0, reserved=1, state="voided"),
        samples.grant("exhausted", remaining=0, state="exhausted"),
        samples.grant("voided", remaining=0, state="voided"),
        samples.grant("pending", pending=True),
        samples.grant("other-user", "user-2"),
    ]
    await store.apply(samples.flush(None, grants=given))

    found = await store.live_grants(["user-1", "nobody"])

    assert sorted(row.grant_id for row in found) == ["active", "held", "scheduled", "voided-but-held"]
    assert await store.live_grants([]) == []


class TestReservations:
    @pytest.fixture(autouse=True)
    async def _rows(self, store: Store) -> None:
        states = ["open", "committed", "released", "expired"]
        given = [
            samples.reservation(
                f"hold-{n:02d}",
                f"user-{1 + n % 2}",
                state=states[n % 4],
                created_at_ms=T0 + n // 4,
                ended_at_ms=None if n % 4 == 0 else T0 + 100 - n // 4,
            )
            for n in range(20)
        ]
        elsewhere = samples.reservation("elsewhere", "user-9", partition=1, state="expired", ended_at_ms=T0 + 99)
        await store.apply(samples.flush(None, reservations=[*given, elsewhere]))

    async def test_they_page_by_their_making(self, store: Store) -> None:
        first = await store.reservations_of("user-1", state=None, limit=4)
        assert [row.reservation_id for row in first] == ["hold-00", "hold-02", "hold-04", "hold-06"]

        after = (first[-1].created_at_ms, first[-1].reservation_id)
        rest = await store.reservations_of("user-1", state=None, after=after, limit=100)
        assert [row.reservation_id for row in rest] == [f"hold-{n:02d}" for n in range(8, 20, 2)]

    async def test_they_filter_by_state(self, store: Store) -> None:
        found = await store.reservations_of("user-1", state="open", limit=2, after=(T0, "hold-00"))
        assert [row.reservation_id for row in found] == ["hold-04", "hold-08"]
        assert await store.reservations_of("user-2", state="open", limit=10) == []

    async def test_the_open_ones_of_some_users(self, store: Store) -> None:
        found = await store.open_reservations(["user-1", "user-2", "nobody"])
        assert sorted(row.reservation_id for row in found) == [f"hold-{n:02d}" for n in range(0, 20, 4)]
        assert await store.open_reservations(["user-2"]) == []
        assert await store.open_reservations([]) == []

    async def test_the_ended_ones_page_by_their_end(self, store: Store) -> None:
        first = await store.reservations_ended_since(0, T0 + 98, None, 4)
        assert [row.reservation_id for row in first] == ["hold-09", "hold-10", "hold-11", "hold-05"]
        assert first[-1].ended_at_ms is not None

        rest = await store.reservations_ended_since(0, T0 + 98, (first[-1].ended_at_ms, "hold-05"), 10)
        assert [row.reservation_id for row in rest] == ["hold-06", "hold-07", "hold-01", "hold-02", "hold-03"]
        assert [row.reservation_id for row in await store.reservations_ended_since(1, 0, None, 9)] == ["elsewhere"]


async def test_operations_page_by_their_making_and_the_bytes_of_their_id(store: Store) -> None:
    given = [
        samples.operation(key, "0-1-lane-1", created_at_ms=T0 + n % 2)
        for n, key in enumerate(["b", "B", "a", "A", "_"])
    ]
    old = samples.operation("old", "0-1-lane-1", created_at_ms=T0 - 1)
    await store.apply(samples.flush(None, [samples.transaction(1)], operations=[*given, old]))

    first = await store.operations_since(0, T0, None, 2)
    rest = await store.operations_since(0, T0, (first[-1].created_at_ms, first[-1].operation_id), 10)

    assert [row.operation_id for row in first + rest] == ["_", "a", "b", "A", "B"]
    assert await store.operations_since(1, 0, None, 10) == []


class TestEvents:
    @pytest.fixture(autouse=True)
    async def _rows(self, store: Store) -> None:
        await store.put_events(
            [
                samples.event(f"event-{n}", created_at_ms=T0 + n // 2, kind="error" if n % 3 == 0 else "system")
                for n in range(8)
            ]
        )
        await store.put_events([samples.event("mine", user_id="user-1", kind="error", created_at_ms=T0 + 50)])

    async def test_they_come_newest_first_and_page_back(self, store: Store) -> None:
        first = await store.events(limit=3)
        assert [row.event_id for row in first] == ["mine", "event-7", "event-6"]

        rest = await store.events(before=(T0 + 3, "event-6"), limit=10)
        assert [row.event_id for row in rest] == [f"event-{n}" for n in range(5, -1, -1)]

    async def test_they_filter_by_kind_and_user(self, store: Store) -> None:
        errors = await store.events(kind="error", limit=10)
        assert [row.event_id for row in errors] == ["mine", "event-6", "event-3", "event-0"]
        assert [row.event_id for row in await store.events(user_id="user-1", limit=10)] == ["mine"]
        assert [row.event_id for row in await store.events(user_id="user-1", kind="system", limit=10)] == []
        older = await store.events(kind="error", before=(T0 + 50, "mine"), limit=1)
        assert [row.event_id for row in older] == ["event-6"]

    async def test_one_that_is_there_stays(self, place: Place, store: Store) -> None:
        other = place.store()
        await other.open({})
        events = [samples.event("event-7", message="other"), *(samples.event(f"new-{n}") for n in range(20))]

        await asyncio.gather(*(one.put_events(events) for one in (store, other, store, other)))
        await store.put_events([])

        found = await store.events(limit=100)
        assert len(found) == 29
        assert {row.message for row in found} == {"hello"}
        await other.close()
