"""`meter.testing`: the tests of somebody who uses `meter` run without any server, with warnings as errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from meter.contract.jobs import Attempted
from meter.testing import app_in_step, fake_app, fake_meter, fake_redis, fake_settings, meter_in_step
from tests.e2e.processes import environment

ROOT = Path(__file__).parent.parent
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)

USERS_TESTS = """
import asyncio
from decimal import Decimal

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from meter import Meter, HoldRefused

MONTH = 31 * 86_400


@pytest.fixture
def anyio_backend():
    return "asyncio"


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


async def plans_of(meter):
    small = await meter.create_plan("Small", credit_limit=100, price=1, billing_period="monthly", validity_days=30)
    big = await meter.create_plan("Big", credit_limit=500, price=5, billing_period="monthly", validity_days=30)
    return small.id, big.id


class TestPlans:
    async def test_assign_change_and_end(self, meter):
        small, big = await plans_of(meter)
        assert await meter.subscribe("user-1", small)
        assert (await meter.balance("user-1")).available == 100
        assert await meter.upgrade("user-1", big, when="now", proration="none")
        assert (await meter.balance("user-1")).available == 500
        assert await meter.unsubscribe("user-1", when="now", unspent="void")
        assert (await meter.balance("user-1")).available == 0

    async def test_a_moved_clock_allocates(self, meter):
        small, _ = await plans_of(meter)
        await meter.subscribe("user-1", small)
        await meter.deduct("user-1", 40)
        await meter.advance(MONTH)
        assert (await meter.balance("user-1")).available == 100
        kinds = [row.kind for row in (await meter.history("user-1")).items]
        assert kinds == ["grant", "grant_expired", "deduct", "grant"]

    async def test_the_application_without_its_lifespan_has_the_same_plans(self, meter, meter_app):
        small, _ = await plans_of(meter)
        transport = httpx2.ASGITransport(app=meter_app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            assert (await http.put("/credits/subscriptions/user-1", json={"plan_id": small})).status_code == 200
            assert (await http.put("/test-clock", json={"advance_seconds": MONTH})).status_code == 200
            assert (await http.get("/credits/balance/user-1")).json()["available"] == 100
        (subscription,) = (await meter.subscriptions("user-1")).items
        assert subscription.plan_id == small


class TestReminders:
    @pytest.fixture
    def meter_settings(self):
        return {"expiring_days": "3", "decimal_places": 2}

    async def test_what_ends_soon_is_told_when_the_clock_gets_there(self, meter):
        assert not await meter.add("user-1", "0.001")
        await meter.create_webhook("http://127.0.0.1:9/hook")
        small, _ = await plans_of(meter)
        await meter.subscribe("user-1", small)
        await meter.advance(28 * 86_400)
        assert (await meter.deliver()).attempted == 1
        assert [one.kind for one in (await meter.notifications()).items] == ["expiring_credits"]


async def test_both_share_their_accounts(meter, meter_app):
    await meter.add("user-1", 5)
    with TestClient(meter_app) as http:
        assert http.post("/credits/deduct", json={"user_id": "user-1", "amount": 5}).json()["available"] == 0
    assert not await meter.deduct("user-1", 1)


def test_each_call_may_have_an_event_loop_of_its_own(meter, meter_app):
    assert asyncio.run(meter.add("user-1", 5))
    http = TestClient(meter_app)
    assert http.post("/credits/deduct", json={"user_id": "user-1", "amount": 2}).json()["available"] == 3
    assert http.post("/credits/deduct", json={"user_id": "user-1", "amount": 2}).json()["available"] == 1
    assert asyncio.run(meter.balance("user-1")).available == 1
    mounted = TestClient(Starlette(routes=[Mount("/credits", meter.api)]))
    for left in (0, 0):
        mounted.post("/credits/deduct", json={"user_id": "user-1", "amount": 1})
        assert mounted.get("/credits/balance/user-1").json()["available"] == left


async def test_a_mounted_api_is_in_step_too(meter):
    transport = httpx2.ASGITransport(app=meter.api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.post("/add", json={"user_id": "user-1", "amount": 5})).status_code == 200
    assert (await meter.grants("user-1", state="all")).items[0].remaining == 5
"""


def test_the_fixtures_work_in_somebody_elses_tests(tmp_path: Path) -> None:
    """U8: plans, alerts and histories too, and coroutines without a mark."""
    (tmp_path / "test_mine.py").write_text(USERS_TESTS)
    passed = _passed_alone(tmp_path)
    assert passed == USERS_TESTS.count("def test_")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("test_mine.py", "__pycache__")] == []


def test_the_page_about_testing_says_what_works(tmp_path: Path) -> None:
    """U8: its example is a file of tests that passes as it is, and so is README's."""
    (example,) = _PYTHON.findall((ROOT / "docs" / "testing.md").read_text())
    of_readme = [block for block in _PYTHON.findall((ROOT / "README.md").read_text()) if "def test_" in block]
    (tmp_path / "test_example.py").write_text("\n".join([example, *of_readme]))
    assert _passed_alone(tmp_path) == 4


def _passed_alone(folder: Path) -> int:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=folder,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = re.search(r"^(\d+) passed in", ended.stdout, re.MULTILINE)
    assert summary, ended.stdout
    return int(summary[1])


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
    assert app_in_step() is not app_in_step()
    gateway = fake_redis()
    await gateway.ping()
    await gateway.close()


async def test_without_a_store_it_still_decides() -> None:
    async with meter_in_step(store_url="none") as meter:
        assert await meter.add("u", 1)
        await meter.advance(60)
        assert await meter.deduct("u", 1)


async def test_a_meter_that_was_closed_after_a_delivery_delivers_again() -> None:
    """Connections end with the call that opened them: no test is left with one of a loop that has ended."""
    async with meter_in_step() as meter:
        await meter.create_webhook("http://127.0.0.1:9/hook")
        for _ in range(2):
            await meter.configure("u", low_credit_thresholds=[5])
            await meter.add("u", 10)
            await meter.deduct("u", 10)
            attempted = await meter.deliver()
            assert isinstance(attempted, Attempted)
            assert attempted.attempted > 0
