"""U9: every store adds up alike: who spent what, by user, day, plan or metadata, in pages."""

from __future__ import annotations

import pytest

from meter.clock import DAY_MS
from meter.store.base import Store
from meter.store.plan_rows import PastPlanRow
from meter.store.sums import Sum, Wanted
from tests.store import samples
from tests.store.samples import T0
from tests.store.test_contract_catalog import subscription

BIG = 2**52


@pytest.fixture(autouse=True)
async def _rows(store: Store) -> None:
    day = {"created_at_ms": T0 + DAY_MS}
    rows = [
        samples.transaction(1, "a", kind="grant", amount=BIG),
        samples.transaction(2, "a", kind="deduct", amount=7, metadata={"model": "x", "n": 1}),
        samples.transaction(3, "B", kind="commit", amount=BIG, metadata={"model": "X"}),
        samples.transaction(4, "B", kind="commit", amount=BIG, metadata={"model": "x"}, **day),
        samples.transaction(5, "B", kind="refund", amount=3, metadata={"other": "x"}, **day),
        samples.transaction(6, "c", kind="reserve", amount=9, metadata={"model": "x"}),
        samples.transaction(7, "c", kind="void", amount=9),
    ]
    await store.apply(samples.flush(None, rows))


async def paged(store: Store, wanted: Wanted) -> list[Sum]:
    """All sums, a page of one at a time."""
    found: list[Sum] = []
    while page := await store.sums(wanted, found[-1].key if found else "", 1):
        found += page
    assert found == await store.sums(wanted, "", 100)
    return found


async def test_u9_by_user(store: Store) -> None:
    assert await paged(store, Wanted("user")) == [Sum("B", 2, 2 * BIG, 3, 0), Sum("a", 1, 7, 0, BIG)]
    assert await paged(store, Wanted("user", user_id="a")) == [Sum("a", 1, 7, 0, BIG)]
    assert await paged(store, Wanted("user", from_ms=T0 + DAY_MS)) == [Sum("B", 1, BIG, 3, 0)]
    assert await paged(store, Wanted("user", from_ms=T0 + 2, to_ms=T0 + 3)) == [Sum("a", 1, 7, 0, 0)]


async def test_u9_by_day(store: Store) -> None:
    first, second = T0 // DAY_MS, (T0 + DAY_MS) // DAY_MS
    assert await paged(store, Wanted("day")) == [Sum(str(first), 2, BIG + 7, 0, BIG), Sum(str(second), 1, BIG, 3, 0)]


async def test_u9_by_a_member_of_the_metadata(store: Store) -> None:
    found = {one.key: one for one in await paged(store, Wanted("metadata", "model"))}
    assert found == {"x": Sum("x", 2, BIG + 7, 0, 0), "X": Sum("X", 1, BIG, 0, 0)}
    assert await paged(store, Wanted("metadata", "n")) == [Sum("1", 1, 7, 0, 0)]
    assert await paged(store, Wanted("metadata", "none")) == []


def past(user_id: str, plan_id: str, from_ms: int, until_ms: int, group: str = "default") -> PastPlanRow:
    return PastPlanRow(user_id=user_id, plan_group=group, plan_id=plan_id, from_ms=from_ms, until_ms=until_ms)


async def test_u9_by_the_plans_that_users_have(store: Store) -> None:
    running = subscription("B", created_at_ms=T0 + 3)
    over = subscription("a", plan_id="old", state="ended")
    await store.insert_many([running, over])
    assert await paged(store, Wanted("plan")) == [Sum("pro", 2, 2 * BIG, 3, 0)]


async def test_u9_by_the_plans_that_users_had(store: Store) -> None:
    """From the first millisecond of a plan to the one before the next: B changed between its charges, a ended."""
    await store.insert_many(
        [subscription("B", plan_since_ms=T0 + 4, created_at_ms=T0), subscription("a", state="ended")]
    )
    await store.insert_many([past("B", "free", T0, T0 + 4), past("a", "free", T0 + 2, T0 + 3)])
    free, pro = Sum("free", 2, BIG + 7, 0, 0), Sum("pro", 1, BIG, 3, 0)
    assert await paged(store, Wanted("plan")) == [free, pro]
    assert await paged(store, Wanted("plan", user_id="a")) == [Sum("free", 1, 7, 0, 0)]
    assert await paged(store, Wanted("plan", from_ms=T0 + DAY_MS)) == [pro]


async def test_u9_a_user_of_two_plans_is_in_both_sums(store: Store) -> None:
    other = subscription("a", plan_group="extra", plan_id="more")
    await store.insert_many([subscription("a"), other])
    await store.insert_many([past("a", "seats", T0 + 1, T0 + 2, "seats")])
    both = [Sum("more", 1, 7, 0, BIG), Sum("pro", 1, 7, 0, BIG), Sum("seats", 0, 0, 0, BIG)]
    assert await paged(store, Wanted("plan")) == both


@pytest.mark.parametrize("amount", [500_000_000, 1_500_000_000, 10**15, 4 * 10**15])
async def test_sums_that_end_in_zeros_are_whole(store: Store, amount: int) -> None:
    """PostgreSQL's are decimals such as 5E+8, of which no more than the first digit was read."""
    many = [samples.transaction(8 + n, "round", kind="deduct", amount=amount) for n in range(2)]
    await store.insert_many(many)
    assert await paged(store, Wanted("user", user_id="round")) == [Sum("round", 2, 2 * amount, 0, 0)]
