"""`meter.testing`: the tests of somebody who uses `meter` run without any server, with warnings as errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meter.testing import fake_app, fake_meter, fake_redis, fake_settings
from tests.e2e.processes import environment

USERS_TESTS = """
import asyncio
from decimal import Decimal

import pytest
from starlette.testclient import TestClient

from meter import Meter, HoldRefused


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_spending(meter):
    assert await meter.add("user-1", 100)
    async with meter.reserve("user-1", 50) as hold:
        await hold.commit("32.5")
    assert (await meter.balance("user-1")).available == Decimal("67.5")
    with pytest.raises(HoldRefused):
        async with meter.reserve("user-1", 1000):
            pass


@pytest.mark.anyio
async def test_time(meter):
    await meter.add("user-1", 100)
    async with meter.reserve("user-1", 50, ttl_seconds=3600) as hold:
        await meter.advance(3700)
        assert (await meter.balance("user-1")).available == 100
    assert hold.outcome.late


def test_without_a_plugin_for_coroutines(meter):
    async def spend():
        await meter.add("user-1", 1)
        return [bool(await meter.deduct("user-1", 1)) for _ in range(2)]

    assert asyncio.run(spend()) == [True, False]


def test_a_new_account_book_for_each_test(meter):
    assert isinstance(meter, Meter)
    assert asyncio.run(meter.balance("user-1")).available == 0


def test_the_application(meter_app):
    with TestClient(meter_app) as http:
        http.post("/credits/add", json={"user_id": "user-1", "amount": 5})
        assert http.post("/credits/deduct", json={"user_id": "user-1", "amount": 6}).status_code == 402
        http.put("/test-clock", json={"advance_seconds": 60})
        assert http.get("/readyz").status_code == 200


@pytest.mark.anyio
async def test_both_share_their_accounts(meter, meter_app):
    await meter.add("user-1", 5)
    with TestClient(meter_app) as http:
        assert http.post("/credits/deduct", json={"user_id": "user-1", "amount": 5}).json()["available"] == 0
    assert not await meter.deduct("user-1", 1)
"""


def test_the_fixtures_work_in_somebody_elses_tests(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TESTS)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 passed" in ended.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("test_mine.py", "__pycache__")] == []


def test_settings_of_the_environment_hold_but_a_slow_machine_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_DECIMAL_PLACES", "2")
    settings = fake_settings(partitions=3)
    assert (settings.decimal_places, settings.partitions, settings.test_clock) == (2, 3, True)
    assert settings.redis_timeout_ms == 10_000


async def test_each_helper_is_a_world_of_its_own_unless_told() -> None:
    async with fake_meter() as one, fake_meter() as other:
        await one.add("u", 1)
        assert not await other.deduct("u", 1)
    assert fake_app() is not fake_app()
    gateway = fake_redis()
    await gateway.ping()
    await gateway.close()
