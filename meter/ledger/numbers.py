"""How many partitions a deployment has, has had, and is to have, as its store keeps it."""

from __future__ import annotations

from typing import NamedTuple

from meter.store.base import Store
from meter.store.rows import DeploymentRow
from meter.store.settings import MOVING, PARTITIONS

BEFORE = "partitions_before"


class Numbers(NamedTuple):
    """How many partitions there are, and, while `meter repartition` is under way, how many there are to be."""

    now: int
    then: int | None = None


async def numbers_of(store: Store) -> Numbers | None:
    """None where the store was never served. Raises `StoreUnavailable`."""
    kept = await store.get(DeploymentRow, PARTITIONS)
    if kept is None:
        return None
    now, _, then = kept.value.partition(MOVING)
    return Numbers(int(now), int(then) if then else None)


async def kept_numbers(store: Store) -> str:
    """How many partitions there were before, one time after the other; "" where that was never changed."""
    kept = await store.get(DeploymentRow, BEFORE)
    return "" if kept is None else kept.value
