"""`meter dev` as a person meets it: README's calls, restarts, kills, and nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from tests.api.sidecar import Api, wait_for
from tests.e2e.processes import ROOT, MeterProcess, environment, free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@contextmanager
def dev(folder: Path, port: int) -> Iterator[tuple[MeterProcess, Api]]:
    """`meter dev` in a folder, ready."""
    with (
        MeterProcess("dev", "--port", str(port), cwd=folder, env=environment(), name="dev") as process,
        caller(process, port) as api,
    ):
        yield process, api


@contextmanager
def caller(process: MeterProcess, port: int) -> Iterator[Api]:
    """The API at a port as soon as it is ready."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:

        def ready() -> bool:
            assert process.running, process.log
            try:
                return http.get("/readyz").status_code == 200
            except httpx2.TransportError:
                return False

        wait_for(ready, "readyz")
        yield Api(http, None)


def redis_url(process: MeterProcess) -> str:
    """Where the embedded server of the last start listens, as `meter dev` tells."""
    found: list[str] = re.findall(r"redis=(redis://\S+)", process.log)
    return found[-1]


def is_free(port: int) -> bool:
    """Whether a new server could listen there."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def curl_commands(port: int) -> list[str]:
    """The commands of the README's first calls, for another port."""
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^curl (?:.*\\\n)*.*$", text, re.MULTILINE)[:4]
    assert len(commands) == 4 and all("localhost:8000" in command for command in commands)
    return [command.replace("localhost:8000", f"localhost:{port}") for command in commands]


