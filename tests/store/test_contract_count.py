"""Counting in a change: never above the most, and all of the change or nothing, whoever else counts."""

from __future__ import annotations

import asyncio

from meter.store.base import Store
from meter.store.catalog import Change, Count
from meter.store.code_rows import ACTIVE, STOPPED, CodeRow, RedemptionRow
from meter.store.rows import AnswerRow, GrantRow
from tests.store import samples
from tests.store.conftest import Place, Servers, opened
from tests.store.samples import T0

CODE = CodeRow(
    code_id="code_a", amount=5, max_total=100, starts_at_ms=T0, created_at_ms=T0, updated_at_ms=T0, only=["model:x*"]
)


def redemption(user_id: str, most: int = CODE.max_total) -> Change:
    """What one who redeems it writes."""
    row = RedemptionRow(code_id="code_a", user_id=user_id, number=1, grant_id="code_a_1", created_at_ms=T0)
    grant = samples.grant("code_a_1", user_id, pending=True)
    return Change(new=[row, grant], counts=[Count(CODE, "redeemed", most, ACTIVE)])


async def count_and_rows(store: Store) -> tuple[int, int, int]:
    code = await store.get(CodeRow, "code_a")
    assert code is not None
    assert code.version == 1 + code.redeemed and code.only == ["model:x*"]
    rows = await store.find(RedemptionRow, {"code_id": "code_a"}, order_by="created_at_ms", limit=500)
    grants = await store.find(GrantRow, {"pending": True}, order_by="created_at_ms", limit=500)
    return code.redeemed, len(rows), len(grants)


async def test_a_code_counts_up_to_its_most(store: Store) -> None:
    await store.insert(CODE)

    assert [await store.commit(redemption(f"u{n}", 2)) for n in range(3)] == [True, True, False]

    assert await count_and_rows(store) == (2, 2, 2)


async def test_what_is_stopped_or_gone_counts_no_more(store: Store) -> None:
    assert not await store.commit(redemption("a"))
    await store.insert(CODE.model_copy(update={"state": STOPPED}))
    assert not await store.commit(redemption("a"))
    assert await count_and_rows(store) == (0, 0, 0)


async def test_who_has_it_already_counts_nothing(kind: str, store: Store) -> None:
    await store.insert(CODE)
    assert await store.commit(redemption("a"))

    assert not await store.commit(redemption("a"))

    assert await count_and_rows(store) == (1, 1, 1)


async def test_who_stops_a_code_sees_each_count_before(store: Store) -> None:
    """A row that was read before a count is not the one of now: a swap of it is refused."""
    await store.insert(CODE)
    assert await store.commit(redemption("a"))

    assert not await store.swap(CODE.model_copy(update={"state": STOPPED, "version": 2}))
    assert await store.swap(CODE.model_copy(update={"state": STOPPED, "redeemed": 1, "version": 3}))


async def test_a_hundred_and_fifty_in_two_processes_race_for_a_hundred(
    kind: str, place: Place, store: Store, servers: Servers
) -> None:
    """H42 on every store."""
    servers.need_concurrent_transactions(kind)
    await store.insert(CODE)
    async with opened(place.store()) as other:
        both = (store, other)
        done = await asyncio.gather(*(both[n % 2].commit(redemption(f"racer-{n}")) for n in range(150)))

    assert sum(done) == 100
    redeemed, rows, grants = await count_and_rows(store)
    assert redeemed == 100
    if store.has_transactions:
        assert (rows, grants) == (100, 100)


async def test_only_a_mongodb_that_runs_alone_has_no_transactions(kind: str, store: Store) -> None:
    assert store.has_transactions is (kind != "mongo")


async def test_a_count_and_a_key_that_is_there_leave_nothing(kind: str, store: Store) -> None:
    await store.insert(CODE)
    known = AnswerRow(operation_id="k", fingerprint="f", status=200, body="{}", created_at_ms=T0)
    await store.insert(known)
    change = redemption("a")

    assert not await store.commit(Change(new=[*change.new, known], counts=change.counts))

    assert await count_and_rows(store) == (0, 0, 0)
