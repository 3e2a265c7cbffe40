"""The context of a job, on each server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from meter.config import Settings
from meter.runtime import Runtime
from meter.worker.context import Context, close_context, open_context
from tests.partition import T0, Partition
from tests.servers import Server

PARTITIONS = 3


@pytest.fixture
def settings() -> Settings:
    """Three partitions, no store, a time limit that a busy machine keeps; nobody watches the test clock."""
    return Settings(store_url="none", redis_timeout_ms=10_000, partitions=PARTITIONS)


@pytest.fixture
def partitions(server: Server) -> list[Partition]:
    """Each partition, opened, its clock frozen at T0."""
    found = [Partition(server.client, number) for number in range(PARTITIONS)]
    for partition in found:
        assert partition.open(partitions=PARTITIONS) == "opened"
        partition.freeze(T0)
        server.client.hset(partition.keys.meta, "recent_since", T0)
    return found


@pytest.fixture
async def ctx(server: Server, settings: Settings, partitions: list[Partition]) -> AsyncIterator[Context]:
    """What a job gets."""
    gateway = server.gateway()
    context: Context = {}
    await open_context(context, Runtime(settings, gateway))
    yield context
    await close_context(context)
    await gateway.close()
