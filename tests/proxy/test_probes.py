"""U15: the proxy's own probes and metrics, on a port of their own: meter/proxy/probes.py."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from meter import Credits, Meter
from meter.charging.policy import Missing
from meter.errors import ConfigError
from meter.proxy.app import Proxy
from meter.proxy.options import ProxyOptions
from meter.proxy.server import server_of
from tests.gateways.process import free_port
from tests.middleware.test_refusals import Away
from tests.proxy.serving import RawAnswer, fetch, request, served
from tests.proxy.upstream import Asked, Reply, upstream

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


async def script(asked: Asked, reply: Reply) -> None:
    if asked.target == "/dies":
        reply.die()
    else:
        await reply.json(USED if asked.target == "/used" else b"{}")


@asynccontextmanager
async def probed(credits_: Credits, *, stopping: bool = False, **changed: object) -> AsyncIterator[tuple[int, int]]:
    """The ports of a proxy and of its probes."""
    port = free_port()
    async with upstream(script) as fake:
        options = ProxyOptions(**{"upstream": fake.url, "probes_port": port, **changed})  # type: ignore[arg-type]
        proxy = Proxy(options, credits_, stopping=lambda: stopping)
        async with served(server_of(proxy, options)) as own:
            yield own, port


async def get(port: int, path: str) -> RawAnswer:
    return await fetch(port, request("GET", path, user=None))


async def test_u15_the_probes_answer_on_their_own_port(bank: Meter) -> None:
    async with probed(bank) as (own, port):
        answers = [await get(port, path) for path in ("/livez", "/readyz", "/metrics")]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert (await get(port, "/other")).status == 404
        assert (await get(own, "/livez")).status == 401  # the upstream's path, as any other


async def test_u15_a_meter_that_is_away_is_not_ready_but_alive() -> None:
    async with probed(Credits(Away())) as (_, port):
        assert (await get(port, "/livez")).status == 200
        answer = await get(port, "/readyz")

    assert (answer.status, orjson.loads(answer.body)["reason"]) == (503, "redis")


async def test_u15_who_serves_unmetered_is_degraded() -> None:
    async with probed(Credits(Away()), fail="open") as (own, port):
        assert (await get(port, "/readyz")).body == b'{"status":"degraded"}'
        assert (await fetch(own, request("GET", "/used"))).status == 200
        assert b'meter_proxy_requests_total{outcome="unmetered"} 1.0' in (await get(port, "/metrics")).body


async def test_u15_who_stops_is_not_ready(bank: Meter) -> None:
    async with probed(bank, stopping=True) as (_, port):
        answer = await get(port, "/readyz")

    assert (answer.status, orjson.loads(answer.body)["reason"]) == (503, "draining")


async def test_u15_what_became_of_requests_is_counted(bank: Meter) -> None:
    async with probed(bank, path_prefix="/", skip_paths=("/free",), on_missing_usage=Missing.RELEASE) as (own, port):
        for path in ("/used", "/used", "/silent", "/free", "/dies"):
            await fetch(own, request("GET", path))
        await fetch(own, request("GET", "/used", user=None))
        await bank.balance("user-1")
        text = (await get(port, "/metrics")).body.decode()

    for line in (
        'meter_proxy_requests_total{outcome="401"} 1.0',
        'meter_proxy_requests_total{outcome="free"} 1.0',
        'meter_proxy_requests_total{outcome="metered"} 4.0',
        'meter_proxy_settlements_total{outcome="charged"} 2.0',
        'meter_proxy_settlements_total{outcome="released"} 2.0',
        'meter_proxy_endings_total{ending="clean"} 3.0',
        'meter_proxy_endings_total{ending="cut"} 1.0',
        'meter_proxy_upstream_faults_total{fault="upstream-unreachable"} 1.0',
    ):
        assert line in text, text


@asynccontextmanager
async def taken() -> AsyncIterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_u15_a_port_that_was_asked_for_and_is_taken_fails_the_start(bank: Meter) -> None:
    async with taken() as port:
        proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1", probes_port=port), bank)
        with pytest.raises(ConfigError, match=f"--probes-port={port}"):
            async with proxy.running():
                pass


@pytest.mark.parametrize("given", [{"probes_port": 0}, {"uds": Path("/nowhere")}, {"port": 0}])
async def test_u15_there_may_be_none(bank: Meter, given: dict[str, object]) -> None:
    proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1", **given), bank)  # type: ignore[arg-type]
    async with proxy.running():
        pass


async def test_u15_the_default_port_is_the_next_one_and_may_be_taken(
    bank: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    async with taken() as port:
        proxy = Proxy(ProxyOptions(upstream="http://127.0.0.1", port=port - 1), bank)
        async with proxy.running():
            assert "no probes are served" in caplog.text
    async with proxy.running():
        assert (await get(port, "/livez")).status == 200


@pytest.mark.parametrize("port", [-1, 65536])
def test_u15_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="probes_port"):
        ProxyOptions(upstream="http://127.0.0.1", probes_port=port)


def test_u15_the_start_line_says_who_must_set_the_identity() -> None:
    told = ProxyOptions(upstream="http://127.0.0.1", user_id_header="X-Account").described()

    assert told["identity_header"] == "X-Account"
    assert "must set it, or strip it from strangers" in str(told["identity"])
