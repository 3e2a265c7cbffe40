"""A Redis on a unix socket serves everything: script calls, the other commands, arq's queue."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotYet

from meter.config import load_settings
from meter.contract.answers import Balance
from meter.dev.redis_server import find_server_binary
from meter.in_process import Meter
from meter.worker.queue import check_queue, queue_pool

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a server with a password, with a number of a database and a name for its connections."""
    path = tmp_path / "r.sock"
    command = [str(find_server_binary()), "--port", "0", "--unixsocket", str(path), "--requirepass", "secret"]
    with subprocess.Popen([*command, "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    Redis(unix_socket_path=str(path), password="secret").ping()
                    break
                except NotYet:
                    time.sleep(0.01)
            yield f"unix://:secret@{path}?db=1&client_name=sidecar"
        finally:
            process.terminate()


async def test_a_unix_socket_is_served(url: str) -> None:
    settings = load_settings(redis_url=url, store_url="none", redis_unsafe=True, redis_timeout_ms=10_000)
    async with Meter(settings) as meter:
        assert await meter.add("u", 5)
        assert await meter.deduct("u", 2)
        client = meter._runtime.redis._client
        await client.client_kill_filter(_type="normal", skipme=True)
        assert await meter.deduct("u", 2)
        balance = await meter.balance("u")
        assert isinstance(balance, Balance) and balance.balance == 1
        names = {one["name"] for one in await client.client_list() if one["db"] == "1"}
    assert names == {"sidecar"}
    await check_queue(settings)
    queue = queue_pool(settings)
    await queue.ping()
    await queue.aclose(close_connection_pool=True)
