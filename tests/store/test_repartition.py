"""`meter repartition` on every store: what was there is there, and goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from meter.engine.redis import RedisGateway
from tests.moved import Deployment, goes_on, lived
from tests.servers import Server, fake_server
from tests.store.conftest import Place

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Server:
    return fake_server()


@pytest.fixture
async def deployment(server: Server, place: Place) -> AsyncIterator[Deployment]:
    gateway: RedisGateway = server.gateway()
    yield Deployment(server, place.store, gateway)
    await gateway.close()


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (3, 5)])
async def test_everything_goes_on_in_another_number_of_partitions(
    deployment: Deployment, before: int, after: int
) -> None:
    async with deployment.served(before) as meter, deployment.opened() as store:
        story = await lived(meter, store, before)
    report = await deployment.move(after)
    assert (report.partitions_before, report.partitions, report.drifts, report.lost) == (before, after, 0, [])
    async with deployment.served(after) as meter, deployment.opened() as store:
        await goes_on(meter, story)
        second = await lived(meter, store, after, tag="two")
    await deployment.move(before)
    async with deployment.served(before) as meter:
        await goes_on(meter, second)
