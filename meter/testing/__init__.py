"""For people who use `meter`: their own code tested without any server.

Installing `meter-sidecar[testing]` gives pytest the fixtures `meter` (a `Meter` of its own for each test) and
`meter_app` (the whole sidecar as an ASGI application). Both live on fakeredis and a store in memory, and share one
account book per test. There is no worker: what one would do is done before a call returns (meter/testing/in_step.py).
`meter_settings` is there to be overridden. A coroutine that asks for one of them needs no mark. `fake_meter` and
`fake_app` have neither store nor worker.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from fakeredis import FakeServer
    from starlette.applications import Starlette

    from meter.config import Settings
    from meter.engine.redis import RedisGateway
    from meter.in_process import Meter
    from meter.store.base import Store

FIXTURES = {"meter", "meter_app"}

_stores: WeakKeyDictionary[FakeServer, Store] = WeakKeyDictionary()
"""A store belongs to the history of one server: with another one it would be refused."""


def fake_redis(server: FakeServer | None = None) -> RedisGateway:
    """A gateway to a fakeredis server; a new one when none is given. Needs the `testing` extra."""
    from fakeredis import FakeAsyncRedis, FakeServer

    from meter.engine.redis import RedisGateway

    return RedisGateway(FakeAsyncRedis(server=server or FakeServer()))


def fake_settings(**overrides: object) -> Settings:
    """Settings for tests: the test clock is on, and a slow machine is no outage.

    What `METER_REDIS_URL` and `METER_STORE_URL` say is not asked: no test writes into them.
    """
    from meter.config import load_settings

    return load_settings(**{"test_clock": True, "redis_timeout_ms": 10_000, "store_url": "none", **overrides})


def fake_meter(server: FakeServer | None = None, **overrides: object) -> Meter:
    """A meter on fakeredis without store and worker; its first call starts it, in the event loop that runs then."""
    from meter.in_process import Meter

    return Meter(fake_settings(**overrides), fake_redis(server))


def fake_app(server: FakeServer | None = None, **overrides: object) -> Starlette:
    """The sidecar on fakeredis without store and worker; run its lifespan, as `with TestClient(app)` does."""
    from meter.app import create_app

    return create_app(fake_settings(**overrides), fake_redis(server))


def meter_in_step(server: FakeServer | None = None, **overrides: object) -> Meter:
    """A meter on fakeredis with a store, which does what a worker would do, in whatever event loop it is called."""
    from fakeredis import FakeServer

    from meter.testing.in_step import MeterInStep

    server, settings = server or FakeServer(), _settings_in_step(**overrides)
    return MeterInStep(settings, lambda: fake_redis(server), _store_of(server, settings))


def app_in_step(server: FakeServer | None = None, **overrides: object) -> Starlette:
    """The sidecar in the same way, with or without its lifespan."""
    from fakeredis import FakeServer

    from meter.testing.in_step import sidecar_in_step

    server, settings = server or FakeServer(), _settings_in_step(**overrides)
    return sidecar_in_step(settings, lambda: fake_redis(server), _store_of(server, settings))


def _settings_in_step(**overrides: object) -> Settings:
    """With a store in memory, and webhooks that may lead to this machine."""
    return fake_settings(**{"store_url": "memory://", "webhook_allow_private": True, **overrides})


def _store_of(server: FakeServer, settings: Settings) -> Store | None:
    """The store in memory that everybody on this server shares; None where the settings name one, or none."""
    from meter.store.connect import open_store

    if settings.store_url != "memory://":
        return None
    return _stores.setdefault(server, open_store(settings.store_url))


@pytest.fixture
def meter_server() -> FakeServer:
    """The fakeredis server that `meter` and `meter_app` of one test share."""
    from fakeredis import FakeServer

    return FakeServer()


@pytest.fixture
def meter_settings() -> dict[str, object]:
    """Settings by field name that differ from those for tests; for a fixture of your own of this name."""
    return {}


@pytest.fixture
def meter(meter_server: FakeServer, meter_settings: dict[str, object]) -> Meter:
    """A `Meter` without any server; `await meter.advance(seconds)` moves its clock."""
    return meter_in_step(meter_server, **meter_settings)


@pytest.fixture
def meter_app(meter_server: FakeServer, meter_settings: dict[str, object]) -> Starlette:
    """The sidecar as an ASGI application, on the same accounts as `meter`."""
    return app_in_step(meter_server, **meter_settings)


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine that asks for a fixture of ours. What a plugin for coroutines (anyio, pytest-asyncio) takes
    because of a mark or its mode, it takes before this is asked; without one pytest would fail the test.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or FIXTURES.isdisjoint(pyfuncitem.fixturenames):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}))
    return True
