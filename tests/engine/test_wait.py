"""Waiting for the outbox: one blocked command, whatever becomes of the server."""

from __future__ import annotations

import asyncio

import pytest

from meter.engine.operations import deduct, grant
from meter.engine.redis import RedisGateway
from tests.partition import Partition

A_MINUTE = 60.0


async def test_it_ends_when_something_was_booked(partition: Partition, gateway: RedisGateway) -> None:
    partition.run(grant("u", "g", 100))
    waiting = asyncio.create_task(gateway.wait_for_outbox(partition.keys.outbox, 1, A_MINUTE))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    partition.run(deduct("u", 1))

    async with asyncio.timeout(A_MINUTE / 2):
        await waiting
    assert [entry.seq for entry in partition.entries()] == [1, 2]


async def test_it_ends_at_once_where_something_is_there(partition: Partition, gateway: RedisGateway) -> None:
    partition.run(grant("u", "g", 100))

    waiting = asyncio.create_task(gateway.wait_for_outbox(partition.keys.outbox, 0, A_MINUTE))

    done, _ = await asyncio.wait((waiting,), timeout=A_MINUTE / 2)
    assert done == {waiting}


async def test_it_ends_by_itself(partition: Partition, gateway: RedisGateway) -> None:
    waiting = asyncio.create_task(gateway.wait_for_outbox(partition.keys.outbox, 0, 0.01))

    done, _ = await asyncio.wait((waiting,), timeout=A_MINUTE)
    assert done == {waiting} and not waiting.exception()


async def test_one_that_is_cut_off_leaves_the_next_its_own_answer(partition: Partition, gateway: RedisGateway) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await gateway.wait_for_outbox(partition.keys.outbox, 0, A_MINUTE)
    partition.run(grant("u", "g", 100))

    waiting = asyncio.create_task(gateway.wait_for_outbox(partition.keys.outbox, 1, A_MINUTE))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait((waiting,))
