"""The bounded backlog: while the store is away spending goes on up to the limit, ends of holds go on beyond it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from meter.engine import operations
from meter.errors import StoreUnavailable
from tests.ledger.ground import Ground
from tests.ledger.test_flusher import Failing, note_at_once

LIMIT = 40


@pytest.fixture
def bounded(ground: Ground) -> Ground:
    """A partition whose outbox may have forty transactions that the store does not have."""
    ground.partition.outbox_max = LIMIT
    ground.settings = ground.settings.model_copy(update={"outbox_max": LIMIT})
    for batcher in ground.engine._batchers:
        object.__setattr__(batcher._limits, "outbox_max", LIMIT)
    return ground


async def test_a_full_backlog_refuses_spending_and_nothing_else_until_a_tenth_is_gone(bounded: Ground) -> None:
    ground, partition = bounded, bounded.partition
    ground.run(operations.grant("u", "g", 1_000))
    for n in range(4):
        ground.run(operations.reserve("u", f"r{n}", 10, 60_000, chosen=True))
    partition.batch(*(operations.deduct("u", 1) for _ in range(LIMIT - 5)))
    assert partition.run(operations.deduct("u", 1)).status == "outbox_full"
    assert partition.run(operations.reserve("u", "x", 1, 60_000, chosen=True)).status == "outbox_full"
    ground.run(operations.commit("r0"))
    ground.run(operations.release("r1"))
    ground.run(operations.grant("u", "more", 1))
    assert partition.run(operations.balance("u")).status == "ok"
    assert partition.run(operations.deduct("u", 0)).status == "ok"

    flusher = ground.flusher(flush_max=5)
    assert await flusher.step() == 5
    assert await ground.behind() == LIMIT + 3 - 5  # below the limit, not yet a tenth below
    assert partition.run(operations.deduct("u", 1)).status == "outbox_full"
    note_at_once(flusher)
    assert await flusher.step() == 5
    assert await ground.behind() == LIMIT - 7
    assert partition.run(operations.deduct("u", 1)).status == "ok"
    await ground.drain()
    await ground.check()


async def test_it_fills_again_only_at_the_limit(bounded: Ground) -> None:
    ground, partition = bounded, bounded.partition
    ground.run(operations.grant("u", "g", 1_000))
    flusher = ground.flusher()
    for _ in range(3):
        while partition.run(operations.deduct("u", 1)).status == "ok":
            pass
        assert await ground.behind() == LIMIT
        note_at_once(flusher)
        await flusher.step()
        assert await ground.behind() == 0
        assert partition.run(operations.deduct("u", 1)).status == "ok"


async def test_a_store_that_is_away_is_warned_of_twice(bounded: Ground, caplog: pytest.LogCaptureFixture) -> None:
    ground, partition = bounded, bounded.partition
    ground.run(operations.grant("u", "g", 1_000))
    store: Any = Failing(ground.store, "apply", times=1_000)
    flusher = ground.flusher(store)

    async def warnings() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(StoreUnavailable):
            await flusher.step()
        return [record.message for record in caplog.records]

    partition.batch(*(operations.deduct("u", 1) for _ in range(10)))
    assert await warnings() == []
    partition.batch(*(operations.deduct("u", 1) for _ in range(10)))
    assert await warnings() == [
        "the backlog grows; at that limit spending is refused partition=0 transactions=21 outbox_max=40"
    ]
    assert await warnings() == []
    while partition.run(operations.deduct("u", 1)).status == "ok":
        pass
    assert await warnings() == [
        "the backlog grows; reservations and deductions are refused partition=0 transactions=40 outbox_max=40"
    ]
    store._times = 0
    with caplog.at_level(logging.WARNING):
        await flusher.step()
    assert caplog.records[-1].message == "the backlog is down partition=0 transactions=0 outbox_max=40"
    await ground.drain(flusher)
    await ground.check()


async def test_how_far_the_store_is_is_told_on_change_and_again_when_redis_forgot_it(ground: Ground) -> None:
    ground.run(operations.grant("u", "g", 1_000))
    flusher = ground.flusher(outbox_retention_seconds=3_600)
    ran: list[str] = []
    real = ground.engine.run_many

    async def run_many(number: int, many: Any, *rest: Any) -> Any:
        ran.extend(one[0] for one in many)
        return await real(number, many, *rest)

    ground.engine.run_many = run_many  # type: ignore[method-assign,assignment]
    meta = ground.partition.keys.meta

    async def steps() -> list[str]:
        ran.clear()
        for _ in range(3):
            note_at_once(flusher)
            await flusher.step()
        return list(ran)

    assert await steps() == ["flushed"]
    assert await steps() == []  # whoever uses nothing grows no file
    ground.client.hset(meta, "flushed", 0)  # Redis came back without its last second
    assert await steps() == ["flushed"]
    assert int(ground.client.hget(meta, "flushed")) == 1


async def test_what_an_earlier_worker_flushed_is_trimmed_by_the_next_one(ground: Ground) -> None:
    for n in range(300):
        ground.run(operations.grant(f"u{n % 7}", f"g{n}", 1))
    first = ground.flusher(outbox_retention_seconds=3_600)
    await first.step()
    assert ground.client.xlen(ground.partition.keys.outbox) == 300
    note_at_once(later := ground.flusher())
    await later.step()
    assert ground.client.xlen(ground.partition.keys.outbox) < 300
    await ground.check()
