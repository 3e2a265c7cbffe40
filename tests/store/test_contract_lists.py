"""Lists of rows that people page through, either way round."""

from __future__ import annotations

import pytest

from meter.store.base import Store
from meter.store.rows import DeliveryRow, EventRow, GrantRow, TransactionRow
from tests.store.samples import T0, account, event, flush, grant, transaction


def delivery(delivery_id: str, at_ms: int, user_id: str) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=delivery_id, alert_id="i", target="w", kind="test", user_id=user_id, created_at_ms=at_ms
    )


@pytest.fixture
async def listed(store: Store) -> Store:
    times = {"msg_B": T0, "msg_a": T0, "msg_A": T0 + 1, "msg_b": T0 + 1, "msg_c": T0 + 2}
    await store.insert_many([delivery(name, at_ms, "v" if name == "msg_a" else "u") for name, at_ms in times.items()])
    return store


async def pages(store: Store, limit: int, *, descending: bool, **equal: str) -> list[str]:
    found: list[DeliveryRow] = []
    while True:
        after = (found[-1].created_at_ms, found[-1].delivery_id) if found else None
        page = await store.find(
            DeliveryRow, equal, order_by="created_at_ms", after=after, descending=descending, limit=limit
        )
        found += page
        if len(page) < limit:
            return [row.delivery_id for row in found]


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
async def test_a_list_is_paged_either_way(listed: Store, limit: int) -> None:
    oldest_first = ["msg_B", "msg_a", "msg_A", "msg_b", "msg_c"]

    assert await pages(listed, limit, descending=False) == oldest_first
    assert await pages(listed, limit, descending=True) == oldest_first[::-1]
    assert await pages(listed, limit, descending=True, user_id="u") == ["msg_c", "msg_b", "msg_A", "msg_B"]


async def test_the_newest_up_to_a_time(listed: Store) -> None:
    found = await listed.find(DeliveryRow, {}, order_by="created_at_ms", until=T0 + 1, descending=True, limit=2)

    assert [row.delivery_id for row in found] == ["msg_b", "msg_A"]


async def test_a3_transactions_of_a_kind_are_paged_by_their_times(store: Store) -> None:
    """A3: those of everybody, newest first, and those of a reservation between two times."""
    rows = [transaction(n, f"u{n}", kind="deduct" if n % 2 else "void") for n in range(1, 7)]
    rows.append(transaction(7, kind="commit", reservation_id="hold-1"))
    rows.append(transaction(8, kind="deduct", created_at_ms=T0 + 5))
    await store.apply(flush(None, rows))
    found: list[TransactionRow] = []
    while page := await store.find(
        TransactionRow,
        {"kind": "deduct"},
        order_by="created_at_ms",
        after=(found[-1].created_at_ms, found[-1].transaction_id) if found else None,
        until=T0 + 5,
        descending=True,
        limit=2,
    ):
        found += page
    named = {"kind": "commit", "reservation_id": "hold-1"}

    assert [row.seq for row in found] == [8, 5, 3, 1]
    for since, many in ((T0 + 6, 1), (T0 + 8, 0)):
        kept = await store.find(TransactionRow, named, order_by="created_at_ms", after=(since, ""), limit=5)
        assert len(kept) == many


async def test_a1_grants_and_refusals_are_found_by_what_they_are_called(store: Store) -> None:
    """A1: whoever's they are, by their id and by the caller's own word."""
    await store.apply(flush(None, grants=[grant("welcome", "u1"), grant("welcome", "u2"), grant("other", "u1")]))
    await store.put_events([event("e1", kind="refusal", reference="req-1"), event("e2", kind="refusal")])
    grants = await store.find(GrantRow, {"grant_id": "welcome"}, order_by="created_at_ms", limit=5)
    refusals = await store.find(EventRow, {"reference": "req-1"}, order_by="created_at_ms", limit=5)

    assert [row.user_id for row in grants] == ["u1", "u2"]
    assert [row.event_id for row in refusals] == ["e1"]


async def test_a2_when_an_account_was_last_charged_is_kept(store: Store) -> None:
    """A2: also where it is not known."""
    await store.apply(flush(None, accounts=[account("u1", last_spent_at_ms=T0), account("u2")]))
    found = await store.accounts(["u1", "u2"])
    assert {name: row.last_spent_at_ms for name, row in found.items()} == {"u1": T0, "u2": None}
