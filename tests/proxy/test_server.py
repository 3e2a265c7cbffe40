"""The proxy as it is run: its options, its own meter or a sidecar's, its process, its lifespan."""

from __future__ import annotations

import asyncio
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
from fakeredis import FakeServer
from starlette.types import Message

from meter import Meter, MeterClient
from meter.charging.amounts import header_value
from meter.errors import ConfigError
from meter.proxy.app import Proxy
from meter.proxy.options import ProxyOptions, parse_statuses
from meter.proxy.server import proxy_of, server_of
from meter.testing import fake_app, fake_settings
from tests.proxy import serving
from tests.proxy.proxied import balance
from tests.proxy.serving import connected, fetch, request, served, until_it
from tests.proxy.upstream import Asked, Reply, upstream

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'

RUN = """
import sys
from meter.config import load_settings
from meter.proxy.options import ProxyOptions
from meter.proxy.server import run_proxy
run_proxy(load_settings(store_url="none"), ProxyOptions(upstream=sys.argv[1], port=int(sys.argv[2])))
"""


async def used(_: Asked, reply: Reply) -> None:
    await reply.json(USED)


async def test_a_sidecar_can_decide(bank: Meter, meter_server: FakeServer) -> None:
    sidecar = serving.server_of(fake_app(meter_server), lifespan="on")
    async with served(sidecar) as meter_port, upstream(used) as fake:
        options = ProxyOptions(upstream=fake.url, meter_url=f"http://127.0.0.1:{meter_port}")
        proxy = proxy_of(fake_settings(), options)
        async with served(server_of(proxy, options)) as port:
            assert (await fetch(port, request("GET", "/"))).body == USED
            assert (await fetch(port, request("GET", "/", user="stranger"))).status == 402
        assert await balance(bank) == (985, 0)


@asynccontextmanager
async def running(url: str, redis_url: str, folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """A proxy in a process of its own, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "METER_REDIS_URL": redis_url, "METER_KEY_PREFIX": "proxy"}
    command = [sys.executable, "-c", RUN, url, str(port)]
    process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE)

    async def answers() -> bool:
        assert process.poll() is None
        try:
            async with connected(port):
                return True
        except OSError:
            return False

    try:
        await until_it(answers, "the proxy listens")
        yield process, port
    finally:
        process.kill()
        process.communicate()


async def test_a_process_that_is_stopped_ends_its_exchanges_first(redis_url: str, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(b"data: {}\n\n")
        await go_on.wait()
        await reply.event(USED.decode())
        await reply.chunk(b"")

    async with Meter.connect(redis_url, key_prefix="proxy", store_url="none") as meter:
        await meter.add("user-1", 1000)
        async with upstream(script) as fake, running(fake.url, redis_url, tmp_path) as (process, port):
            async with connected(port) as client:
                await client.send(request("GET", "/"))
                await client.head()
                await client.chunk()
                process.send_signal(signal.SIGTERM)
                go_on.set()
                assert USED in await client.chunk()
                assert await client.chunk() == b""
            await asyncio.to_thread(process.wait, serving.DEADLINE_SECONDS)
        assert await balance(meter) == (985, 0)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"upstream": "example.com"}, "upstream='example.com': must be http"),
        ({"upstream": "ftp://example.com"}, "must be http"),
        ({"upstream": "http://user:secret@example.com"}, "must be http"),
        ({"upstream": "http://example.com?x=1"}, "must be http"),
        ({"path_prefix": "v1"}, "starts with a slash"),
        ({"usage_key": "a..b"}, "between its dots"),
        ({"drain_seconds": 0}, "drain_seconds=0: must be positive"),
        ({"upstream_connections_max": -1}, "must be positive"),
    ],
)
def test_an_option_that_cannot_be_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ProxyOptions(**{"upstream": "http://127.0.0.1", **changed})  # type: ignore[arg-type]


def test_the_upstream_may_have_a_path_and_a_port() -> None:
    assert ProxyOptions(upstream="https://api.example.com:8443/base/").default_estimated_tokens == 100


@pytest.mark.parametrize(
    ("text", "some", "others"),
    [("2xx", {200, 299}, {199, 300}), ("200, 404", {200, 404}, {201}), ("2XX,404", {204, 404}, {400, 500})],
)
def test_statuses_are_written_as_people_do(text: str, some: set[int], others: set[int]) -> None:
    assert some <= parse_statuses(text)
    assert not others & parse_statuses(text)


@pytest.mark.parametrize("text", ["", "ok", "2x", "20x", "600", "2xx;404"])
def test_other_statuses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2xx,404"):
        parse_statuses(text)


async def test_a_websocket_is_refused(bank: Meter) -> None:
    proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1"), bank)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await proxy({"type": "websocket", "path": "/"}, receive, send)

    assert sent == [{"type": "websocket.close"}]


async def test_a_meter_that_cannot_be_opened_fails_the_start(redis_url: str) -> None:
    async with Meter.connect(redis_url, key_prefix="places", store_url="none", decimal_places=2) as meter:
        await meter.balance("user-1")
    settings = fake_settings(redis_url=redis_url, key_prefix="places", decimal_places=3)
    refused = Meter(settings)
    proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1"), refused, owned=refused)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ConfigError, match="decimal_places=2"):
        await proxy({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    await refused.__aexit__()


async def test_the_proxy_closes_what_it_opened(meter_server: FakeServer) -> None:
    client = MeterClient("http://127.0.0.1:1")
    proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1"), client, owned=client)
    async with proxy.running():
        pass


def test_amounts_in_headers_are_plain() -> None:
    assert header_value(Decimal("1E+3")) == b"1000"
    assert header_value(Decimal("0.500000")) == b"0.5"
    assert header_value(Decimal(0)) == b"0"
