"""A meter on fakeredis whose ledger is checked after each test, and a proxy in front of an upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeRedis, FakeServer

from meter import Meter
from meter.testing import fake_meter, meter_in_step
from tests import invariants
from tests.partition import WINDOW


@pytest.fixture
async def bank(meter_server: FakeServer) -> AsyncIterator[Meter]:
    """A meter where user-1 has 1000 credits."""
    async with fake_meter(meter_server) as meter:
        assert await meter.add("user-1", 1000)
        yield meter
    with FakeRedis(server=meter_server) as client:
        invariants.check(client, window_ms=WINDOW)


@pytest.fixture
async def shop(meter_server: FakeServer) -> AsyncIterator[Meter]:
    """A meter with a store, where user-1 has 1000 credits."""
    async with meter_in_step(meter_server) as meter:
        assert await meter.add("user-1", 1000)
        yield meter
    with FakeRedis(server=meter_server) as client:
        invariants.check(client, window_ms=WINDOW)
