"""A sidecar that is told to end says so first, and serves until whoever sends requests has heard of it."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import kill
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from meter.config import Settings
from meter.in_process import Meter
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


@contextmanager
def _trickling(parts: int, pause_seconds: float) -> Iterator[ThreadingHTTPServer]:
    """An upstream that streams so many parts, so far apart."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for number in range(parts):
                text = f'data: {{"n":{number}}}\n\n'.encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
                time.sleep(pause_seconds)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_proxy_drains_too_and_lets_a_stream_end(tmp_path: Path, redis_url: str) -> None:
    """Its probes fail first; what has begun is sent to its end, unless that takes longer than --grace."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    port = free_port()
    env = environment(redis_url=redis_url, store_url="none", drain_seconds=2)
    asyncio.run(_give(redis_url))
    with _trickling(8, 0.5) as upstream:
        _drains(upstream, port, tmp_path, env)


def _drains(upstream: ThreadingHTTPServer, port: int, tmp_path: Path, env: Mapping[str, str]) -> None:
    options = ("--upstream", f"http://127.0.0.1:{upstream.server_port}", "--port", str(port), "--grace", "20")
    with MeterProcess("proxy", *options, cwd=tmp_path, env=env) as process:
        ready = f"http://127.0.0.1:{port + 1}/readyz"
        wait_for(lambda: process.running and _status(ready) == 200, "the proxy serves", seconds=60)
        headers = {"x-user-id": "u"}
        with httpx2.stream("POST", f"http://127.0.0.1:{port}/v1/x", json={}, headers=headers, timeout=30) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            kill(process.pid, signal.SIGTERM)
            wait_for(lambda: _status(ready) == 503, "it says that it ends", seconds=5)
            late = httpx2.post(f"http://127.0.0.1:{port}/v1/x", json={}, headers=headers, timeout=30)
            assert late.status_code == 200 and late.text.count("data:") == 8
            assert 1 + sum(line.startswith("data:") for line in lines) == 8
        wait_for(lambda: not process.running, "it ends", seconds=30)
        assert "Traceback" not in process.log


def _status(url: str) -> int:
    with suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=20).status_code
    return 0


async def _give(redis_url: str) -> None:
    async with Meter(Settings(redis_url=redis_url, store_url="none")) as meter:
        await meter.add("u", BALANCE)
