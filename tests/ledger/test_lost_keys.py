"""A key of a partition is gone: the flusher takes what is left of the outbox, tells, and a rebuild brings all back."""

from __future__ import annotations

import pytest

from meter.engine import operations
from meter.ledger.history_guard import HistoryLost
from tests.ledger.ground import Ground
from tests.ledger.story import tell
from tests.ledger.test_flusher import alarms
from tests.ledger.test_rebuild import again, figures, now_of, rebuilt


async def found_lost(live: Ground, why: str) -> None:
    """A flusher takes what the outbox has, and says why it stops."""
    flusher = live.flusher()
    with pytest.raises(HistoryLost, match=why):
        for _ in range(3):
            await flusher.step()


async def test_what_was_in_an_outbox_that_redis_lost_is_reported(live: Ground, unchecked: None) -> None:
    """U1: the outbox was evicted, and the store does not have all of it."""
    live.run(operations.grant("a", "g", 100))
    await live.drain()
    live.run(operations.deduct("a", 30))
    live.client.delete(live.partition.keys.outbox)
    assert live.partition.send("x", 1, operations.balance("a")) == "refused lost missing outbox"

    report = await rebuilt(live)

    assert report.unknown == "Redis acknowledged up to seq 2; what came after seq 1 was never in the store"
    assert live.run(operations.balance("a")).balances == (100, 0, 0)
    await live.drain()
    await live.check()


@pytest.mark.parametrize("name", ["accounts", "grants", "order", "holds", "agenda", "due", "recent:a", "profiles"])
async def test_what_redis_lost_of_a_partition_comes_back(live: Ground, name: str) -> None:
    """U1: a key was evicted. What the store does not have yet is still in the outbox."""
    told = tell(live.partition, now_of(live))
    await live.drain(live.flusher(outbox_retention_seconds=60))
    live.run(operations.deduct("u", 1))
    before = figures(live)
    live.client.delete(f"{live.partition.keys.prefix}:{name}")
    assert live.partition.send("x", 1, operations.balance("u")) == f"refused lost missing {name}"
    await found_lost(live, f"missing {name}")
    (event,) = await alarms(live.store, "system")
    assert event.message == f"partition 0: missing {name}; the partition is closed until meter rebuild"

    report = await rebuilt(live)

    assert report.lost == []
    assert figures(live) == before
    again(live, told)
    await live.drain()
    await live.check()


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_partition_without_its_meta_key_is_found_and_comes_back(live: Ground, flushed: bool) -> None:
    """U1: also when nothing was ever flushed, so that the store knows of nothing."""
    live.run(operations.grant("a", "g", 100))
    if flushed:
        await live.drain(live.flusher(outbox_retention_seconds=60))
    live.run(operations.deduct("a", 30))
    live.client.delete(live.partition.keys.meta)
    assert live.partition.send("x", 1, operations.balance("a")) == "refused missing meta"
    await found_lost(live, "Redis has no meter:{p0}:meta")

    await rebuilt(live)

    assert live.run(operations.balance("a")).balances == (70, 0, 0)
    await live.drain()
    await live.check()
