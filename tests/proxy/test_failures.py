"""An upstream that is away, slow, or dies."""

from __future__ import annotations

import asyncio
import socket

import orjson
import pytest

from meter import Meter
from meter.charging.policy import Missing
from tests.proxy.proxied import proxied
from tests.proxy.serving import RawAnswer, connected, fetch, request
from tests.proxy.upstream import Asked, Reply

USAGE_EVENT = b'data: {"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'


async def never(_: Asked, __: Reply) -> None:
    await asyncio.Event().wait()


def problem(answer: RawAnswer) -> tuple[int, str]:
    body = orjson.loads(answer.body)
    assert answer.one("content-type") == "application/problem+json"
    return answer.status, body["code"]


async def test_an_upstream_that_is_away_is_502_and_costs_nothing(bank: Meter) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with proxied(never, bank, upstream=url) as proxy:
            answer = await fetch(proxy.port, request("POST", "/", body=b"{}"))
            await proxy.settles_at(1000)

    assert problem(answer) == (502, "UPSTREAM_UNREACHABLE")


async def test_a_name_that_nobody_has_is_502(bank: Meter) -> None:
    async with proxied(never, bank, upstream="http://nowhere.invalid") as proxy:
        assert problem(await fetch(proxy.port, request("GET", "/"))) == (502, "UPSTREAM_UNREACHABLE")
        await proxy.settles_at(1000)


async def test_an_upstream_that_hangs_up_is_502_and_asked_once(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        reply.die()

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", "/", body=b"{}"))
        await proxy.settles_at(1000)

    assert problem(answer) == (502, "UPSTREAM_UNREACHABLE")
    assert len(proxy.upstream.asked) == 1


async def test_an_upstream_that_speaks_no_http_is_502(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.raw(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with proxied(script, bank) as proxy:
        assert problem(await fetch(proxy.port, request("GET", "/"))) == (502, "UPSTREAM_UNREACHABLE")
        await proxy.settles_at(1000)


async def test_an_upstream_that_says_nothing_is_504(bank: Meter) -> None:
    async with proxied(never, bank, upstream_silence_seconds=0.2) as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))
        await proxy.settles_at(1000)

    assert problem(answer) == (504, "UPSTREAM_TIMEOUT")


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize(
    ("piece", "missing", "left"),
    [
        (USAGE_EVENT, Missing.RELEASE, 985),
        (b"data: {}\n\n", Missing.RELEASE, 1000),
        (b"data: {}\n\n", Missing.ESTIMATE, 900),
    ],
)
async def test_an_upstream_that_dies_in_the_middle_cuts_the_client_off(
    bank: Meter, framing: str, piece: bytes, missing: Missing, left: int
) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        if framing == "chunked":
            await reply.stream()
            await reply.chunk(piece)
        else:
            await reply.head(200, "Content-Type: text/event-stream", "Content-Length: 10000")
            await reply.raw(piece)
        reply.die()

    async with proxied(script, bank, on_missing_usage=missing) as proxy, connected(proxy.port) as client:
        await client.send(request("GET", "/"))
        answer = await client.answer()
        assert await client.closed()
        await proxy.settles_at(left)

    assert (answer.status, answer.body, answer.whole) == (200, piece, False)


async def test_an_upstream_that_falls_silent_in_the_middle_cuts_the_client_off(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(USAGE_EVENT)
        await never(_, reply)

    async with proxied(script, bank, upstream_silence_seconds=0.2) as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))
        await proxy.settles_at(985)

    assert (answer.body, answer.whole) == (USAGE_EVENT, False)


async def test_an_upstream_that_refuses_an_upload_early_is_heard(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        raise AssertionError("the body never ends")

    async with proxied(script, bank) as proxy:
        fake = proxy.upstream

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fake.asked.append(await fake._read_head(reader))
            await Reply(writer).json(b"{}", status=413)
            await reader.read()
            writer.close()

        fake.serve = refuse  # type: ignore[method-assign]
        async with connected(proxy.port) as client:
            await client.send(request("POST", "/", "Content-Length: 1000000", body=b"x", length=False))
            assert (await client.answer()).status == 413
        await proxy.settles_at(1000)


async def test_a_head_of_an_upstream_may_be_large_but_not_endless(bank: Meter) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(b"{}", "X-Large: " + "x" * int(asked.target[1:]))

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("GET", "/30000"))
        assert len(answer.one("x-large") or "") == 30000
        assert problem(await fetch(proxy.port, request("GET", "/200000"))) == (502, "UPSTREAM_UNREACHABLE")
        await proxy.settles_at(1000)
