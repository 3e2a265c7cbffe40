"""`meter serve` with and without the hot lane, on a port and on a unix socket, ended by SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from meter.api.lane.protocol import HotProtocol
from meter.testing import fake_app
from tests.api.lane.answers import deduct, request
from tests.api.lane.serving import Client, wait_for


@pytest.mark.parametrize("hot_lane", ["1", "0"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_request_in_flight_outlives_sigterm(redis_url: str, hot_lane: str, unix: bool) -> None:
    text = deduct(f"serve-{hot_lane}-{unix:d}", 1)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = Path(folder) / "meter.sock"
        where = ["--uds", str(path)] if unix else ["--port", str(port)]
        environment = {
            **os.environ,
            "METER_REDIS_URL": redis_url,
            "METER_STORE_URL": "none",
            "METER_HOT_LANE": hot_lane,
            "METER_KEY_PREFIX": "lane-serve",
            "METER_REDIS_TIMEOUT_MS": "10000",
        }
        with subprocess.Popen([sys.executable, "-m", "meter", "serve", *where], env=environment) as process:
            try:
                address: str | tuple[str, int] = str(path) if unix else ("127.0.0.1", port)
                family = socket.AF_UNIX if unix else socket.AF_INET
                wait_for(lambda: _answers(family, address), "it serves")
                with socket.socket(family) as sock, socket.socket(family) as idle:
                    idle.connect(address)
                    sock.settimeout(20)
                    sock.connect(address)
                    client = Client(sock).send(request("GET", "/credits/balance/x"))
                    client.answers(1)
                    client.send(text[:-4])
                    process.send_signal(signal.SIGTERM)
                    idle.settimeout(20)
                    assert idle.recv(1) == b""  # now it is ending
                    answers = client.send(text[-4:]).to_the_end()
                assert process.wait(20) == -signal.SIGTERM or process.returncode == 0
            finally:
                process.kill()

    assert [answer.status for answer in answers] == [200, 402]
    assert answers[-1].header("connection") == "close"


def test_the_lane_is_off_where_only_uvicorn_does_what_was_asked_for() -> None:
    """A root path, a concurrency limit, an access log."""
    app = fake_app()
    usable = []
    found: tuple[dict[str, Any], ...] = ({}, {"root_path": "/x"}, {"limit_concurrency": 5}, {"access_log": True})
    for options in found:
        config = Config(app, **{"access_log": False, "proxy_headers": False, "log_config": None, **options})
        config.load()
        usable.append(HotProtocol(config, ServerState(), {}, object())._usable)

    assert usable == [True, False, False, False]


def _answers(family: int, address: str | tuple[str, int]) -> bool:
    with socket.socket(family) as sock:
        try:
            sock.connect(address)
        except OSError:
            return False
        return True
