"""Redis away, stopped, restarted or emptied: undecided calls are 503 in time, and service returns by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from meter.app import create_app
from meter.config import load_settings
from meter.dev.redis_server import EmbeddedServer
from tests.api.sidecar import Api, problem_members, serving, wait_for
from tests.servers import embedded_server

BUDGET_SECONDS = 5.0
"""A generous reading of half a second, for a busy machine."""

CALLS: tuple[tuple[str, str, dict[str, object] | None], ...] = (
    ("POST", "/add", {"user_id": "u", "amount": 1}),
    ("POST", "/deduct", {"user_id": "u", "amount": 1}),
    ("POST", "/reservations", {"user_id": "u", "amount": 1}),
    ("POST", "/reservations/r/commit", None),
    ("POST", "/reservations/r/release", None),
    ("POST", "/reservations/r/extend", {"add_amount": 1}),
    ("POST", "/refund", {"user_id": "u", "transaction_id": "0-1-x-1"}),
    ("POST", "/batch", {"operations": [{"op": "deduct", "user_id": "u", "amount": 1}]}),
    ("POST", "/batch", {"operations": [{"op": "deduct", "user_id": "u", "amount": 1}] * 2, "atomic": True}),
    ("POST", "/grants/u/g/void", None),
    ("PATCH", "/users/u", {"suspended": True}),
    ("GET", "/balance/u", None),
    ("GET", "/grants/u", None),
    ("GET", "/history/u", None),
    ("GET", "/expiring/u", None),
    ("GET", "/explain/u", None),
    ("GET", "/users/u", None),
    ("GET", "/reservations/r", None),
    ("GET", "/reservations?user_id=u", None),
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, with its append-only file."""
    server = embedded_server(tmp_path / "redis", persist=True)
    server.start()
    yield server
    server.stop()


@contextmanager
def sidecar(url: str) -> Iterator[Api]:
    """A sidecar with the time limits of a real deployment."""
    app = create_app(load_settings(redis_url=url, store_url="none"))
    with serving(app) as address, httpx2.Client(base_url=address, timeout=30) as http, Redis.from_url(url) as client:
        yield Api(http, client)


def restart(server: EmbeddedServer, folder: Path, *, persist: bool = True) -> EmbeddedServer:
    """The same server again, on the same port."""
    again = embedded_server(folder, persist=persist, port=int(server.url.split(":")[-1].split("/")[0]))
    server.stop()
    again.start()
    return again


def is_refused_in_time(api: Api, calls: tuple[tuple[str, str, dict[str, object] | None], ...]) -> None:
    """Asserts that every call is a 503 that says when to try again."""
    for method, path, body in calls:
        started = time.monotonic()
        answer = api.call(method, "/credits" + path, body)
        assert time.monotonic() - started < BUDGET_SECONDS
        assert problem_members(answer, 503, "metering-unavailable").keys() == {"reason"}, path
        assert answer.headers["retry-after"] == "1"


def probes(api: Api) -> tuple[int, int]:
    """The statuses of livez and readyz."""
    return api.call("GET", "/livez").status, api.call("GET", "/readyz").status


def becomes_ready(api: Api) -> None:
    wait_for(lambda: probes(api) == (200, 200), "the sidecar is ready again")


def test_a_redis_that_stopped_is_503_and_comes_back_without_a_restart(redis: EmbeddedServer, tmp_path: Path) -> None:
    with sidecar(redis.url) as api:
        api.post("/add", {"user_id": "u", "amount": 100})
        assert probes(api) == (200, 200)
        port = int(redis.url.split(":")[-1].split("/")[0])
        redis.stop()
        try:
            is_refused_in_time(api, CALLS[1:4])
            assert probes(api) == (200, 503)
            faults = problem_members(api.call("GET", "/readyz"), 503, "metering-unavailable")["faults"]
            assert len(faults) == 1 and faults[0]
            api.refused(422, "validation-error", "POST", "/deduct", {"user_id": "u"})
        finally:
            again = embedded_server(tmp_path / "redis", persist=True, port=port)
            again.start()
        try:
            becomes_ready(api)
            assert api.post("/deduct", {"user_id": "u", "amount": 1})["available"] == 99
        finally:
            again.stop()


