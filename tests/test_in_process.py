"""`Meter` beyond the calls: opening, mounting, sharing, refusing what it was not made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from fakeredis import FakeServer
from fastapi import FastAPI
from redis import Redis
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from meter import Meter
from meter.contract import answers
from meter.errors import ConfigError, Unavailable
from meter.testing import fake_meter, fake_redis
from tests import invariants
from tests.api.sidecar import DEADLINE_SECONDS
from tests.partition import WINDOW
from tests.servers import embedded_server


async def test_connect_opens_a_redis_by_its_url(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
        async with Meter.connect(redis_url, store_url="none", decimal_places=2) as meter:
            added = await meter.add("u", "0.25")
            assert isinstance(added, answers.Added) and added.available == Decimal("0.25")
            assert not await meter.add("u", "0.001")
        async with Meter.connect(redis_url, store_url="none", decimal_places=2) as again:
            balance = await again.balance("u")
            assert isinstance(balance, answers.Balance) and balance.available == Decimal("0.25")
        invariants.check(client, window_ms=WINDOW)


async def test_settings_that_redis_contradicts_are_refused_at_the_start(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
    async with Meter.connect(redis_url, store_url="none"):
        pass
    with pytest.raises(ConfigError, match="METER_DECIMAL_PLACES=6"):
        async with Meter.connect(redis_url, store_url="none", decimal_places=2):
            pytest.fail("it opened")


@pytest.mark.parametrize("settings", [{"decimal_places": 10}, {"partitions": 0}, {"redis_timeout_ms": "soon"}])
def test_a_wrong_setting_is_named(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"METER_{next(iter(settings)).upper()}="):
        Meter.connect("redis://127.0.0.1:6379/0", **settings)


async def test_the_first_call_opens_it_and_many_first_calls_open_it_once() -> None:
    meter = fake_meter()
    assert await meter.add("u", 1)
    assert await meter.deduct("u", 1)
    await meter.__aexit__()


async def test_a_redis_that_is_away_is_unavailable_and_served_when_it_comes(tmp_path: Path) -> None:
    with embedded_server(tmp_path / "redis") as server:
        url = server.url
    async with Meter.connect(url, store_url="none") as meter:
        with pytest.raises(Unavailable):
            await meter.add("u", 1)
        with embedded_server(tmp_path / "redis", port=int(url.split(":")[-1].split("/")[0])):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not await is_added(meter):
                    await asyncio.sleep(0.01)


async def is_added(meter: Meter) -> bool:
    """Whether a credit could be added."""
    try:
        return bool(await meter.add("u", 1))
    except Unavailable:
        return False


async def test_the_clock_moves_and_only_where_that_is_allowed() -> None:
    async with fake_meter() as meter:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await meter.add("u", 5, expires_at=tomorrow)
        await meter.advance(2 * 86_400)
        balance = await meter.balance("u")
        assert isinstance(balance, answers.Balance) and balance.available == 0
    async with fake_meter(test_clock=False) as meter:
        with pytest.raises(ConfigError, match="METER_TEST_CLOCK"):
            await meter.advance(1)


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
def test_its_routes_mount_in_another_application_and_share_its_balances(kind: str) -> None:
    meter = fake_meter()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with meter:
            await meter.add("u", 10)
            yield

    if kind == "fastapi":
        app: Starlette = FastAPI(lifespan=lifespan)
        app.mount("/credits", meter.api)
    else:
        app = Starlette(routes=[Mount("/credits", meter.api)], lifespan=lifespan)
    with TestClient(app) as http:
        assert http.post("/credits/deduct", json={"user_id": "u", "amount": 4}).json()["available"] == 6
        assert http.get("/credits/balance/u").json()["available"] == 6
        assert http.get("/credits/balance/org%2Fteam").json()["user_id"] == "org/team"
        missing = http.get("/credits/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
        assert http.get("/credits/add").headers["allow"] == "POST"


def test_mounted_routes_open_the_meter_that_nobody_opened() -> None:
    app = Starlette(routes=[Mount("/credits", fake_meter().api)])
    with TestClient(app) as http:
        assert http.post("/credits/add", json={"user_id": "u", "amount": 4}).json()["available"] == 4


async def test_two_meters_on_one_redis_share_its_accounts() -> None:
    server = FakeServer()
    async with fake_meter(server) as one, fake_meter(server) as other:
        await one.add("u", 10)
        assert await other.deduct("u", 10)
        assert not await one.deduct("u", 1)


async def test_a_redis_that_is_given_stays_open() -> None:
    gateway = fake_redis()
    async with Meter(fake_meter()._settings, gateway) as meter:
        await meter.add("u", 1)
    await gateway.ping()
    await gateway.close()
