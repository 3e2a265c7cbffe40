"""C4: the shipper of access logs, which a gateway's life hangs on: examples/gateways/ship.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.api.sidecar import DEADLINE_SECONDS, wait_for
from tests.gateways.process import free_port

SHIP = Path(__file__).parents[2] / "examples" / "gateways" / "ship.py"
OVER_GRPC = ("envoy-ext-proc", "envoy-rls")
"""Examples that do not speak HTTP to the sidecar."""
LINES_MAX = 200_000


class Taker(ThreadingHTTPServer):
    """A sidecar that takes logs, answering with each status in turn and then with 202."""

    daemon_threads = True

    def __init__(self, port: int, *statuses: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.statuses = list(statuses)
        self.paths: list[str] = []
        self.entries: list[dict[str, object]] = []
        self.taken = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Taker

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.taken:
            status = self.server.statuses.pop(0) if self.server.statuses else 202
            if status == 202:
                self.server.paths.append(self.path)
                self.server.entries += [json.loads(line) for line in body.splitlines()]
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, *_: object) -> None:
        """Silent."""


@contextmanager
def taking(port: int, *statuses: int) -> Iterator[Taker]:
    taker = Taker(port, *statuses)
    thread = threading.Thread(target=taker.serve_forever, daemon=True)
    thread.start()
    try:
        yield taker
    finally:
        taker.shutdown()
        taker.server_close()
        thread.join(DEADLINE_SECONDS)


@contextmanager
def shipping(port: int, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(SHIP), "--source", "traefik", *options]
    place = {"METER": f"127.0.0.1:{port}", **environment}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **place}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[bytes], first: int, count: int) -> None:
    """Entries with numbers, written as a gateway writes them: it waits when nobody reads."""
    assert process.stdin is not None
    for begin in range(first, first + count, 1000):
        numbers = range(begin, min(begin + 1000, first + count))
        process.stdin.write(b"".join(b'{"number":%d}\n' % number for number in numbers))
        process.stdin.flush()


def ended(process: subprocess.Popen[bytes]) -> str:
    """What it says until its end, when its gateway ends."""
    assert process.stdin is not None and process.stderr is not None
    process.stdin.close()
    told = process.stderr.read().decode()
    assert process.wait(DEADLINE_SECONDS) == 0
    return told


def test_c4_a_gateway_never_waits_for_a_sidecar_that_is_away() -> None:
    """More than pipe and backlog hold: all of it is read, the oldest that wait go, and the rest is delivered."""
    port, count = free_port(), LINES_MAX + 50_000
    with shipping(port) as process:
        write(process, 0, count)  # would never return if it were not read
        with taking(port) as taker:
            told = ended(process)

    numbers = [entry["number"] for entry in taker.entries]
    dropped = count - len(numbers)
    begins = next(at for at, number in enumerate(numbers) if number != at)  # one delivery was under way all the time
    assert numbers[begins:] == list(range(begins + dropped, count))
    assert 0 < dropped <= 50_000 and begins <= 500
    assert f"{dropped} lines were not delivered" in told
    assert "they wait" in told


def test_c4_what_is_refused_for_now_is_repeated_and_what_is_wrong_is_told() -> None:
    port = free_port()
    with taking(port, 503, 500, 503) as taker, shipping(port) as process:
        write(process, 0, 3)
        wait_for(lambda: len(taker.entries) == 3, "the delivery")
        taker.statuses = [400]
        write(process, 3, 1)
        wait_for(lambda: not taker.statuses, "the refusal")
        write(process, 4, 1)
        told = ended(process)

    assert [entry["number"] for entry in taker.entries] == [0, 1, 2, 4]
    assert set(taker.paths) == {"/gateway/logs?source=traefik"}
    assert "1 lines were refused: 400" in told


def test_c4_other_lines_are_not_for_the_sidecar() -> None:
    port = free_port()
    with taking(port) as taker, shipping(port) as process:
        assert process.stdin is not None
        process.stdin.write(b'time="now" level=info\n{"a":1}\n\n{"b":"' + b"x" * 100_000 + b'"}\n{"c":1}\n{"last":1}')
        told = ended(process)

    assert taker.entries == [{"a": 1}, {"c": 1}, {"last": 1}]
    assert told == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_c4_a_signal_for_the_gateway_does_not_cost_its_last_lines(number: signal.Signals) -> None:
    port = free_port()
    with taking(port) as taker, shipping(port) as process:
        write(process, 0, 1)
        wait_for(lambda: len(taker.entries) == 1, "the first line")
        process.send_signal(number)
        write(process, 1, 1)
        ended(process)

    assert [entry["number"] for entry in taker.entries] == [0, 1]


def test_u16_the_option_beats_the_environment() -> None:
    port = free_port()
    with taking(port) as taker, shipping(1, "--meter", f"http://127.0.0.1:{port}") as process:
        write(process, 0, 1)
        ended(process)

    assert len(taker.entries) == 1


@pytest.mark.parametrize(
    "folder", sorted(path.name for path in SHIP.parent.iterdir() if path.is_dir() and path.name not in OVER_GRPC)
)
def test_u16_the_sidecars_address_stands_once_in_each_example(folder: str) -> None:
    texts = [path.read_text() for path in (SHIP.parent / folder).iterdir() if path.suffix != ".md"]
    lines = [line for text in texts for line in text.splitlines() if not line.lstrip().startswith(("#", "--", "//"))]

    places = [line for line in lines if "127.0.0.1:8000" in line or "port_value: 8000" in line]
    assert len(places) == 1, places
