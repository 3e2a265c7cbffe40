"""The sidecar in front of each server: fakeredis in process, the real one behind uvicorn and a socket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from unittest.mock import patch

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import application_of, parts_of
from meter.config import load_settings
from meter.runtime import Runtime
from meter.testing import fake_app
from tests.api.sidecar import Api, serving
from tests.partition import Partition
from tests.servers import Server

EPOCHS = itertools.count(2)


@pytest.fixture(scope="session")
def sidecar_url(redis_url: str) -> Iterator[str]:
    """One sidecar on the real server of this session, for every test that empties that server and opens it anew. It
    does not look by itself: it would find, rightly, that the history which it was told of is gone.
    """
    settings = load_settings(redis_url=redis_url, store_url="none", test_clock=True, redis_timeout_ms=10_000)
    parts = parts_of(Runtime(settings, role="sidecar"))
    with patch.object(parts.runtime.watch, "start"), serving(application_of(parts)) as url:
        yield url


@pytest.fixture
def api(server: Server, partition: Partition, request: pytest.FixtureRequest) -> Iterator[Api]:
    """The HTTP API on an empty server whose clock stands at T0. What the one sidecar was told of the test before counts
    no more, as after a rebuild: its epoch is a later one.
    """
    if server.url is None:
        with TestClient(fake_app(server.fake)) as http:
            yield Api(http, server.client)
    else:
        server.client.hset(partition.keys.meta, "epoch", next(EPOCHS))
        with httpx2.Client(base_url=request.getfixturevalue("sidecar_url")) as http:
            yield Api(http, server.client)