def ran(command: str) -> Any:
    """What a curl command printed."""
    ended = subprocess.run(["bash", "-c", f"{command} -sS"], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(ended.stdout)


def children_by_kind(process: MeterProcess) -> list[str]:
    """The processes below `meter dev`, as worker, redis or other."""
    kinds = {"meter worker": "worker", "redis-server": "redis", "valkey-server": "redis"}
    return sorted(next((kind for text, kind in kinds.items() if text in line), line) for line in process.see_children())


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_readme_runs_as_it_stands_and_state_survives_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with dev(tmp_path, port) as (process, api):
        added, balance, deducted, plan = [ran(command) for command in curl_commands(port)]
        assert (added["available"], balance["available"], deducted["available"]) == (100, 100, 70)
        assert plan.get("name") == "Pro" or plan["status"] == 501
        body = {"user_id": "user-1", "amount": 20, "reservation_id": "r", "ttl_seconds": 3600}
        held = api.post("/reservations", body, status=201)
        assert {path.name for path in (tmp_path / ".meter").iterdir()} >= {"redis", "worker.log"}
        wait_for(lambda: children_by_kind(process) == ["redis", "worker"], "both children")
        assert process.stop(signal.SIGTERM) == 0
        process.wait_until_gone()
        assert is_free(port)
    assert "Traceback" not in process.log + (tmp_path / ".meter" / "worker.log").read_text()
    with dev(tmp_path, port) as (process, api):
        assert api.get("/balance/user-1")["balance"] == 70
        assert api.get("/reservations/r")["expires_at"] == held["expires_at"]
        assert api.post("/reservations/r/commit", {"amount": 5})["charged"] == 5
        assert [row["kind"] for row in api.get("/history/user-1")["items"]] == ["commit", "reserve", "deduct", "grant"]
        process.see_children()
        assert process.stop(signal.SIGINT) == 0
        process.wait_until_gone()
    assert "Traceback" not in process.log


def test_a_hundred_credits_pass_a_hundred_deducts_through_two_sidecars(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with dev(tmp_path, ports[0]) as (first, api):
        api.post("/add", {"user_id": "u", "amount": 100})
        env = environment(redis_url=redis_url(first), store_url=f"sqlite:///{tmp_path}/.meter/meter.db", port=ports[1])
        with (
            MeterProcess("serve", cwd=tmp_path, env=env, name="serve") as second,
            caller(second, ports[1]) as other,
            ThreadPoolExecutor(20) as pool,
        ):
            body = {"user_id": "u", "amount": 1}
            calls = [pool.submit(way.call, "POST", "/credits/deduct", body) for _ in range(100) for way in (api, other)]
            statuses = [call.result().status for call in calls]
            assert (statuses.count(200), statuses.count(402)) == (100, 100)
            assert api.available("u") == other.available("u") == 0
            assert second.stop() == 0
        with Redis.from_url(redis_url(first)) as client:
            assert not [key for key in client.keys("meter:arq:job:*") if not client.get(key).startswith(b"{")]
        assert api.call("GET", "/readyz").status == 200
    assert "Traceback" not in second.log


class Traffic:
    """Clients that spend until they are stopped, and what was acknowledged to them."""

    def __init__(self, port: int) -> None:
        self.acknowledged: list[str] = []
        self._url = f"http://127.0.0.1:{port}"
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._spend, args=(number,)) for number in range(8)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _spend(self, number: int) -> None:
        with httpx2.Client(base_url=self._url, timeout=20) as http:
            for n in range(100_000):
                key = f"client-{number}-{n}"
                body = {"user_id": "u", "amount": 1}
                try:
                    answer = http.post("/credits/deduct", json=body, headers={"idempotency-key": key})
                except httpx2.TransportError:
                    return
                if answer.status_code == 200:
                    self.acknowledged.append(key)
                if self._stopping.is_set():
                    return


def test_a_kill_in_the_middle_of_traffic_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    port = free_port()
    with dev(tmp_path, port) as (process, api):
        api.post("/add", {"user_id": "u", "amount": 1_000_000})
        held = {"user_id": "u", "amount": 7, "reservation_id": "open", "ttl_seconds": 3600}
        api.post("/reservations", held, status=201)
        wait_for(lambda: children_by_kind(process) == ["redis", "worker"], "both children")
        with Traffic(port) as traffic:
            wait_for(lambda: len(traffic.acknowledged) > 200, "traffic")
            process.kill()
        process.wait_until_gone()
        wait_for(lambda: is_free(port), "a free port")
    with dev(tmp_path, port) as (process, api):
        acknowledged = set(traffic.acknowledged)
        assert len(acknowledged) > 200
        assert api.get("/reservations/open")["state"] == "open"
        booked = set[str]()
        cursor: str | None = ""
        while cursor is not None:
            page = api.get(f"/history/u?kind=deduct&limit=500&cursor={cursor}")
            booked |= {row["reference"] for row in page["items"]}
            cursor = page["next_cursor"]
        assert acknowledged <= booked
        assert len(booked - acknowledged) <= 8  # in flight when the kill came
        balance = api.get("/balance/u")
        assert (balance["reserved"], balance["balance"]) == (7, Decimal(1_000_000 - len(booked)))
        again = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 1}, key=traffic.acknowledged[-1])
        assert (again.status, again.replayed) == (200, True)
        process.see_children()
        assert process.stop() == 0
        process.wait_until_gone()


def test_several_worker_processes_share_one_port_and_end_together(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    with Redis.from_url(redis_url) as client:
        client.flushall()
    env = environment(redis_url=redis_url, store_url="none", port=port)
    with MeterProcess("serve", "--workers", "2", cwd=tmp_path, env=env, name="serve") as process:
        with caller(process, port) as api:
            api.post("/add", {"user_id": "u", "amount": 5})
            with ThreadPoolExecutor(5) as pool:
                body = {"user_id": "u", "amount": 1}
                calls = [pool.submit(api.call, "POST", "/credits/deduct", body) for _ in range(10)]
                assert sorted(call.result().status for call in calls) == [200] * 5 + [402] * 5
            assert len(process.see_children()) >= 2
        assert process.stop() == 0
        process.wait_until_gone()
    assert is_free(port)
    assert "Traceback" not in process.log


def test_a_unix_socket_serves_too(tmp_path: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
    where = tmp_path / "meter.sock"
    env = environment(redis_url=redis_url, store_url="none")
    with MeterProcess("serve", "--uds", str(where), cwd=tmp_path, env=env, name="serve") as process:
        wait_for(where.exists, "the socket")
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(where)), base_url="http://sidecar") as http:
            assert http.get("/livez").json() == {"status": "ok"}
            wait_for(lambda: http.get("/readyz").status_code == 200, "readyz")
        assert process.stop() == 0
