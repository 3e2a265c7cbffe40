"""C3 under the servers that are not uvicorn, by a real run of each: a client that leaves in mid-stream."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from meter import Meter
from tests.e2e.processes import ROOT, environment, free_port
from tests.middleware.test_live import settles_at
from tests.proxy.serving import connected, request, until_it

pytestmark = pytest.mark.slow

APP = "tests.middleware.left_app:app"
SERVERS = {
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", APP],
    "granian": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", APP],
}


@asynccontextmanager
async def served(name: str, redis_url: str, folder: Path, **env: str) -> AsyncIterator[tuple[int, Meter]]:
    """The port of a server of that name, and a meter with 1,000 credits on the same Redis."""
    port, settings = free_port(), {"redis_url": redis_url, "key_prefix": f"c3-{free_port()}"}
    command = [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[name])]
    process_env = {**environment(**settings), **env}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=process_env, stdout=log, stderr=log, start_new_session=True)
    try:
        async with Meter.connect(redis_url, store_url="none", key_prefix=settings["key_prefix"]) as bank:
            await bank.add("user-1", 1000)

            async def listens() -> bool:
                with socket.socket() as probe:
                    assert process.poll() is None, (folder / "log").read_text()
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            await until_it(listens, f"{name} listens")
            yield port, bank
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # both have workers
        process.wait()


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(("told", "leaving", "left"), [(0, "", 900), (3, "", 997), (0, "free", 1000)])
async def test_c3_leaving_in_mid_stream_costs_by_the_policy_for_leaving(
    tmp_path: Path, redis_url: str, name: str, told: int, leaving: str, left: int
) -> None:
    async with served(name, redis_url, tmp_path, LEAVING=leaving) as (port, bank):
        async with connected(port) as client:
            await client.send(request("GET", f"/api/stream/{told}"))
            assert (await client.head())[0] == 200
            await client.chunk()
            balance = await bank.balance("user-1")
            assert balance
            assert getattr(balance, "reserved", None) == Decimal(100)
        await settles_at(bank, left)


@pytest.mark.parametrize("name", SERVERS)
async def test_c3_who_stays_to_the_end_is_charged_what_was_told(tmp_path: Path, redis_url: str, name: str) -> None:
    async with served(name, redis_url, tmp_path) as (port, bank):
        async with connected(port) as client:
            await client.send(request("GET", "/api/stream/0?pieces=3"))
            assert (await client.head())[0] == 200
            while await client.chunk():
                pass
        await settles_at(bank, 991)
