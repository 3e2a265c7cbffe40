"""For people who use `meter`: their own code tested without any server.

Installing `meter-sidecar[testing]` gives pytest two fixtures: `meter` (a `Meter` of its own for each test) and
`meter_app` (the whole sidecar as an ASGI application). Both live on fakeredis and share one account book per test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fakeredis import FakeServer
    from starlette.applications import Starlette

    from meter.config import Settings
    from meter.engine.redis import RedisGateway
    from meter.in_process import Meter


def fake_redis(server: FakeServer | None = None) -> RedisGateway:
    """A gateway to a fakeredis server; a new one when none is given. Needs the `testing` extra."""
    from fakeredis import FakeAsyncRedis, FakeServer

    from meter.engine.redis import RedisGateway

    return RedisGateway(FakeAsyncRedis(server=server or FakeServer()))


def fake_settings(**overrides: object) -> Settings:
    """Settings for tests: the test clock is on, and a slow machine is no outage."""
    from meter.config import load_settings

    return load_settings(**{"test_clock": True, "redis_timeout_ms": 10_000, "store_url": "none", **overrides})


def fake_meter(server: FakeServer | None = None, **overrides: object) -> Meter:
    """A meter on fakeredis; its first call starts it, in the event loop that runs then."""
    from meter.in_process import Meter

    return Meter(fake_settings(**overrides), fake_redis(server))


def fake_app(server: FakeServer | None = None, **overrides: object) -> Starlette:
    """The whole sidecar on fakeredis; run its lifespan, as `with TestClient(app)` does."""
    from meter.app import create_app

    return create_app(fake_settings(**overrides), fake_redis(server))


@pytest.fixture
def meter_server() -> FakeServer:
    """The fakeredis server that `meter` and `meter_app` of one test share."""
    from fakeredis import FakeServer

    return FakeServer()


@pytest.fixture
def meter(meter_server: FakeServer) -> Meter:
    """A `Meter` without any server; `await meter.advance(seconds)` moves its clock."""
    return fake_meter(meter_server)


@pytest.fixture
def meter_app(meter_server: FakeServer) -> Starlette:
    """The sidecar as an ASGI application, on the same accounts as `meter`."""
    return fake_app(meter_server)
