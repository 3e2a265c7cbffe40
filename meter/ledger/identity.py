"""Whose ledger a store is: an id that the store and each partition in Redis hold, so that neither is taken for another.

The store keeps it beside the deployment's settings: a dump has it, so a restored store is the same one. A partition
gets it when it is made, or from the first store that has its history (lua/open.lua); a rebuild gives it the id of the
store that it is made from. An address would not do: stores and servers move.

Made once, and by the store first: a partition whose id no store has would be nobody's. A dump of before there were ids
gets the one of the partition that goes on where it ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from meter.engine.outbox import Entry
from meter.engine.outbox_pages import read_outbox
from meter.engine.redis import PartitionState, RedisGateway
from meter.errors import ForeignLedger, StoreUnavailable
from meter.keys import PartitionKeys
from meter.store.base import Store
from meter.store.rows import DeploymentRow, WatermarkRow

NAME = "ledger_id"


async def kept_ledger(store: Store) -> str:
    """The id of a store's ledger, "" where it has none yet. Raises `StoreUnavailable`."""
    kept = await store.get(DeploymentRow, NAME)
    return "" if kept is None else kept.value


async def ledger_of(store: Store, redis: RedisGateway, partitions: Sequence[PartitionKeys]) -> str:
    """The id of a store's ledger, made now where it has none. Raises `Unavailable`."""
    if kept := await kept_ledger(store):
        return kept
    found = await _continued(store, redis, partitions)
    await store.insert(DeploymentRow(name=NAME, value=found or _new_id()))  # or another process did
    if kept := await kept_ledger(store):
        return kept
    raise StoreUnavailable("the store does not keep the id of its ledger")


async def check_same_ledger(store: Store, number: int, state: PartitionState | None) -> None:
    """Raises `ForeignLedger` when a partition in Redis is not the store's, as far as both have an id."""
    ours = await kept_ledger(store)
    if state is not None and state.ledger and ours and state.ledger != ours:
        raise ForeignLedger(
            f"partition {number} in Redis belongs to ledger {state.ledger}, and the store is ledger {ours}: "
            "nothing is flushed or changed"
        )


def is_foreign(state: PartitionState, ours: str, watermark: WatermarkRow | None) -> bool:
    """What lua/open.lua says of a partition, before it is asked to make it again."""
    if state.ledger:
        return state.ledger != ours
    return watermark is None and state.flushed > 0


async def _continued(store: Store, redis: RedisGateway, partitions: Sequence[PartitionKeys]) -> str:
    """The id of a partition that goes on exactly where the store ends; "" where there is none."""
    for keys in partitions:
        state, watermark = await redis.partition_state(keys.meta), await store.watermark(keys.number)
        if state is None or not state.ledger or watermark is None or watermark.epoch != state.epoch:
            continue
        if (state.seq, state.head) == (watermark.seq, watermark.head):
            return state.ledger
        for entry in await read_outbox(redis, keys.outbox, watermark.seq + 1, 1):
            if isinstance(entry, Entry) and (entry.seq - 1, entry.prev) == (watermark.seq, watermark.head):
                return state.ledger
    return ""


def _new_id() -> str:
    """With its day, which tells a person which one it may be."""
    return f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(6)}"
