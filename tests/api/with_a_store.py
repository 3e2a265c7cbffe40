"""A sidecar with a store at noon of 1 January 2030: plain ASGI on fakeredis, and uvicorn with the hot lane on the real
server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import load_settings
from meter.testing import app_in_step
from tests.api.sidecar import Api, serving
from tests.servers import fake_server, real_server

WAYS = ("asgi", "lane")
NOON = "2030-01-01T12:00:00Z"
"""A Tuesday."""

A = TypeVar("A", bound=Api)


@contextmanager
def at_noon(api: type[A], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[A]:
    """The sidecar of the way that a fixture with `params=WAYS` was asked for, its SQLite in the folder."""
    if request.param == "asgi":
        server = fake_server()
        with TestClient(app_in_step(server.fake, store_url="memory://", partitions=1)) as http:
            yield _stopped(api(http, server.client))
        return
    url: str = request.getfixturevalue("redis_url")
    real = real_server(url)
    settings = load_settings(
        redis_url=url, store_url=f"sqlite:///{tmp_path}/m.db", test_clock=True, redis_timeout_ms=10_000
    )
    with serving(create_app(settings)) as base, httpx2.Client(base_url=base) as http:
        yield _stopped(api(http, real.client))


def _stopped(api: A) -> A:
    assert api.call("PUT", "/test-clock", {"now": NOON}).status == 200
    return api
