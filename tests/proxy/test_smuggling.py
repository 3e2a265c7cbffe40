"""Requests that two parsers may read differently are refused on the socket, and their connection is closed."""

from __future__ import annotations

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import connected, fetch, request
from tests.proxy.upstream import Asked, Reply

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX-User-Id: user-1\r\n\r\n"


async def ok(_: Asked, reply: Reply) -> None:
    await reply.json(b"{}")


def raw(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*lines, "X-User-Id: user-1", "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    "sent",
    [
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: 6", "Transfer-Encoding: chunked", body=b"0\r\n\r\nG"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 6", body=b"0\r\n\r\nG"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2", body=b"xx"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 1", body=b"x"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: 1, 1", body=b"x"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: +1", body=b"x"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length: 0x1", body=b"x"),
        raw("POST / HTTP/1.1", "Host: a", "Content-Length : 1", body=b"x"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
        raw("POST / HTTP/1.1", "Host: a", "X: a\r\n folded: b"),
        raw("POST / HTTP/1.1", "Host: a", "X: a\x00b"),
        raw("POST / HTTP/1.1", "Host: a", "X: a\nY: b"),
        raw("POST / HTTP/1.1", "Host: a", "X: a\rY: b"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=b"1;\n\r\nx\r\n0\r\n\r\n"),
        raw("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=b"0x1\r\nx\r\n0\r\n\r\n"),
        raw("GET /\xe9 HTTP/1.1", "Host: a"),
        raw("GET / HTTP/1.1 HTTP/1.1", "Host: a"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=repr,
)
async def test_an_ambiguous_request_is_400_and_its_connection_ends(bank: Meter, sent: bytes) -> None:
    async with proxied(ok, bank) as proxy, connected(proxy.port) as client:
        await client.send(sent + SMUGGLED)
        answer = await client.answer()

        assert answer.status == 400
        assert await client.closed()
        assert all(asked.target != "/smuggled" for asked in proxy.upstream.asked)
        await proxy.settles_at(1000)


@pytest.mark.parametrize("target", ["127.0.0.1:80", "example.com:443"])
async def test_connect_is_refused(bank: Meter, target: str) -> None:
    async with proxied(ok, bank) as proxy, connected(proxy.port) as client:
        await client.send(raw(f"CONNECT {target} HTTP/1.1", f"Host: {target}"))
        answer = await client.answer()

        assert answer.status in (400, 501)
        assert await client.closed()
        assert proxy.upstream.asked == []


async def test_an_absolute_target_leads_nowhere_else(bank: Meter) -> None:
    async with proxied(ok, bank) as proxy:
        await fetch(proxy.port, request("GET", "http://evil.example/path?x"))
        asked = await proxy.upstream.was_asked()

    assert asked.target == "/path?x"
    assert asked.all("host") == [f"127.0.0.1:{proxy.upstream.port}"]


async def test_a_target_cannot_name_another_host(bank: Meter) -> None:
    async with proxied(ok, bank) as proxy:
        await fetch(proxy.port, request("GET", "//evil.example/@x"))
        assert (await proxy.upstream.was_asked()).target == "//evil.example/@x"


async def test_pipelined_requests_are_answered_one_by_one(bank: Meter) -> None:
    async def echo(asked: Asked, reply: Reply) -> None:
        await reply.json(b'{"at":"%b"}' % asked.target.encode())

    async with proxied(echo, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/1", body=b"{}") + request("GET", "/2") + request("GET", "/3"))
        bodies = [(await client.answer()).body for _ in range(3)]

    assert bodies == [b'{"at":"/1"}', b'{"at":"/2"}', b'{"at":"/3"}']
