"""What is held for a request through the proxy, and what is charged where no usage is told (K3, K17)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

TOLD = b'{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}'
PATH = "/v1/chat/completions"


@pytest.mark.parametrize("estimate", [None, "1", "29", "0.001", "0"])
@pytest.mark.parametrize("body", [b"{}", b'{"max_tokens":29,"messages":[]}'])
async def test_no_more_is_served_at_once_than_there_is(bank: Meter, estimate: str | None, body: bytes) -> None:
    """K17: 100 credits, 20 requests at once of 29 each, whatever the client estimates."""
    await bank.deduct("user-1", 900)
    all_there = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await all_there.wait()
        await reply.json(TOLD)

    async with proxied(script, bank) as proxy:
        headers = [] if estimate is None else [f"X-Estimated-Tokens: {estimate}"]
        calls = [
            asyncio.ensure_future(fetch(proxy.port, request("POST", PATH, *headers, body=body))) for _ in range(20)
        ]
        while sum(call.done() for call in calls) + len(proxy.upstream.asked) < 20:
            await asyncio.sleep(0.005)
        all_there.set()
        answers = await asyncio.gather(*calls)
        served = sum(answer.status == 200 for answer in answers)
        assert {answer.status for answer in answers} == {200, 402}
        assert 1 <= served <= 100 // 29
        await proxy.settles_at(100 - 29 * served)


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_hold_of_a_large_request_grows_when_it_is_read(bank: Meter, chunked: bool) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(TOLD)

    small, large = b'{"max_tokens":%d,"x":"' % 5000, b"x" * 1_200_000 + b'"}'
    body = small + large
    framing = ["Transfer-Encoding: chunked"] if chunked else []
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with proxied(script, bank, bytes_per_token=10_000) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, *framing, body=sent, length=not chunked))
        assert answer.status == 402  # 1000 are there
        await proxy.settles_at(1000)
        await bank.add("user-1", 9000)
        answer = await fetch(proxy.port, request("POST", PATH, *framing, body=sent, length=not chunked))
        assert answer.status == 200
        await proxy.settles_at(9971)


@pytest.mark.parametrize(
    ("options", "estimate", "charged"),
    [
        ({}, "1", 0),
        ({"missing_usage_minimum": 7}, "1", 7),
        ({"on_missing_usage": "estimate"}, "1", 100),
        ({"on_missing_usage": "estimate", "missing_usage_minimum": 150}, "1", 150),
        ({"on_missing_usage": "estimate", "believe_estimate": True}, "1", 1),
        ({"on_missing_usage": "estimate", "believe_estimate": True, "missing_usage_minimum": 50}, "1", 50),
        ({"on_missing_usage": "reserved"}, "300", 300),
        ({"on_missing_usage": "reserved", "missing_usage_minimum": 400}, "300", 400),
    ],
)
async def test_the_missing_usage_has_a_floor_of_the_owners(
    bank: Meter, options: dict[str, Any], estimate: str, charged: int
) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(b"{}")

    async with proxied(script, bank, **options) as proxy:
        await fetch(proxy.port, request("POST", PATH, f"X-Estimated-Tokens: {estimate}", body=b"{}"))
        await proxy.settles_at(1000 - charged)
