"""`meter serve --processes N`: one address, metrics of all, and a kill of any of them loses nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Self

import httpx2
import pytest
from redis import Redis

from tests.api.sidecar import Api, wait_for
from tests.api.test_metrics import Samples, samples
from tests.e2e.processes import MeterProcess, environment, free_port, run_meter
from tests.e2e.test_dev import caller, is_free

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.slow,
]


START_SECONDS = 60.0
"""Three interpreters that start at once on a busy machine."""


@contextmanager
def serving(tmp_path: Path, redis_url: str, port: int) -> Iterator[tuple[MeterProcess, Api]]:
    """Two processes, both ready."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    env = environment(redis_url=redis_url, store_url="none", port=port, processes=2)
    with MeterProcess("serve", cwd=tmp_path, env=env, name="serve") as process:
        wait_for(lambda: set(pids(process)) == {0, 1}, "both processes", seconds=START_SECONDS)
        with caller(process, port) as api:
            yield process, api


def pids(process: MeterProcess) -> dict[int, int]:
    """The process ids of the processes by their numbers, as the log tells them."""
    return {int(n): int(pid) for n, pid in re.findall(r"a process serves process=(\d+) pid=(\d+)", process.log)}


def is_replaced(process: MeterProcess, number: int, pid: int) -> bool:
    """Whether another process has the number."""
    return pids(process)[number] != pid


def metrics(port: int) -> Samples:
    """What /metrics says, whoever answers."""
    return samples(httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text)


def total(found: Samples, name: str, *labels: str) -> float:
    """A sum over the processes."""
    return sum(value for sample, value in found.items() if sample.startswith(name) and all(x in sample for x in labels))


class Traffic:
    """Clients that spend 1 at a time, each under a key of its own, and ask again with it until they are answered."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._spend, args=(n,)) for n in range(6)]
        self.done: list[str] = []
        self.repeated: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _spend(self, client: int) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            self._spend_once(f"client-{client}-{number}")

    def _spend_once(self, key: str) -> None:
        body = {"user_id": "u", "amount": 1}
        while True:
            try:
                with httpx2.Client(base_url=self._url, timeout=20) as http:  # on a new connection, to any process
                    answer = http.post("/credits/deduct", json=body, headers={"idempotency-key": key})
            except httpx2.TransportError:
                self.repeated.append(key)
                continue
            assert answer.status_code == 200, answer.text
            self.done.append(key)
            return


def test_a_kill_of_one_of_two_under_load_loses_nothing_and_another_takes_its_place(
    tmp_path: Path, redis_url: str
) -> None:
    port = free_port()
    with serving(tmp_path, redis_url, port) as (process, api):
        api.post("/add", {"user_id": "u", "amount": 1_000_000})
        before = pids(process)
        with Traffic(port) as traffic:
            for killed in range(2):
                seen = len(traffic.done)
                wait_for(lambda seen=seen: len(traffic.done) > seen + 100, "traffic")  # type: ignore[misc]
                os.kill(before[killed], signal.SIGKILL)
                replaced = partial(is_replaced, process, killed, before[killed])
                wait_for(replaced, "another one", seconds=START_SECONDS)
        assert set(traffic.repeated) <= set(traffic.done)
        assert api.get("/balance/u")["balance"] == Decimal(1_000_000 - len(traffic.done))
        assert len(set(traffic.done)) == len(traffic.done)
        process.see_children()
        assert process.stop() == 0
        process.wait_until_gone()
    assert is_free(port)
    assert "Traceback" not in process.log


def test_metrics_are_those_of_all_processes_whoever_is_asked(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    with serving(tmp_path, redis_url, port) as (process, api):
        api.post("/add", {"user_id": "u", "amount": 1_000_000})
        number = 0
        while True:  # the kernel chooses who takes a connection
            number += 1
            httpx2.post(f"http://127.0.0.1:{port}/credits/deduct", json={"user_id": "u", "amount": 1}, timeout=20)
            found = metrics(port)
            if all(total(found, "meter_operations_total", 'op="deduct"', f'process="{n}"') for n in (0, 1)):
                break
        for _ in range(10):
            found = metrics(port)
            assert total(found, "meter_operations_total", 'op="deduct"', 'outcome="ok"') == number
            assert total(found, "meter_batch_operations_count") >= number
            assert found['meter_part_up{part="redis"}'] == 1
        process.see_children()
        assert process.stop(signal.SIGINT) == 0
        process.wait_until_gone()


def test_processes_whose_parent_was_killed_end_themselves(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    with serving(tmp_path, redis_url, port) as (process, _):
        assert len(process.see_children()) >= 2
        process.kill()
        process.wait_until_gone()
    assert is_free(port)


def test_a_socket_that_is_left_is_taken_and_one_that_is_used_is_not(tmp_path: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
    path = tmp_path / "meter.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and nobody listens: of a process that was killed
    env = environment(redis_url=redis_url, store_url="none", uds=path, processes=2)
    with MeterProcess("serve", cwd=tmp_path, env=env, name="serve") as process:
        wait_for(lambda: set(pids(process)) == {0, 1}, "both processes", seconds=START_SECONDS)
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://sidecar.example") as http:
            wait_for(lambda: http.get("/readyz").status_code == 200, "readyz")
        second = run_meter("serve", cwd=tmp_path, env=env)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert f"METER_UDS={path}: somebody listens there already" in second.stderr
        process.see_children()
        assert process.stop() == 0
        process.wait_until_gone()
    assert not path.exists()

    missing = run_meter("serve", "--uds", str(tmp_path / "none" / "a.sock"), cwd=tmp_path, env=env)
    assert (missing.returncode, "there is no folder" in missing.stderr) == (2, True)
