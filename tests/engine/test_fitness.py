"""A Redis that evicts, keeps nothing on disk or only follows another is refused before it holds a balance (U1, C7)."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from meter.config import Settings
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.fitness import faults_of
from meter.errors import ConfigError, RedisUnavailable

SERVER = shutil.which("redis-server") or ""
SAFE = ("--appendonly", "yes")
EVICTING = (*SAFE, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """A redis-server with these options; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "--port", str(port), "--dir", str(folder), "--save", "", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            client = Redis(port=port)
            for _ in range(500):
                try:
                    client.ping()
                    break
                except RedisError:
                    time.sleep(0.02)
            client.close()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


async def opened(url: str, *, unsafe: bool = False) -> list[str]:
    """What an engine says of itself once it has started on that Redis."""
    gateway = connect(url, timeout_seconds=5, connections_max=4)
    settings = Settings(redis_url=url, store_url="none", redis_unsafe=unsafe, redis_timeout_ms=10_000)
    engine = Engine(gateway, settings)
    try:
        await engine.start()
        return await engine.faults()
    finally:
        await engine.close()
        await gateway.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EVICTING, "maxmemory-policy allkeys-lru"),
        ((*SAFE, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"), "maxmemory-policy volatile-ttl"),
        (("--appendonly", "no"), "appendonly no"),
    ],
)
async def test_u1_a_redis_that_loses_balances_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with running(tmp_path, *options) as url:
        with pytest.raises(ConfigError, match=f"{words}.*METER_REDIS_UNSAFE=1"):
            await opened(url)
        assert not Redis.from_url(url).keys()
        assert await opened(url, unsafe=True) == []


@pytest.mark.parametrize("more", [(), ("--maxmemory-policy", "allkeys-lru"), ("--maxmemory", "100mb")])
async def test_u1_a_redis_that_keeps_what_it_has_is_taken(tmp_path: Path, more: tuple[str, ...]) -> None:
    """A policy without a limit evicts nothing."""
    with running(tmp_path, *SAFE, *more) as url:
        assert await opened(url) == []


async def test_u1_a_redis_that_does_not_let_itself_be_asked_is_taken(tmp_path: Path) -> None:
    with running(tmp_path, "--appendonly", "no", "--rename-command", "INFO", "") as url:
        assert await opened(url) == []


async def test_c7_a_replica_is_not_served_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    with running(tmp_path, *SAFE) as master:
        port = master.rpartition(":")[2].partition("/")[0]
        with running(tmp_path / "replica", *SAFE, "--replicaof", "127.0.0.1", port) as url:
            (fault,) = await opened(url, unsafe=True)
            assert "read-only replica" in fault


def test_u1_the_command_ends_with_one_line_and_2(tmp_path: Path) -> None:
    with running(tmp_path, *EVICTING) as url:
        for process in ("serve", "worker"):
            command = [sys.executable, "-m", "meter", process, *(("--port", "0") if process == "serve" else ())]
            environment = {"METER_REDIS_URL": url, "METER_STORE_URL": "none", "PATH": "/usr/bin:/bin"}
            environment["METER_REDIS_TIMEOUT_MS"] = "10000"
            run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert run.returncode == 2, run.stderr
            assert len([line for line in run.stderr.splitlines() if "allkeys-lru" in line]) == 1
            assert "Traceback" not in run.stderr


def test_u1_nothing_is_said_of_what_is_not_known() -> None:
    assert faults_of({}) == []


async def test_redis_that_is_away_is_told_as_before() -> None:
    gateway = connect("redis://127.0.0.1:1/0", timeout_seconds=1, connections_max=1)
    with pytest.raises(RedisUnavailable):
        await gateway.info()
    await gateway.close()
