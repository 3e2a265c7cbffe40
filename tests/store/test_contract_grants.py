"""What every store does with grants that are not in Redis yet."""

from __future__ import annotations

import asyncio

from meter.store.base import Store
from tests.store import samples
from tests.store.conftest import Place
from tests.store.samples import T0


async def test_a_pending_grant_is_there_at_once(store: Store) -> None:
    given = samples.grant(pending=True, operation_id="key", fingerprint="f", metadata={"invoice": "🧾"})

    assert await store.add_pending_grant(given) is None

    assert await store.grants([("user-1", "grant-1")]) == {("user-1", "grant-1"): given}
    assert await store.pending_grants(T0 + 1, 10) == [given]
    assert await store.live_grants(["user-1"]) == []


async def test_adding_it_again_answers_the_first(store: Store) -> None:
    first = samples.grant(pending=True, operation_id="key", amount=100)
    await store.add_pending_grant(first)

    assert await store.add_pending_grant(first) == first
    assert await store.add_pending_grant(samples.grant(pending=True, amount=7)) == first
    assert await store.add_pending_grant(samples.grant("other", pending=True, operation_id="key", amount=7)) == first
    assert await store.pending_grants(T0 + 1, 10) == [first]


async def test_the_same_key_elsewhere_is_another_grant(store: Store) -> None:
    """Keys belong to a partition; grants without one never meet."""
    given = [
        samples.grant(pending=True, operation_id="key"),
        samples.grant("key-in-other-case", pending=True, operation_id="KEY"),
        samples.grant("other-partition", "user-2", pending=True, operation_id="key", partition=1),
        samples.grant("no-key-1", pending=True),
        samples.grant("no-key-2", pending=True),
        samples.grant("GRANT-1", pending=True),
    ]

    assert [await store.add_pending_grant(one) for one in given] == [None] * len(given)


async def test_of_those_who_add_it_at_once_one_makes_it(place: Place, store: Store) -> None:
    other = place.store()
    await other.open({})
    given = [samples.grant(f"grant-{n}", pending=True, operation_id="key") for n in range(6)]

    found = await asyncio.gather(
        *(one.add_pending_grant(row) for one, row in zip([store, other] * 3, given, strict=True))
    )

    (made,) = await store.pending_grants(T0 + 1, 10)
    assert found[given.index(made)] is None
    assert [row for row in found if row is not None] == [made] * 5
    await other.close()


async def test_a_flush_marks_it_applied_at_its_time_and_keeps_what_was_said(store: Store) -> None:
    await store.add_pending_grant(samples.grant(pending=True, operation_id="key", fingerprint="f", description="gift"))
    applied = samples.grant(remaining=90, last_seq=1, created_at_ms=T0 + 9, transaction_id="0-1-lane-1")

    await store.apply(samples.flush(None, [samples.transaction(1, kind="grant")], grants=[applied]))

    kept = {"operation_id": "key", "fingerprint": "f", "description": "gift"}
    assert (await store.grants([("user-1", "grant-1")]))["user-1", "grant-1"] == applied.model_copy(update=kept)
    assert await store.pending_grants(T0 + 1, 10) == []
    assert len(await store.live_grants(["user-1"])) == 1


async def test_only_a_pending_one_can_be_dropped(store: Store) -> None:
    await store.add_pending_grant(samples.grant(pending=True, operation_id="key"))
    await store.apply(samples.flush(None, grants=[samples.grant("applied")]))

    await store.drop_pending_grant("user-1", "applied")
    await store.drop_pending_grant("user-1", "grant-1")
    await store.drop_pending_grant("user-1", "grant-1")
    await store.drop_pending_grant("nobody", "grant-1")

    assert [row.grant_id for row in await store.grants_of("user-1", limit=10)] == ["applied"]
    assert await store.add_pending_grant(samples.grant("again", pending=True, operation_id="key")) is None


async def test_pending_ones_come_oldest_first(store: Store) -> None:
    for n in (3, 1, 2, 0):
        await store.add_pending_grant(samples.grant(f"grant-{n}", pending=True, created_at_ms=T0 + n))

    assert [row.grant_id for row in await store.pending_grants(T0 + 3, 10)] == ["grant-0", "grant-1", "grant-2"]
    assert [row.grant_id for row in await store.pending_grants(T0 + 3, 2)] == ["grant-0", "grant-1"]
    assert await store.pending_grants(T0, 10) == []


async def test_pending_ones_are_paged_past_any_of_them(store: Store) -> None:
    """P5: what is refused for good stays pending, and must not hide what comes after it."""
    made = [samples.grant(f"g{n}", f"u{n % 2}", pending=True, created_at_ms=T0 + n // 4) for n in range(9)]
    await store.insert_many(made[::-1])
    order = sorted((row.created_at_ms, row.user_id, row.grant_id) for row in made)
    found: list[tuple[int, str, str]] = []
    while rows := await store.pending_grants(T0 + 9, 2, found[-1] if found else None):
        found += [(row.created_at_ms, row.user_id, row.grant_id) for row in rows]
    assert found == order
