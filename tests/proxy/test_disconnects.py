"""Clients that leave: who pays, and that nothing stays held."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from meter import Meter
from meter.charging.policy import Missing
from tests.proxy.proxied import Proxied, balance, proxied
from tests.proxy.serving import connected, request, until
from tests.proxy.upstream import Asked, Reply

SILENT = b'data: {"text":"hi"}\n\n'
INPUT = b'data: {"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
FINAL = b'data: {"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'


class Talker:
    """An upstream that sends a first piece, waits, and sends a last one."""

    def __init__(self, first: bytes = SILENT, last: bytes = FINAL) -> None:
        self.go_on = asyncio.Event()
        self.finished = 0
        self._first, self._last = first, last

    async def __call__(self, _: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(self._first)
        await self.go_on.wait()
        await reply.chunk(self._last)
        await reply.chunk(b"")
        self.finished += 1


async def leave_in_the_middle(proxy: Proxied) -> None:
    async with connected(proxy.port) as client:
        await client.send(request("POST", "/", body=b"{}"))
        assert (await client.head())[0] == 200
        await client.chunk()
        client.leave()


async def test_the_response_is_drained_for_its_usage(bank: Meter) -> None:
    talker = Talker()
    async with proxied(talker, bank) as proxy:
        await leave_in_the_middle(proxy)
        assert (await proxy.balance())[1] == 100
        talker.go_on.set()
        await proxy.settles_at(985)

    assert talker.finished == 1


@pytest.mark.parametrize(
    ("on_disconnect", "on_missing_usage", "left"),
    [
        (Missing.ESTIMATE, Missing.RELEASE, 900),
        (Missing.RELEASE, Missing.ESTIMATE, 1000),
        (Missing.RELEASE, Missing.RESERVED, 1000),
        (Missing.RESERVED, Missing.RELEASE, 900),
    ],
)
async def test_c2_who_left_pays_by_the_policy_for_leaving_though_the_rest_was_drained(
    bank: Meter, on_disconnect: Missing, on_missing_usage: Missing, left: int
) -> None:
    talker = Talker(last=SILENT)
    policies: dict[str, Any] = {"on_disconnect": on_disconnect, "on_missing_usage": on_missing_usage}
    async with proxied(talker, bank, **policies) as proxy:
        await leave_in_the_middle(proxy)
        await until(lambda: proxy.clients == 0, "the proxy knows that the client left")
        talker.go_on.set()
        await proxy.settles_at(left)

    assert talker.finished == 1


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_c2_who_leaves_before_the_first_byte_has_left(bank: Meter, method: str, version: str) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await go_on.wait()
        await reply.json(b'{"text":"hi"}')

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        await client.send(request(method, "/").replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
        await proxy.upstream.was_asked()
        client.leave()
        await until(lambda: proxy.clients == 0, "the proxy knows that the client left")
        go_on.set()
        await proxy.settles_at(900)


async def test_c2_who_leaves_behind_the_last_byte_has_stayed(bank: Meter) -> None:
    """Nothing more comes but the end, which the client does not wait for."""
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(SILENT)
        await go_on.wait()
        await reply.chunk(b"")

    async with proxied(script, bank, on_missing_usage=Missing.RELEASE) as proxy:
        await leave_in_the_middle(proxy)
        await until(lambda: proxy.clients == 0, "the proxy knows that the client left")
        go_on.set()
        await proxy.settles_at(1000)


async def test_c2_an_upstream_that_breaks_off_while_it_is_drained_makes_leaving_no_cheaper(bank: Meter) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(SILENT)
        await go_on.wait()
        await reply.chunk(SILENT)
        reply.die()

    async with proxied(script, bank) as proxy:
        await leave_in_the_middle(proxy)
        await until(lambda: proxy.clients == 0, "the proxy knows that the client left")
        go_on.set()
        await proxy.settles_at(900)


@pytest.mark.parametrize(
    ("first", "on_disconnect", "left"),
    [
        (SILENT, Missing.ESTIMATE, 900),
        (SILENT, Missing.RELEASE, 1000),
        (SILENT, Missing.RESERVED, 900),
        (INPUT, Missing.ESTIMATE, 974),
    ],
)
@pytest.mark.parametrize("how", ["cancel", "drain"])
async def test_what_leaving_costs_when_the_usage_does_not_come(
    bank: Meter, how: str, first: bytes, on_disconnect: Missing, left: int
) -> None:
    talker = Talker(first)
    async with proxied(talker, bank, disconnect=how, drain_seconds=0.05, on_disconnect=on_disconnect) as proxy:
        await leave_in_the_middle(proxy)
        await proxy.settles_at(left)
        await until(lambda: proxy.upstream.open_connections == 0, "the upstream is let go")


async def test_draining_has_a_limit_in_bytes(bank: Meter) -> None:
    talker = Talker(last=SILENT * 10_000)
    async with proxied(talker, bank, drain_bytes_max=1000) as proxy:
        await leave_in_the_middle(proxy)
        talker.go_on.set()
        await proxy.settles_at(900)


async def test_a_client_that_leaves_before_the_response_pays_for_it(bank: Meter) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await go_on.wait()
        await reply.json(b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}')

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", body=b"{}"))
        await proxy.upstream.was_asked()
        client.leave()
        go_on.set()
        await proxy.settles_at(985)


async def test_a_client_that_leaves_before_the_response_may_cancel_it(bank: Meter) -> None:
    async def script(_: Asked, __: Reply) -> None:
        await asyncio.Event().wait()

    async with proxied(script, bank, disconnect="cancel") as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", body=b"{}"))
        await proxy.upstream.was_asked()
        client.leave()
        await proxy.settles_at(900)
        await until(lambda: proxy.upstream.open_connections == 0, "the upstream is let go")


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", ["cancel", "drain"])
async def test_a_request_that_breaks_off_costs_nothing_and_breaks_off_upstream(
    bank: Meter, how: str, framing: str
) -> None:
    async with proxied(Talker(), bank, disconnect=how) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", framing, body=b"5\r\nhello\r\n", length=False))
        asked = await proxy.upstream.was_asked()
        client.leave()
        await proxy.settles_at(1000)
        await until(lambda: proxy.upstream.open_connections == 0, "the upstream is let go")

    assert not asked.whole


async def test_an_upload_that_breaks_off_after_the_response_began_pays_for_it(bank: Meter) -> None:
    async with proxied(Talker(), bank) as proxy:
        fake = proxy.upstream

        async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fake.asked.append(await fake._read_head(reader))
            await Reply(writer).stream()
            await Reply(writer).chunk(SILENT)
            await reader.read()
            writer.close()

        fake.serve = answer_early  # type: ignore[method-assign]
        async with connected(proxy.port) as client:
            await client.send(request("POST", "/", "Content-Length: 1000", body=b"x", length=False))
            assert (await client.head())[0] == 200
            client.leave()
            await proxy.settles_at(900)


async def test_an_upstream_that_fails_after_the_client_left_is_nobodys_debt(bank: Meter) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await go_on.wait()
        reply.die()

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", body=b"{}"))
        await proxy.upstream.was_asked()
        client.leave()
        await until(lambda: proxy.clients == 0, "the proxy knows that the client left")
        go_on.set()
        await proxy.settles_at(1000)


async def test_an_unmetered_response_is_not_drained(bank: Meter) -> None:
    async with proxied(Talker(), bank, path_prefix="/v1") as proxy:
        await leave_in_the_middle(proxy)
        await until(lambda: proxy.upstream.open_connections == 0, "the upstream is let go")


async def test_a_client_that_takes_nothing_counts_as_gone(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        for _n in range(200):
            await reply.chunk(b"data: " + b"x" * 60_000 + b"\n\n")
        await reply.chunk(FINAL)
        await reply.chunk(b"")

    patience: dict[str, Any] = {"client_stall_seconds": 0.1, "drain_bytes_max": 10**9}
    async with proxied(script, bank, **patience) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", body=b"{}"))
        await proxy.upstream.was_asked()
        await proxy.settles_at(985)


async def test_a_hundred_clients_that_leave_are_each_charged_by_the_policy(bank: Meter) -> None:
    """A third of them is drained to the usage, a third has told usage and is cut, a third has not and is cut."""
    count = 99
    await bank.add("user-1", 100 * count)
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        kind = int(asked.target[1:]) % 3
        await reply.stream()
        await reply.chunk(INPUT if kind == 1 else SILENT)
        await go_on.wait()
        if kind != 0:
            await asyncio.Event().wait()
        await reply.chunk(FINAL)
        await reply.chunk(b"")

    async def leave(port: int, number: int) -> None:
        async with connected(port) as client:
            await client.send(request("POST", f"/{number}", body=b"{}"))
            assert (await client.head())[0] == 200
            await client.chunk()
            client.leave()

    async with proxied(script, bank, drain_seconds=1.0) as proxy:
        await asyncio.gather(*(leave(proxy.port, number) for number in range(count)))
        go_on.set()
        third = count // 3
        await proxy.settles_at(1000 + 100 * count - third * 15 - third * 26 - third * 100)
        await until(lambda: proxy.upstream.open_connections <= third, "cut upstream connections are closed")


async def test_a_proxy_that_stops_charges_what_it_saw(bank: Meter) -> None:
    async with contextlib.AsyncExitStack() as connections:
        async with proxied(Talker(INPUT), bank, patiently=False, grace_seconds=0.1) as proxy:
            client = await connections.enter_async_context(connected(proxy.port))
            await client.send(request("POST", "/", body=b"{}"))
            await client.head()
            await client.chunk()
        assert await balance(bank) == (974, 0)
