"""The sidecar in front of each server: fakeredis in process, the real one behind uvicorn and a socket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import load_settings
from meter.testing import fake_app
from tests.api.sidecar import Api, serving
from tests.partition import Partition
from tests.servers import Server


@pytest.fixture(scope="session")
def sidecar_url(redis_url: str) -> Iterator[str]:
    """One sidecar on the real server of this session, for every test that empties that server and opens it anew."""
    with serving(
        create_app(load_settings(redis_url=redis_url, store_url="none", test_clock=True, redis_timeout_ms=10_000))
    ) as url:
        yield url


@pytest.fixture
def api(server: Server, partition: Partition, request: pytest.FixtureRequest) -> Iterator[Api]:
    """The HTTP API on an empty server whose clock stands at T0."""
    if server.url is None:
        with TestClient(fake_app(server.fake)) as http:
            yield Api(http, server.client)
    else:
        with httpx2.Client(base_url=request.getfixturevalue("sidecar_url")) as http:
            yield Api(http, server.client)
