"""The example runs, and each curl line of its docstring answers what the line above it says."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

START_SECONDS = 120.0
"""What Python needs to import an application on a machine where ten others want a core, and more."""

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_middleware_example.py"


@pytest.fixture(params=["memory", "redis"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx2.Client]:
    """The running example."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METER_")} | {
        "PORT": str(port)
    }
    if request.param == "redis":
        environment["METER_REDIS_URL"] = request.getfixturevalue("redis_url")
        environment["METER_KEY_PREFIX"] = "example"
        environment["METER_REDIS_UNSAFE"] = "1"
    with subprocess.Popen(
        [sys.executable, EXAMPLE], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
                _wait_for(client, process)
                yield client
        finally:
            process.terminate()


def _wait_for(client: httpx2.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the example ended"
        try:
            client.get("/api/health")
        except httpx2.TransportError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the example does not answer")


def curl_lines() -> list[list[str]]:
    """The words of each curl line of the docstring."""
    text = EXAMPLE.read_text().split('"""')[1].replace("\\\\\n", "")
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("curl ")]


def run(client: httpx2.Client, words: list[str]) -> httpx2.Response:
    """What curl would do."""
    options = {"-X": "GET", "-d": None}
    headers, url = [], ""
    rest = iter(words[1:])
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers.append((name, value))
        elif word in options:
            options[word] = next(rest)
        elif not word.startswith("-"):
            url = word.removeprefix("http://localhost:8000")
    return client.request(str(options["-X"]), url, headers=headers, content=options["-d"])


def test_the_example_does_what_it_says(example: httpx2.Client) -> None:
    added, chat, stream, short, nobody, health, balance = (run(example, words) for words in curl_lines())

    assert (added.status_code, added.json()["credits"]) == (200, 100)
    assert chat.json() == {"message": "Echo: hello there", "total_token": 4}
    assert chat.headers["x-credits-deducted"] == "4"
    assert stream.text.endswith('data: {"total_token": 6}\n\n')
    assert (short.status_code, short.json()["code"]) == (402, "INSUFFICIENT_CREDITS")
    assert (nobody.status_code, nobody.json()["code"]) == (401, "MISSING_IDENTITY")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (balance.json()["credits"], balance.json()["reserved"]) == (90, 0)
