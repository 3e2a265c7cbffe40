"""METER_FAIL_MODE=open: who is known is served through an outage, up to what it had, and charged exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakeredis import FakeServer
from starlette.testclient import TestClient

from meter.amount import AmountScale
from meter.engine.engine import Engine
from meter.gateway.counts import GatewayCounts
from meter.gateway.fail_open import FailOpen
from meter.gateway.unmetered import Served, UnmeteredFile
from meter.testing import fake_app, fake_redis, fake_settings
from tests.gateway.caller import Caller, calling, refusal


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "unmetered"


@pytest.fixture
def caller(journal: Path) -> Iterator[Caller]:
    """`u` has 1000 credits, and the sidecar knows."""
    with calling(fail_mode="open", fail_journal=str(journal), gateway_timeout_ms=150) as found:
        found.add("u", 1000)
        assert found.authorize("?mode=check", x_user_id="u").headers["x-credits-metered"] == "1"
        yield found


def is_connected(caller: Caller, *, connected: bool) -> None:
    caller.redis.connection_pool.connection_kwargs["server"].connected = connected


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["reserve", "deduct"])
def test_the_known_are_served_up_to_what_they_had_and_charged_when_redis_is_back(caller: Caller, mode: str) -> None:
    is_connected(caller, connected=False)
    served = [caller.authorize(f"?mode={mode}", x_user_id="u", x_estimated_tokens="300") for _ in range(4)]
    assert [one.status_code for one in served] == [200, 200, 200, 503]
    assert [one.headers["x-credits-remaining"] for one in served[:3]] == ["700", "400", "100"]
    assert {one.headers["x-credits-metered"] for one in served[:3]} == {"0"}
    assert {one.headers["x-reservation-id"] for one in served} == {""}
    refusal(caller.authorize(x_user_id="nobody", x_estimated_tokens="1"), 503, "metering-unavailable")
    is_connected(caller, connected=True)
    eventually(lambda: caller.balance() == (100, 0))
    charges = [entry for entry in caller.entries() if entry.kind == "deduct"]
    assert [entry.amount // 10**6 for entry in charges] == [300, 300, 300]
    assert {entry.detail["description"] for entry in charges} == {"Served while Redis was away"}
    counted = caller.http.get("/metrics").text
    assert 'meter_gateway_unmetered_total{outcome="charged"} 3.0' in counted


def test_a_check_is_allowed_and_charges_nothing(caller: Caller) -> None:
    is_connected(caller, connected=False)
    assert caller.authorize("?mode=check&amount=1000", x_user_id="u").status_code == 200
    assert caller.authorize("?mode=check&amount=1001", x_user_id="u").status_code == 503
    is_connected(caller, connected=True)
    assert caller.balance() == (1000, 0)


def test_who_may_not_spend_is_not_served(caller: Caller) -> None:
    assert caller.http.patch("/credits/users/u", json={"suspended": True}).status_code == 200
    assert caller.authorize(x_user_id="u").status_code == 403
    is_connected(caller, connected=False)
    refusal(caller.authorize(x_user_id="u"), 503, "metering-unavailable")


def test_what_was_refused_for_want_of_credits_says_what_there_is(caller: Caller) -> None:
    assert caller.http.post("/credits/deduct", json={"user_id": "u", "amount": 995}).status_code == 200
    assert caller.authorize(x_user_id="u", x_estimated_tokens="6").status_code == 402
    is_connected(caller, connected=False)
    assert caller.authorize(x_user_id="u", x_estimated_tokens="6").status_code == 503
    assert caller.authorize(x_user_id="u", x_estimated_tokens="5").status_code == 200


def test_a_user_is_served_no_more_than_the_owner_says(journal: Path) -> None:
    with calling(fail_mode="open", fail_journal=str(journal), fail_open_credits=10, gateway_timeout_ms=150) as caller:
        caller.add("u", 1000)
        caller.held(amount=1)
        is_connected(caller, connected=False)
        statuses = [caller.authorize(x_user_id="u", x_estimated_tokens="6").status_code for _ in range(2)]
        assert statuses == [200, 503]


def test_an_outage_is_served_through_for_so_long_only(journal: Path) -> None:
    seconds = 0.0
    settings = fake_settings(fail_mode="open", fail_journal=str(journal), fail_open_seconds=60)
    engine = Engine(fake_redis(), settings)
    fail_open = FailOpen(settings, AmountScale(6), engine, GatewayCounts(), lambda: seconds)
    fail_open.learn("u", 10)
    seconds = 1000.0
    assert fail_open.left("u", 3) == 7
    seconds += 61
    assert fail_open.left("u", 3) is None
    fail_open.learn("v", 1)  # Redis answered: the next outage is another one
    assert fail_open.left("u", 3) == 7


def test_closed_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with calling(gateway_timeout_ms=150) as caller:
        caller.add("u", 1000)
        assert "x-credits-metered" not in caller.authorize(x_user_id="u").headers
        is_connected(caller, connected=False)
        refusal(caller.authorize(x_user_id="u"), 503, "metering-unavailable")
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_left_behind_is_charged_once_by_the_next(journal: Path) -> None:
    left = UnmeteredFile.new(journal)
    for n, amount in enumerate((10, 20, 40)):
        left.add(Served(f"unmetered dead-{n}", "u", amount * 10**6, f"request-{n}", 1_790_000_000_000))
    left.take_back(Served("unmetered dead-2", "u", 40, "", 0))
    (path,) = journal.glob("*.ndjson")
    left.close()
    told = path.read_bytes()
    server = FakeServer()
    settings = {"fail_mode": "open", "fail_journal": str(journal)}
    with TestClient(fake_app(server)) as http:
        Caller(http, server).add("u", 100)
    for _ in range(2):  # the second time its progress was lost, so that it is charged again under the same keys
        with TestClient(fake_app(server, **settings)) as http:
            caller = Caller(http, server)
            eventually(lambda: not path.exists())
            assert caller.balance() == (70, 0)
            references = [entry.detail["reference"] for entry in caller.entries() if entry.kind == "deduct"]
            assert references == ["request-0", "request-1"]
        path.write_bytes(told + b'["unmetered dead-9","u",5')  # cut off: it was never served


def test_the_file_of_a_process_that_lives_is_left_alone(journal: Path) -> None:
    mine = UnmeteredFile.new(journal)
    mine.add(Served("unmetered live-1", "u", 1, "", 0))
    assert list(UnmeteredFile.left_behind(journal)) == []
    mine.close()
    assert len(list(UnmeteredFile.left_behind(journal))) == 1


def test_lines_come_in_order_a_few_at_a_time_and_once(journal: Path) -> None:
    file = UnmeteredFile.new(journal)
    keys = [f"unmetered k-{n}" for n in range(2000)]
    for key in keys:
        served = Served(key, "u", 1, "x" * 100, 0)
        file.add(served)
        if key.endswith("7"):
            file.take_back(served)
    found: list[str] = []
    while not file.is_done:
        lines = file.next(50)
        assert len(lines) <= 50
        found += [line.key for line in lines]
        file.charged()
    assert found == [key for key in keys if not key.endswith("7")]
    file.close()
    assert list(journal.iterdir()) == []


def test_what_was_charged_since_is_not_served_again(caller: Caller, journal: Path) -> None:
    is_connected(caller, connected=False)
    assert caller.authorize(x_user_id="u", x_estimated_tokens="900").status_code == 200
    is_connected(caller, connected=True)
    path = next(journal.glob("*.ndjson"))
    eventually(lambda: path.stat().st_size == 0)
    is_connected(caller, connected=False)
    assert caller.authorize(x_user_id="u", x_estimated_tokens="101").status_code == 503
    assert caller.authorize(x_user_id="u", x_estimated_tokens="100").status_code == 200


def test_what_was_served_is_charged_whatever_budgets_and_limits_say(journal: Path) -> None:
    """They were nobody's to ask then: refused now, it would have been free."""
    left = UnmeteredFile.new(journal)
    for n in range(3):
        left.add(Served(f"unmetered dead-{n}", "u", 20 * 10**6, "", 0))
    left.close()
    server = FakeServer()
    with TestClient(fake_app(server)) as http:
        Caller(http, server).add("u", 100)
        rules = {
            "budgets": {"daily": {"limit": 30, "window": "day"}},
            "rate_limits": {"rpm": {"kind": "requests", "limit": 1}},
        }
        assert http.patch("/credits/users/u", json=rules).status_code == 200
    with TestClient(fake_app(server, fail_mode="open", fail_journal=str(journal))) as http:
        caller = Caller(http, server)
        eventually(lambda: caller.balance() == (40, 0))
        user = http.get("/credits/users/u").json()
        assert user["budgets"]["daily"]["used"] == 60


def test_what_is_not_paid_in_full_is_told_and_a_line_of_nobodys_holds_up_no_other(journal: Path) -> None:
    left = UnmeteredFile.new(journal)
    left.add(Served("unmetered dead-1", "u", 90 * 10**6, "", 0))
    left.close()
    (path,) = journal.glob("*.ndjson")
    path.write_bytes(path.read_bytes() + b'rubbish\n["unmetered dead-2","u",20000000,"",0]\n')
    server = FakeServer()
    with TestClient(fake_app(server)) as http:
        Caller(http, server).add("u", 100)
    with TestClient(fake_app(server, fail_mode="open", fail_journal=str(journal))) as http:
        caller = Caller(http, server)
        eventually(lambda: not path.exists())
        assert caller.balance() == (0, 0)
        counted = caller.http.get("/metrics").text
        assert 'meter_gateway_unmetered_total{outcome="charged"} 1.0' in counted
        assert 'meter_gateway_unmetered_total{outcome="unpaid"} 1.0' in counted
