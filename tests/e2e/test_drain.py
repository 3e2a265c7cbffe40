"""A sidecar that is told to end says so first, and serves until whoever sends requests has heard of it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from os import kill
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from tests.api.sidecar import wait_for
from tests.e2e.processes import MeterProcess, environment, free_port
from tests.e2e.test_dev import caller, is_free

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.slow,
]

BALANCE = 1_000_000


class Gateway:
    """Sends a request after the other while `/readyz` says 200, as a Kubernetes Service does."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._heard = threading.Event()
        self.statuses: list[int] = []
        self.probes: list[tuple[int, str]] = []
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._probe)]

    def __enter__(self) -> Gateway:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(30)

    def _send(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=20) as http:
            while not self._heard.is_set():
                self.statuses.append(http.post("/credits/deduct", json={"user_id": "u", "amount": 1}).status_code)

    def _probe(self) -> None:
        while not self._heard.is_set():
            answer = httpx2.get(f"{self._url}/readyz", timeout=20)
            self.probes.append((answer.status_code, answer.json().get("code", "")))
            if answer.status_code != 200:
                self._heard.set()
            time.sleep(0.2)


@pytest.mark.parametrize("processes", [1, 2])
def test_nobody_who_listens_to_readyz_is_turned_away(tmp_path: Path, redis_url: str, processes: int) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
    port = free_port()
    env = environment(redis_url=redis_url, store_url="none", port=port, processes=processes, drain_seconds=5)
    with MeterProcess("serve", cwd=tmp_path, env=env) as process:
        with caller(process, port) as api:
            api.post("/add", {"user_id": "u", "amount": BALANCE})
        with Gateway(port) as gateway:
            wait_for(lambda: len(gateway.statuses) > 20, "it serves")
            kill(process.pid, signal.SIGTERM)
        assert set(gateway.statuses) == {200}
        assert gateway.probes[-1] == (503, "DRAINING")
        assert httpx2.post(f"http://127.0.0.1:{port}/credits/deduct", json={"user_id": "u", "amount": 1}).is_success
        wait_for(lambda: not process.running, "it ends", seconds=30)
        assert is_free(port)
        assert "Traceback" not in process.log


def test_without_a_time_for_it_a_process_ends_at_once(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    env = environment(redis_url=redis_url, store_url="none", port=port)
    with MeterProcess("serve", cwd=tmp_path, env=env) as process:
        with caller(process, port):
            kill(process.pid, signal.SIGTERM)
            wait_for(lambda: not process.running, "it ends", seconds=10)
        assert "Traceback" not in process.log
