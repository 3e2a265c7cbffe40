"""What crosses the proxy, in either direction."""

from __future__ import annotations

import gzip

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import connected, fetch, request
from tests.proxy.upstream import Asked, Reply

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


async def used(_: Asked, reply: Reply) -> None:
    await reply.json(USED)


async def test_a_request_reaches_the_upstream_as_it_was_sent(bank: Meter) -> None:
    target = "/v1//chat/../c%2Fd/%C3%A9;p=1?q=a+b%20c&q=%zz&empty"
    async with proxied(used, bank) as proxy:
        sent = request("POST", target, "Content-Type: application/json", "X-Multi: a", "X-Multi: b", body=b'{"a": 1}')
        answer = await fetch(proxy.port, sent)
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert (answer.status, answer.body) == (200, USED)
    assert (asked.method, asked.target, asked.body) == ("POST", target, b'{"a": 1}')
    assert asked.all("x-multi") == ["a", "b"]
    assert asked.all("content-type") == ["application/json"]
    assert asked.all("content-length") == ["8"]


async def test_no_header_is_made_up_but_those_of_a_proxy(bank: Meter) -> None:
    async with proxied(used, bank) as proxy:
        await fetch(proxy.port, request("GET", "/"))
        asked = await proxy.upstream.was_asked()

    assert asked.headers == [
        ("host", f"127.0.0.1:{proxy.upstream.port}"),
        ("x-user-id", "user-1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "http"),
        ("via", "1.1 meter"),
    ]


async def test_headers_of_a_proxy_in_front_are_kept_and_added_to(bank: Meter) -> None:
    front = ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: api.example", "Via: 1.1 front"]
    async with proxied(used, bank) as proxy:
        await fetch(proxy.port, request("GET", "/", *front))
        asked = await proxy.upstream.was_asked()

    assert asked.all("x-forwarded-for") == ["9.9.9.9, 127.0.0.1"]
    assert asked.all("x-forwarded-proto") == ["https"]
    assert asked.all("x-forwarded-host") == ["api.example"]
    assert asked.all("via") == ["1.1 front, 1.1 meter"]


async def test_header_bytes_beyond_ascii_arrive(bank: Meter) -> None:
    async with proxied(used, bank) as proxy:
        sent = request("GET", "/").replace(b"Host:", b"X-Utf: \xc3\xa9\r\nX-Latin: \xe9\r\nHost:")
        assert (await fetch(proxy.port, sent)).status == 200
        asked = await proxy.upstream.was_asked()

    assert asked.all("x-utf") == ["\xc3\xa9"]
    assert asked.all("x-latin") == ["\xe9"]


async def test_hop_by_hop_headers_stay_where_they_are(bank: Meter) -> None:
    hops = [
        "Connection: keep-alive, X-Private",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "TE: trailers",
        "Trailer: X-T",
        "X-Private: 1",
    ]

    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(
            USED, "Connection: X-Theirs", "X-Theirs: 1", "Keep-Alive: 5", "Proxy-Authenticate: x", "Trailer: y"
        )

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("GET", "/", *hops))
        asked = await proxy.upstream.was_asked()

    hop_names = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "x-private"}
    assert not hop_names & {name for name, _ in asked.headers}
    assert not {"x-theirs", "keep-alive", "proxy-authenticate", "trailer"} & {name for name, _ in answer.headers}


async def test_headers_of_ours_cannot_be_sent_in(bank: Meter) -> None:
    forged = [
        "X-Reservation-Id: r0_forged",
        "X-Credits-Actual: 0",
        "X-Credits-Metered: 0",
        "X-Estimated-Tokens: 107",
        "X_Credits_Actual: 0",
    ]
    async with proxied(used, bank) as proxy:
        answer = await fetch(proxy.port, request("GET", "/", *forged))
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert not [
        name for name, _ in asked.headers if name.startswith(("x-credits", "x_credits", "x-reservation", "x-estimated"))
    ]
    assert answer.one("x-reservation-id") != "r0_forged"
    assert answer.one("x-credits-reserved") == "107"
    assert answer.one("x-credits-remaining") == "893"


async def test_the_identity_can_stay_here_and_the_host_can_go_on(bank: Meter) -> None:
    async with proxied(used, bank, forward_identity=False, preserve_host=True) as proxy:
        await fetch(proxy.port, request("GET", "/"))
        asked = await proxy.upstream.was_asked()

    assert asked.all("x-user-id") == []
    assert asked.all("host") == ["shop.example"]


