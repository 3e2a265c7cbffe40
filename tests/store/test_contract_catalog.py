"""Rows that many processes add and change at once, by the page."""

from __future__ import annotations

import asyncio

import pytest

from meter.store.base import Store
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import AlertRow, WebhookRow
from tests.store.samples import T0

NAMES = ["b", "a", "team/x", "ü-ä", "Z"]


def subscription(user_id: str, **changes: object) -> SubscriptionRow:
    members: dict[str, object] = {
        "user_id": user_id,
        "subscription_id": f"s_{len(user_id)}",
        "plan_id": "pro",
        "anchor_at_ms": T0,
        "period_started_at_ms": T0,
        "next_period_at_ms": T0 + 10,
        "created_at_ms": T0,
        "updated_at_ms": T0,
    }
    return SubscriptionRow(**{**members, **changes})


def moved(row: SubscriptionRow, to_ms: int) -> SubscriptionRow:
    return row.model_copy(update={"next_period_at_ms": to_ms, "version": row.version + 1})


@pytest.fixture
async def rows(store: Store) -> list[SubscriptionRow]:
    found = [subscription(name) for name in NAMES]
    await store.insert_many(found)
    return found


async def stored(store: Store) -> dict[str, SubscriptionRow]:
    return {row.user_id: row for row in await store.find(SubscriptionRow, {}, order_by="user_id", limit=100)}


async def test_a_page_of_rows_is_swapped(store: Store, rows: list[SubscriptionRow]) -> None:
    changed = [moved(row, T0 + 20) for row in rows]

    assert await store.swap_many(changed) == len(rows)

    assert await stored(store) == {row.user_id: row for row in changed}
    assert await store.swap_many([]) == 0


async def test_rows_that_others_changed_or_that_are_gone_are_not_swapped(
    store: Store, rows: list[SubscriptionRow]
) -> None:
    await store.swap(moved(rows[1], T0 + 30))

    done = await store.swap_many([*(moved(row, T0 + 20) for row in rows), moved(subscription("unknown"), T0 + 20)])

    assert done == len(rows) - 1
    found = await stored(store)
    assert found.keys() == set(NAMES)
    assert found["a"].next_period_at_ms == T0 + 30
    assert {row.next_period_at_ms for name, row in found.items() if name != "a"} == {T0 + 20}


async def test_racing_swaps_of_one_page_do_each_row_once(store: Store, rows: list[SubscriptionRow]) -> None:
    pages = [[moved(row, T0 + 20 + n) for row in (rows, rows[::-1])[n % 2]] for n in range(4)]

    done = await asyncio.gather(*map(store.swap_many, pages))

    assert sum(done) == len(rows)
    assert {row.version for row in (await stored(store)).values()} == {2}


async def test_a_row_with_json_and_old_values_is_swapped_as_it_is(store: Store) -> None:
    hook = WebhookRow(
        webhook_id="w", url="https://a.test/", secret="new", old_secret="old", created_at_ms=T0, updated_at_ms=T0
    )
    await store.insert(hook)
    changed = hook.model_copy(update={"version": 2, "kinds": ["low_credits", "ü"], "old_secret": None})

    assert await store.swap_many([changed]) == 1

    assert await store.get(WebhookRow, "w") == changed


async def test_what_is_due_comes_in_order_of_its_time(store: Store) -> None:
    times = [30, 10, 20, 20, 40]
    made = [subscription(f"u{n}", next_period_at_ms=T0 + time) for n, time in enumerate(times)]
    made.append(subscription("over", state="ended"))
    await store.insert_many(made)

    found = await store.due(SubscriptionRow, "active", "next_period_at_ms", T0 + 30, 10)

    assert [row.next_period_at_ms - T0 for row in found] == [10, 20, 20, 30]
    assert {row.user_id for row in found} == {"u0", "u1", "u2", "u3"}
    (first,) = await store.due(SubscriptionRow, "active", "next_period_at_ms", T0 + 30, 1)
    assert first.user_id == "u1"
    assert await store.due(AlertRow, "due", "next_attempt_at_ms", T0, 10) == []
