"""The servers under load: child processes on loopback, which end with us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meter.dev.child import can_end_with_parent, ending_with_parent

START_DEADLINE_SECONDS = 60.0
STOP_DEADLINE_SECONDS = 15.0
POLL_SECONDS = 0.02


class ServerFailed(Exception):
    """A server did not start; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that answers at a port of loopback."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker; `check` raises `ServerFailed` when it has ended."""

    pid: int
    check: Callable[[], None]


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def sidecar(redis_url: str, folder: Path, store_url: str) -> Iterator[ServerProcess]:
    """`meter serve` with its hot lane. Raises `ServerFailed`."""
    with _running(["-m", "meter", "serve"], _environment(redis_url, store_url), folder / "sidecar.log") as server:
        yield server


@contextmanager
def stream_upstream(folder: Path) -> Iterator[ServerProcess]:
    """`meter.bench.stream_upstream`. Raises `ServerFailed`."""
    with _running(["-m", "meter.bench.stream_upstream"], dict(os.environ), folder / "upstream.log") as server:
        yield server


@contextmanager
def stream_proxy(redis_url: str, upstream_port: int, folder: Path, store_url: str = "none") -> Iterator[ServerProcess]:
    """`meter proxy` in front of it, deciding in its own process. Raises `ServerFailed`."""
    command = ["-m", "meter", "proxy", "--upstream", f"http://127.0.0.1:{upstream_port}"]
    with _running(command, _environment(redis_url, store_url), folder / "proxy.log") as server:
        yield server


@contextmanager
def worker(
    redis_url: str, store_url: str, folder: Path, *, retention_seconds: int | None = None
) -> Iterator[WorkerProcess]:
    """`meter worker` as in production, but for how long Redis keeps what was flushed, where that is given."""
    log_path = folder / "worker.log"
    environment = {**_bare(), "METER_REDIS_URL": redis_url, "METER_STORE_URL": store_url}
    if retention_seconds is not None:
        environment["METER_OUTBOX_RETENTION_SECONDS"] = str(retention_seconds)
    with _child([sys.executable, "-m", "meter", "worker"], environment, log_path) as process:

        def check() -> None:
            if process.poll() is not None:
                raise ServerFailed(log_path.read_text(encoding="utf-8", errors="replace")[-1000:] or "it has ended")

        yield WorkerProcess(process.pid, check)


@contextmanager
def peer(which: str, redis_url: str, users: int, folder: Path) -> Iterator[ServerProcess]:
    """One of `meter.bench.peers`. Raises `ServerFailed`."""
    command = ["-m", "meter.bench.peers", which, "--redis-url", redis_url, "--users", str(users)]
    with _running(command, dict(os.environ), folder / f"{which}.log", cwd=folder) as server:
        yield server


def _environment(redis_url: str, store_url: str) -> dict[str, str]:
    """Of a server that decides on that Redis, whatever ours sets. It has the store that the Redis is flushed to: none
    is refused where there is one.
    """
    return {
        **_bare(),
        "METER_REDIS_URL": redis_url,
        "METER_STORE_URL": store_url,
        "METER_OUTBOX_MAX": "0",
        # What is measured is how fast; how soon to give up is another question, on a machine that is busy on purpose.
        "METER_REDIS_TIMEOUT_MS": "5000",
        "METER_GATEWAY_TIMEOUT_MS": "5000",
    }


def _bare() -> dict[str, str]:
    """Our environment without settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("METER_")}


@contextmanager
def running(
    command: Callable[[int], list[str]], environment: dict[str, str], log_path: Path, cwd: Path | None = None
) -> Iterator[ServerProcess]:
    """The server of a command line that is made for a port. Raises `ServerFailed` when it does not listen there."""
    port = free_port()
    with _child(command(port), environment, log_path, cwd) as process:
        _wait_until_it_listens(process, port, log_path)
        yield ServerProcess(port, process.pid)


@contextmanager
def _running(
    arguments: list[str], environment: dict[str, str], log_path: Path, cwd: Path | None = None
) -> Iterator[ServerProcess]:
    def command(port: int) -> list[str]:
        return [sys.executable, *arguments, "--port", str(port)]

    with running(command, environment, log_path, cwd) as server:
        yield server


@contextmanager
def _child(
    command: list[str], environment: dict[str, str], log_path: Path, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    if can_end_with_parent():
        command = ending_with_parent(command)
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(POLL_SECONDS)
    raise ServerFailed(log_path.read_text(encoding="utf-8", errors="replace")[-1000:] or "it did not start")
