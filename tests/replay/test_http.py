"""The connections: what comes back whole is an answer, all else says whether the request had left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from meter.replay.http import NoAnswer, NotSent, Pool, Response

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers every request with the same bytes, or as it is told."""

    def __init__(self, answer: bytes | Answer) -> None:
        self._answer = answer
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                if isinstance(self._answer, bytes):
                    writer.write(self._answer)
                else:
                    await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def pool_to(server: Server, path: str = "") -> AsyncIterator[Pool]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool = Pool(f"http://user@127.0.0.1:{listener.sockets[0].getsockname()[1]}{path}")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(listener.wait_closed)
        stack.callback(listener.close)
        stack.push_async_callback(asyncio.sleep, 0.01)
        stack.callback(pool.close)
        yield pool


async def test_a_connection_serves_one_request_after_another() -> None:
    server = Server(OK)
    async with pool_to(server, "/base/") as pool:
        for _ in range(3):
            assert await pool.request("POST", "/x", b"{}", 5) == Response(200, b"ok", "")
        await asyncio.gather(*(pool.request("GET", "/y", b"", 5) for _ in range(4)))

    assert 1 < server.connections <= 4
    assert server.requests[0].startswith(b"POST /base/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "response", "connections"),
    [
        (b"HTTP/1.1 503 X\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n", Response(503, b"", "7"), 1),
        (
            b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            Response(200, b"abc", ""),
            1,
        ),
        (b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 1\r\n\r\na", Response(200, b"a", ""), 2),
        (b"HTTP/1.1 103 Hints\r\n\r\n" + OK, Response(200, b"ok", ""), 1),
    ],
)
async def test_every_form_of_an_answer_is_read(answer: bytes, response: Response, connections: int) -> None:
    server = Server(answer)
    async with pool_to(server) as pool:
        for _ in range(2):
            assert await pool.request("GET", "/", b"", 5) == response

    assert server.connections == connections


async def test_an_answer_may_come_byte_by_byte() -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        for byte in OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with pool_to(Server(slowly)) as pool:
        assert await pool.request("GET", "/", b"", 5) == Response(200, b"ok", "")


@pytest.mark.parametrize("answer", [b"", OK[:-1], b"HTTP/1.1 200 OK\r\n"])
async def test_an_answer_that_breaks_off_is_none(answer: bytes) -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with pool_to(Server(break_off)) as pool:
        with pytest.raises(NoAnswer, match="the connection was closed"):
            await pool.request("GET", "/", b"", 5)


async def test_what_is_not_http_is_no_answer() -> None:
    async with pool_to(Server(b"SSH-2.0-OpenSSH\r\n")) as pool:
        with pytest.raises(NoAnswer, match="what came back is not HTTP"):
            await pool.request("GET", "/", b"", 5)


async def test_a_late_answer_is_never_taken_for_the_next_one() -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0 if len(server.requests) > 1 else 0.15)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % len(server.requests))

    server = Server(late)
    async with pool_to(server) as pool:
        with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
            await pool.request("GET", "/", b"", 0.05)
        assert (await pool.request("GET", "/", b"", 5)).body == b"2"
        await asyncio.sleep(0.15)
        assert (await pool.request("GET", "/", b"", 5)).body == b"3"

    assert server.connections == 2


async def test_a_connection_that_says_more_than_it_was_asked_is_dropped() -> None:
    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.sleep(0.02)
        writer.write(OK)

    server = Server(twice)
    async with pool_to(server) as pool:
        await pool.request("GET", "/", b"", 5)
        await asyncio.sleep(0.05)
        assert await pool.request("GET", "/", b"", 5) == Response(200, b"ok", "")

    assert server.connections == 2


async def test_an_old_idle_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.replay.http.IDLE_MAX_SECONDS", 0.0)
    server = Server(OK)
    async with pool_to(server) as pool:
        for _ in range(2):
            await pool.request("GET", "/", b"", 5)

    assert server.connections == 2


async def test_without_a_connection_nothing_was_sent() -> None:
    with pytest.raises(NotSent, match=r"127\.0\.0\.1:9: "):
        await Pool("http://127.0.0.1:9").request("GET", "/", b"", 5)
    with pytest.raises(NotSent):
        await Pool("http://no-such-host.invalid").request("GET", "/", b"", 5)
    async with pool_to(Server(OK)) as pool:
        with pytest.raises(NotSent, match="no connection within 0 s"):
            await pool.request("GET", "/", b"", 0)


async def test_tls_is_asked_for_by_the_scheme() -> None:
    server = Server(OK)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        with pytest.raises(NotSent):  # the server does not speak it
            await Pool(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}").request("GET", "/", b"", 0.2)

    assert server.requests == []
