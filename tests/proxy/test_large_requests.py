"""What is kept of large requests while they are read: not more than the owner allows, nor of one user than a share."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from meter import Meter
from meter.proxy.asking import READ_FIRST_BYTES
from meter.proxy.large_requests import LargeRequests
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

PATH = "/v1/chat/completions"
TOLD = b'{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}'
LARGE = b'{"max_tokens":20,"x":"' + b"x" * (READ_FIRST_BYTES + 300_000) + b'"}'


async def tell(_: Asked, reply: Reply) -> None:
    """Answers with the usage."""
    await reply.json(TOLD)


def test_one_user_has_a_share_and_all_together_the_whole() -> None:
    large = LargeRequests(bytes_max=100, request_bytes_max=20)
    with large.claim("a") as first, large.claim("a") as second, large.claim("b") as third:
        assert first.reach(20)
        assert first.reach(20)  # it is there already
        assert not second.reach(6)  # a quarter of 100 for one user
        assert second.reach(5)
        assert third.reach(20)
    with large.claim("a") as again:
        assert again.reach(25)
        assert not again.reach(26)
    claims = [large.claim(f"user-{number}") for number in range(5)]
    assert [claim.reach(24) for claim in claims] == [True] * 4 + [False]


@pytest.mark.parametrize("framed", [True, False])
async def test_a_request_for_which_there_is_no_memory_is_told_to_come_again(bank: Meter, framed: bool) -> None:
    """Several uploads at once of a user with few credits: what would not fit is refused before it is read."""
    slow = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await slow.wait()
        await reply.json(TOLD)

    def sent() -> bytes:
        if framed:
            return request("POST", PATH, body=LARGE)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)
        return request("POST", PATH, "Transfer-Encoding: chunked", body=chunked, length=False)

    most = READ_FIRST_BYTES * 24 // 10
    async with proxied(
        script, bank, bytes_per_token=10**6, request_bytes_max=most, request_memory_bytes=most, ttl_seconds=60
    ) as proxy:
        first = asyncio.ensure_future(fetch(proxy.port, sent()))
        while not proxy.upstream.asked:
            await asyncio.sleep(0.005)
        refused = await fetch(proxy.port, sent())
        assert (refused.status, b"too-many-large-requests" in refused.body) == (503, True)
        slow.set()
        assert (await first).status == 200
        assert (await fetch(proxy.port, sent())).status == 200
        await proxy.settles_at(1000 - 2 * 29)


async def test_what_is_packed_small_counts_as_large_as_it_is(bank: Meter) -> None:
    """A body of a kilobyte that unpacks to megabytes."""
    packed = gzip.compress(LARGE)
    assert len(packed) < 10_000
    async with proxied(tell, bank, bytes_per_token=10**6, request_bytes_max=len(LARGE) + 1) as proxy:
        headers = ("Content-Encoding: gzip",)
        assert (await fetch(proxy.port, request("POST", PATH, *headers, body=packed))).status == 200
        await proxy.settles_at(1000 - 29)
    async with proxied(
        tell, bank, bytes_per_token=10**6, request_bytes_max=len(LARGE), request_memory_bytes=len(LARGE)
    ) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, *headers, body=packed))
        assert (answer.status, proxy.upstream.asked) == (503, [])
        await proxy.settles_at(1000 - 29)


async def test_a_body_that_says_it_is_too_large_is_not_read(bank: Meter) -> None:
    head = request("POST", PATH, "Content-Length: 99999999", body=LARGE[: READ_FIRST_BYTES + 9000], length=False)
    async with proxied(tell, bank, request_bytes_max=READ_FIRST_BYTES * 3) as proxy:
        answer = await fetch(proxy.port, head)
        assert (answer.status, b"body-too-large" in answer.body) == (413, True)


async def test_a_large_body_that_stops_coming_is_given_up(bank: Meter) -> None:
    head = request("POST", PATH, "Content-Length: 3000000", body=LARGE[: READ_FIRST_BYTES + 9000], length=False)
    async with proxied(tell, bank, client_stall_seconds=0.2) as proxy:
        answer = await fetch(proxy.port, head)
        assert (answer.status, b"request-timeout" in answer.body) == (408, True)
        await proxy.settles_at(1000)