def test_a_redis_that_hangs_is_503_and_nothing_is_applied_twice_when_it_goes_on(redis: EmbeddedServer) -> None:
    with sidecar(redis.url) as api:
        api.post("/add", {"user_id": "u", "amount": 100})
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            is_refused_in_time(api, CALLS[1:3])
            assert probes(api) == (200, 503)
            undecided = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 10}, key="order-1")
            assert undecided.status == 503
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        becomes_ready(api)
        first = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 10}, key="order-1")
        again = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 10}, key="order-1")
        assert (first.status, again.raw) == (200, first.raw)
        assert [entry.operation_id for entry in api.entries()].count("order-1") == 1
        for entry, number in zip(api.entries(), range(1, 99), strict=False):
            assert entry.seq == number
        held = sum(entry.amount for entry in api.entries() if entry.kind == "reserve")
        spent = sum(entry.amount for entry in api.entries() if entry.kind == "deduct")
        assert api.available("u") * 10**6 == 100 * 10**6 - held - spent


def test_many_at_once_are_refused_while_redis_hangs(redis: EmbeddedServer) -> None:
    with sidecar(redis.url) as api:
        api.post("/add", {"user_id": "u", "amount": 100})
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(16) as pool:
                started = time.monotonic()
                calls = [
                    pool.submit(api.call, "POST", "/credits/deduct", {"user_id": "u", "amount": 1}) for _ in range(32)
                ]
                assert {call.result().status for call in calls} == {503}
                assert time.monotonic() - started < 3 * BUDGET_SECONDS
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        becomes_ready(api)
        assert api.post("/deduct", {"user_id": "u", "amount": 0})["available"] <= 100


@pytest.mark.parametrize("how", ["flushall", "restarted empty"])
def test_a_redis_that_lost_its_data_is_refused_and_never_read_as_zero(tmp_path: Path, how: str) -> None:
    server = embedded_server(tmp_path / "redis", persist=False)
    server.start()
    with sidecar(server.url) as api:
        try:
            api.post("/add", {"user_id": "u", "amount": 100})
            if how == "flushall":
                api.client.flushall()
            else:
                server = restart(server, tmp_path / "redis", persist=False)
                wait_for(api.client.ping, "Redis answers")
            wait_for(lambda: b"missing" in api.call("GET", "/readyz").raw, "the loss is noticed")
            is_refused_in_time(api, CALLS)
            assert probes(api) == (200, 503)
            assert api.client.keys("*") == []
        finally:
            server.stop()


def test_a_sidecar_that_starts_before_redis_serves_as_soon_as_it_is_there(tmp_path: Path) -> None:
    with embedded_server(tmp_path / "redis") as server:
        url = server.url
    with sidecar(url) as api:
        assert probes(api) == (200, 503)
        is_refused_in_time(api, CALLS[:2])
        with embedded_server(tmp_path / "redis", port=int(url.split(":")[-1].split("/")[0])):
            becomes_ready(api)
            assert api.post("/add", {"user_id": "u", "amount": 1})["available"] == 1


def test_scripts_that_redis_forgot_are_taught_again(redis: EmbeddedServer) -> None:
    with sidecar(redis.url) as api:
        api.post("/add", {"user_id": "u", "amount": 2})
        api.client.script_flush()
        assert api.post("/deduct", {"user_id": "u", "amount": 1})["available"] == 1


def test_a_redis_that_refuses_writes_is_503(redis: EmbeddedServer) -> None:
    with sidecar(redis.url) as api:
        api.post("/add", {"user_id": "u", "amount": 2})
        api.client.config_set("maxmemory", 1)
        is_refused_in_time(api, CALLS[:2])
        api.client.config_set("maxmemory", 0)
        assert api.post("/deduct", {"user_id": "u", "amount": 1})["available"] == 1
