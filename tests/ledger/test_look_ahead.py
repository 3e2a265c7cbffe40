"""The step that is folded while the one before it is written: it saves time, and decides nothing."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from meter.engine.operations import commit, grant, release, reserve
from meter.errors import RedisUnavailable, StoreUnavailable
from meter.ledger import flusher as flusher_module
from meter.store.rows import ReservationRow
from tests.ledger.ground import Ground, open_at, same_on_both_sides, until
from tests.ledger.story import tell
from tests.partition import HOUR, T0


class Reads:
    """A gateway that counts the reads of the outbox, and fails those that it is told to."""

    def __init__(self, real: Any, *failing: int) -> None:
        self._real = real
        self._failing = failing
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def outbox_entries(self, *asked: Any) -> Any:
        self.count += 1
        if self.count in self._failing:
            raise RedisUnavailable("redis", "gone")
        return await self._real.outbox_entries(*asked)


class SlowWrites:
    """A store whose writes wait for leave."""

    def __init__(self, real: Any, *, then_fail: bool = False) -> None:
        self._real = real
        self._then_fail = then_fail
        self.writing = asyncio.Event()
        self.leave = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def apply(self, flush: Any) -> Any:
        self.writing.set()
        await self.leave.wait()
        if self._then_fail:
            raise StoreUnavailable("gone")
        return await self._real.apply(flush)


async def test_the_next_step_is_read_while_one_is_written(ground: Ground) -> None:
    tell(ground.partition, T0)
    booked = len(ground.partition.entries())
    store, reads = SlowWrites(ground.store), Reads(ground.gateway)
    flusher = ground.flusher(store, reads, flush_max=4)  # type: ignore[arg-type]
    step = asyncio.create_task(flusher.step())
    await store.writing.wait()
    await until(lambda: reads.count == 2, "the next step was not read")

    store.leave.set()
    assert await step == 4
    assert await flusher.step() == 4
    assert reads.count == 3  # the second step took what was read, and looked ahead itself
    assert await ground.drain(flusher) == booked - 8
    await ground.check()


async def test_what_was_folded_ahead_of_a_failed_write_is_forgotten(ground: Ground) -> None:
    tell(ground.partition, T0)
    store, reads = SlowWrites(ground.store, then_fail=True), Reads(ground.gateway)
    flusher = ground.flusher(store, reads, flush_max=4)  # type: ignore[arg-type]
    step = asyncio.create_task(flusher.step())
    await until(lambda: reads.count == 2, "the next step was not read")
    store.leave.set()
    with pytest.raises(StoreUnavailable):
        await step
    assert await ground.transactions() == []

    await ground.drain(ground.flusher())
    assert await ground.drain(flusher) == 0
    await ground.check()


async def test_a_failed_look_ahead_costs_nothing_but_time(ground: Ground) -> None:
    tell(ground.partition, T0)
    reads = Reads(ground.gateway, 2, 4)
    flusher = ground.flusher(gateway=reads, flush_max=4)  # type: ignore[arg-type]
    total = len(ground.partition.entries())
    assert [await flusher.step(), await flusher.step()] == [4, 4]
    assert await ground.drain(flusher) == total - 8
    await ground.check()


async def test_a_cut_off_step_leaves_no_look_ahead_running(ground: Ground) -> None:
    tell(ground.partition, T0)
    store = SlowWrites(ground.store)
    flusher = ground.flusher(store, flush_max=4)
    before = asyncio.all_tasks()
    step = asyncio.create_task(flusher.step())
    await store.writing.wait()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert asyncio.all_tasks() <= before  # of those before, some that start the deployment may have ended
    assert await ground.transactions() == []


@pytest.mark.parametrize("known_max", [0, 2])
async def test_rows_that_are_too_many_to_keep_are_read_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, known_max: int
) -> None:
    monkeypatch.setattr(flusher_module, "KNOWN_MAX", known_max)
    tell(ground.partition, T0)
    await ground.drain(ground.flusher(flush_max=3))
    await ground.check()


@pytest.mark.parametrize("flush_max", [3, 1_000])
async def test_no_reservation_that_has_ended_is_kept_in_memory(ground: Ground, tmp_path: Path, flush_max: int) -> None:
    """They were what the memory of a worker grew by."""
    store = await open_at(f"sqlite:///{tmp_path}/beside.db")  # that of the ground may be one that keeps rows in memory
    flusher = ground.flusher(store, flush_max=flush_max)
    ground.run(grant("u", "g", 100))
    for name in range(10):
        ground.run(reserve("u", f"r{name}", 5, HOUR, chosen=True))
    for name in range(8):
        ground.run(commit(f"r{name}", 3) if name % 2 else release(f"r{name}"))
    while await flusher.step():
        pass
    gc.collect()
    kept = {row.reservation_id for row in gc.get_objects() if isinstance(row, ReservationRow)}
    assert kept == {"r8", "r9"}
    await flusher.step()  # it lives until here, with what it keeps
    ground.run(commit("r8", 2))
    while await flusher.step():
        pass
    assert (await store.reservations(["r8"]))["r8"].state == "committed"
    await same_on_both_sides(ground.client, store)
    await store.close()
