"""What usage figures should be, added up from the rows of the ledger by a reading of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from meter.store.base import Store
from meter.store.usage import UsageWanted
from tests.ledger.ground import all_transactions

WORDS = ("user", "hour", "model", "feature", "key", "rate_card_version")
Sums = dict[tuple[Any, ...], tuple[int, int, int, dict[str, int]]]


async def of_the_ledger(store: Store, bucket_ms: int = 3_600_000) -> Sums:
    """Requests, charged, refunded and quantities by path, bucket and what a charge was for."""
    rows = await all_transactions(store)
    held = {row.reservation_id: row for row in rows if row.kind == "reserve"}
    tags: dict[str, tuple[str, ...]] = {}
    found: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, 0, {}])
    for row in rows:
        detail: Any = row.detail or {}
        if row.kind in ("deduct", "commit"):
            reserve = held.get(row.reservation_id) if row.kind == "commit" else None
            words = _tags(row, reserve)
            tags[row.transaction_id] = words
            sums = found[row.user_id, row.created_at_ms // bucket_ms * bucket_ms, *words]
            sums[0] += 1
            sums[1] += row.amount
            for part in str(detail.get("price", "")).split(",")[6:]:
                dimension, quantity = part.split("=")[:2]
                if quantity != "0":
                    sums[3][dimension] = sums[3].get(dimension, 0) + int(quantity)
        elif row.kind == "refund":
            words = tags[str(row.refund_of)]
            found[row.user_id, row.created_at_ms // bucket_ms * bucket_ms, *words][2] += row.amount
    return {key: tuple(sums) for key, sums in found.items()}


def _tags(row: Any, reserve: Any) -> tuple[str, ...]:
    price = (row.detail or {}).get("price")
    card, version, model = price.split(",")[:3] if price else ("", "", "")
    if not price and reserve is not None and (reserve.detail or {}).get("price"):
        model = reserve.detail["price"].split(",")[2]
    features = [
        one.metadata["feature"]
        for one in (row, reserve)
        if one is not None and one.metadata and "feature" in one.metadata
    ]
    return (
        model,
        features[0] if features else "",
        str((row.detail or {}).get("key_id", "")),
        f"{card}@{version}" if price else "",
    )


async def figures(store: Store) -> Sums:
    """What the store has."""
    found = await store.usage_sums(UsageWanted(WORDS), (), 100_000)
    return {one.key: (one.requests, one.charged, one.refunded, dict(one.quantities)) for one in found}
