"""A sidecar for the story."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakeredis import FakeRedis, FakeServer
from starlette.testclient import TestClient

from meter.keys import PartitionKeys
from tests.openapi.story import NOW_MS, sidecar


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A sidecar that knows nobody, its clock frozen at the time of the examples."""
    server = FakeServer()
    with sidecar(server, store_url="memory://") as found:
        FakeRedis(server=server).hset(PartitionKeys(0).meta, "clock_ms", NOW_MS)
        yield found
