"""Lists of rows that people page through, either way round."""

from __future__ import annotations

import pytest

from meter.store.base import Store
from meter.store.rows import DeliveryRow
from tests.store.samples import T0


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