async def test_a_path_of_the_upstream_comes_in_front(bank: Meter) -> None:
    async with proxied(used, bank) as inner, proxied(used, bank, upstream=inner.upstream.url + "/base/") as proxy:
        await fetch(proxy.port, request("GET", "//x?y"))
        assert (await inner.upstream.was_asked()).target == "/base//x?y"


async def test_a_response_comes_back_as_it_was_sent(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(
            USED,
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "Server: upstream/1",
            "Date: Sun, 22 Nov 2026 12:00:00 GMT",
            "Location: /elsewhere",
            status=307,
        )

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", "/", body=b"{}"))
        await proxy.settles_at(1000)

    assert (answer.status, answer.body, len(proxy.upstream.asked)) == (307, USED, 1)
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    assert (answer.one("server"), answer.one("location")) == ("upstream/1", "/elsewhere")
    assert answer.one("date") == "Sun, 22 Nov 2026 12:00:00 GMT"
    assert answer.one("content-length") == str(len(USED))


@pytest.mark.parametrize("coding", ["gzip", "identity", "br"])
async def test_an_encoded_body_is_not_touched(bank: Meter, coding: str, caplog: pytest.LogCaptureFixture) -> None:
    packed = {"gzip": gzip.compress(USED), "identity": USED, "br": b"\x0bnot really brotli"}[coding]

    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(packed, f"Content-Encoding: {coding}")

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("GET", "/", "Accept-Encoding: br, gzip;q=0.5, deflate, zstd, *"))
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(1000 if coding == "br" else 985)

    assert (answer.body, answer.one("content-encoding")) == (packed, coding)
    assert asked.all("accept-encoding") == ["gzip;q=0.5, deflate"]


@pytest.mark.parametrize(("sent", "forwarded"), [("br", "identity"), ("gzip;q=0, br", "gzip;q=0"), ("*", "identity")])
async def test_only_codings_that_can_be_read_are_asked_for(bank: Meter, sent: str, forwarded: str) -> None:
    async with proxied(used, bank, skip_paths=("/free",)) as proxy:
        await fetch(proxy.port, request("GET", "/", f"Accept-Encoding: {sent}"))
        assert (await proxy.upstream.was_asked()).all("accept-encoding") == [forwarded]
        await fetch(proxy.port, request("GET", "/free", f"Accept-Encoding: {sent}"))
        assert (await proxy.upstream.was_asked(2)).all("accept-encoding") == [sent]


async def test_a_chunked_body_is_streamed_chunked(bank: Meter) -> None:
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        await client.send(b"5\r\nhello\r\n")
        asked = await proxy.upstream.was_asked()  # its head is there before the body's end
        assert not asked.whole
        await client.send(b"6\r\n world\r\n0\r\n\r\n")
        assert (await client.answer()).status == 200

    assert asked.body == b"hello world"
    assert asked.all("transfer-encoding") == ["chunked"]
    assert asked.all("content-length") == []


async def test_a_large_body_is_streamed_with_its_length(bank: Meter) -> None:
    size = 1_000_000
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("PUT", "/", f"Content-Length: {size}", body=b"x", length=False))
        asked = await proxy.upstream.was_asked()
        assert not asked.whole
        await client.send(b"x" * (size - 1))
        assert (await client.answer()).status == 200

    assert len(asked.body) == size
    assert asked.all("content-length") == [str(size)]
    assert asked.all("transfer-encoding") == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "PURGE"])
async def test_any_method_passes(bank: Meter, method: str) -> None:
    async with proxied(used, bank) as proxy:
        assert (await fetch(proxy.port, request(method, "/"))).status == 200
        asked = await proxy.upstream.was_asked()

    assert (asked.method, asked.body) == (method, b"")


async def test_head_has_no_body_and_costs_nothing(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.head(200, "Content-Type: application/json", "Content-Length: 500")

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("HEAD", "/"), bodiless=True)
        await proxy.settles_at(1000)

    assert (answer.status, answer.one("content-length")) == (200, "500")


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_without_a_body_pass(bank: Meter, status: int) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.head(status, *(["Content-Length: 500"] if status == 304 else []))

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        for _ in range(2):  # the connection stays usable
            await client.send(request("GET", "/"))
            assert (await client.answer()).status == status
        await proxy.settles_at(1000)


async def test_a_response_that_ends_with_its_connection_passes(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.raw(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + USED)
        raise ConnectionError

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))
        await proxy.settles_at(985)

    assert (answer.body, answer.whole) == (USED, True)


async def test_connections_are_kept_on_both_sides(bank: Meter) -> None:
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        for _ in range(5):
            await client.send(request("POST", "/", body=b"{}"))
            assert (await client.answer()).status == 200
        assert proxy.upstream.open_connections == 1
        await proxy.settles_at(1000 - 5 * 15)
