"""Connections to the upstream: kept, repeated, waited for, never mixed up (pool and connection of meter.proxy)."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from meter import Meter
from meter.proxy.connection import BUFFER_BYTES_MAX
from tests.proxy.proxied import Proxied, proxied
from tests.proxy.serving import RawAnswer, connected, fetch, request, until
from tests.proxy.upstream import Asked, Reply

EMPTY = b"{}"


async def echo(asked: Asked, reply: Reply) -> None:
    await reply.json(b'{"at":"%b"}' % asked.target.encode())


def code(answer: RawAnswer) -> str:
    return str(orjson.loads(answer.body)["code"])


async def ask(proxy: Proxied, method: str, target: str, body: bytes = b"") -> RawAnswer:
    return await fetch(proxy.port, request(method, target, body=body))


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints\r\nLink: </a>; rel=preload"])
async def test_interim_responses_stay_here(bank: Meter, interim: bytes) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.raw(b"HTTP/1.1 %b\r\n\r\n" % interim * 2)
        await reply.json(EMPTY)

    async with proxied(script, bank) as proxy:
        for _ in range(2):
            answer = await ask(proxy, "POST", "/", b"{}")
            assert (answer.status, answer.body, answer.all("link")) == (200, EMPTY, [])
        assert proxy.upstream.open_connections == 1


async def test_a_switch_of_protocols_is_502(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nsecret")

    async with proxied(script, bank) as proxy:
        answer = await ask(proxy, "GET", "/")
        await proxy.settles_at(1000)

    assert (answer.status, code(answer)) == (502, "UPSTREAM_UNREACHABLE")


@pytest.mark.parametrize("how", ["at once", "later"])
async def test_what_nobody_asked_for_reaches_nobody(bank: Meter, how: str) -> None:
    """A second response to one request would be the answer to whoever asks next on that connection."""
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
    sent = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.target != "/first":
            await echo(asked, reply)
        elif how == "at once":
            await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" + extra)
        else:
            await reply.json(EMPTY)
            await asyncio.sleep(0.05)
            await reply.raw(extra)
            sent.set()

    async with proxied(script, bank) as proxy:
        assert (await ask(proxy, "GET", "/first")).body == EMPTY
        if how == "later":
            await sent.wait()
            await until(lambda: not proxy.upstream.open_connections, "that connection ends")
        for _ in range(3):
            assert (await ask(proxy, "GET", "/next")).body == b'{"at":"/next"}'


async def test_a_connection_that_the_upstream_ends_is_not_used_again(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(EMPTY, "Connection: close")

    async with proxied(script, bank) as proxy:
        for _ in range(3):
            assert (await ask(proxy, "POST", "/", b"{}")).status == 200
        await until(lambda: not proxy.upstream.open_connections, "all of them are closed")


@pytest.mark.parametrize(("method", "asked_times", "status"), [("GET", 3, 200), ("PUT", 3, 200), ("POST", 2, 502)])
async def test_a_stale_connection_is_tried_again_where_that_does_no_harm(
    bank: Meter, method: str, asked_times: int, status: int
) -> None:
    count = 0

    async def script(_: Asked, reply: Reply) -> None:
        nonlocal count
        count += 1
        if count == 2:
            reply.die()
        else:
            await reply.json(EMPTY)

    async with proxied(script, bank) as proxy:
        assert (await ask(proxy, "GET", "/")).status == 200
        assert (await ask(proxy, method, "/", b"" if method == "GET" else b"{}")).status == status
        assert len(proxy.upstream.asked) == asked_times


async def test_a_new_connection_that_breaks_is_not_tried_again(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        reply.die()

    async with proxied(script, bank) as proxy:
        assert (await ask(proxy, "GET", "/")).status == 502
        assert len(proxy.upstream.asked) == 1


async def test_who_finds_no_connection_free_waits_for_one(bank: Meter) -> None:
    asked_all = 0

    async def script(asked: Asked, reply: Reply) -> None:
        nonlocal asked_all
        asked_all += 1
        await asyncio.sleep(0.02)
        await echo(asked, reply)

    async with proxied(script, bank, upstream_connections_max=2) as proxy:
        answers = await asyncio.gather(*(ask(proxy, "GET", f"/{n}") for n in range(9)))
        assert proxy.upstream.open_connections <= 2

    assert [answer.body for answer in answers] == [b'{"at":"/%d"}' % n for n in range(9)]
    assert asked_all == 9


async def test_who_waits_too_long_for_a_connection_is_told_504(bank: Meter) -> None:
    release = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(EMPTY)

    async with proxied(script, bank, upstream_connections_max=1, connect_timeout_seconds=0.1) as proxy:
        first = asyncio.create_task(ask(proxy, "GET", "/first"))
        await proxy.upstream.was_asked()
        late = await ask(proxy, "GET", "/late")
        release.set()
        assert (await first).status == 200
        assert (await ask(proxy, "GET", "/then")).status == 200  # the place of the one that gave up is not lost

    assert (late.status, code(late)) == (504, "UPSTREAM_TIMEOUT")


async def test_lost_connections_make_room(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        reply.die()

    async with proxied(script, bank, upstream_connections_max=1, connect_timeout_seconds=5) as proxy:
        answers = await asyncio.gather(*(ask(proxy, "POST", "/", b"{}") for _ in range(5)))

    assert {answer.status for answer in answers} == {502}


async def test_a_client_that_takes_nothing_stops_the_upstream(bank: Meter) -> None:
    """What is read ahead is bounded, and comes whole once it is taken."""
    size, piece = 64 * 2**20, b"x" * 2**20
    sent = 0

    async def script(_: Asked, reply: Reply) -> None:
        nonlocal sent
        await reply.head(200, "Content-Type: text/plain", f"Content-Length: {size}")
        while sent < size:
            await reply.raw(piece)
            sent += len(piece)

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("GET", "/"))
        await client.head()
        stood = -1
        while sent != stood:
            stood = sent
            await asyncio.sleep(0.2)
        assert sent < size - 4 * BUFFER_BYTES_MAX
        body = await client.reader.readexactly(size)

    assert body.count(b"x") == size


@pytest.mark.parametrize("framing", ["Transfer-Encoding: gzip", "Transfer-Encoding: identity", ""])
async def test_a_body_without_a_known_end_ends_with_its_connection(bank: Meter, framing: str) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.head(200, "Content-Type: text/plain", *([framing] if framing else []))
        await reply.raw(b"all of it")
        raise ConnectionError

    async with proxied(script, bank) as proxy:
        answer = await ask(proxy, "GET", "/")

    assert (answer.status, answer.body, answer.whole) == (200, b"all of it", True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=repr,
)
async def test_a_response_that_can_be_read_in_two_ways_is_502(bank: Meter, raw: bytes) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.raw(raw)
        raise ConnectionError

    async with proxied(script, bank) as proxy:
        assert (await ask(proxy, "GET", "/")).status == 502
        await proxy.settles_at(1000)


async def test_a_chunk_that_is_none_cuts_the_client_off(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream(content_type="text/plain")
        await reply.chunk(b"one")
        await reply.raw(b"zz\r\n")

    async with proxied(script, bank) as proxy:
        answer = await ask(proxy, "GET", "/")

    assert (answer.body, answer.whole) == (b"one", False)


async def test_trailers_are_no_headers(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream(content_type="text/plain")
        await reply.chunk(b"one")
        await reply.raw(b"0\r\nX-Late: 1\r\n\r\n")

    async with proxied(script, bank) as proxy:
        for _ in range(2):
            answer = await ask(proxy, "GET", "/")
            assert (answer.body, answer.whole, answer.all("x-late")) == (b"one", True, [])
        assert proxy.upstream.open_connections == 1


async def test_after_head_the_next_answer_is_its_own(bank: Meter) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        if asked.method == "HEAD":
            await reply.head(200, "Content-Length: 500")
        else:
            await echo(asked, reply)

    async with proxied(script, bank) as proxy:
        for _ in range(3):
            assert (await fetch(proxy.port, request("HEAD", "/"), bodiless=True)).status == 200
            assert (await ask(proxy, "GET", "/x")).body == b'{"at":"/x"}'


async def test_an_upload_that_the_upstream_cuts_off_is_502(bank: Meter) -> None:
    async with proxied(echo, bank) as proxy, connected(proxy.port) as client:
        fake = proxy.upstream

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fake.asked.append(await fake._read_head(reader))
            writer.transport.abort()

        fake.serve = cut  # type: ignore[method-assign]
        await client.send(request("POST", "/", "Content-Length: 1000000", body=b"x" * 1000, length=False))
        answer = await client.answer()
        await proxy.settles_at(1000)

    assert (answer.status, code(answer)) == (502, "UPSTREAM_UNREACHABLE")
