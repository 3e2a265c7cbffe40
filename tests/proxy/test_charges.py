"""What a response through the proxy costs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from meter import Meter, Refusal
from meter.charging.policy import Missing
from meter.contract.answers import TransactionPage
from meter.usage import Format
from tests.proxy.proxied import proxied
from tests.proxy.serving import connected, fetch, request, until_it
from tests.proxy.upstream import Asked, Reply, Script

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


def json_script(body: bytes, *headers: str, status: int = 200) -> Script:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(body, *headers, status=status)

    return script


async def cost(bank: Meter, script: Script, *, left: object, **options: Any) -> None:
    async with proxied(script, bank, **options) as proxy:
        await fetch(proxy.port, request("GET", "/"))
        await proxy.settles_at(left)


async def test_the_usage_of_the_body_is_charged(bank: Meter) -> None:
    await cost(bank, json_script(USED), left=985)


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (["X-Credits-Actual: 3.5"], Decimal("996.5")),
        (["X-Price: 4"], 996),
        (["X-Price: 4", "X-Credits-Actual: 3"], 997),
        (["X-Credits-Actual: 0"], 985),
        (["X-Credits-Actual: much"], 985),
    ],
)
async def test_a_header_beats_the_body_and_stays_here(bank: Meter, headers: list[str], left: object) -> None:
    async with proxied(json_script(USED, *headers), bank, usage_header="X-Price") as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))
        await proxy.settles_at(left)

    assert not {"x-price", "x-credits-actual"} & {name for name, _ in answer.headers}


async def test_a_stream_costs_what_its_last_usage_says(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event('{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}')
        await reply.event('{"type":"message_delta","usage":{"output_tokens":15}}')
        await reply.chunk(b"")

    await cost(bank, script, left=960)


async def test_each_piece_of_a_stream_goes_on_at_once(bank: Meter) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(b"data: ha")
        await go_on.wait()
        await reply.chunk(b"lf\n\n")
        await reply.chunk(b"")

    async with proxied(script, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("GET", "/"))
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"data: ha"
        go_on.set()
        assert await client.chunk() == b"lf\n\n"
        assert await client.chunk() == b""


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_status_that_does_not_count_costs_nothing(bank: Meter, status: int) -> None:
    await cost(bank, json_script(USED, status=status), left=1000)


async def test_which_statuses_count_can_be_said(bank: Meter) -> None:
    await cost(bank, json_script(USED, status=429), left=985, charge_statuses={429})


@pytest.mark.parametrize(
    ("missing", "left"), [(Missing.RELEASE, 1000), (Missing.ESTIMATE, 900), (Missing.RESERVED, 900)]
)
async def test_what_missing_usage_costs_can_be_said(bank: Meter, missing: Missing, left: int) -> None:
    await cost(bank, json_script(b"{}"), left=left, on_missing_usage=missing)


async def test_the_usage_can_be_at_a_key(bank: Meter) -> None:
    await cost(
        bank,
        json_script(b'{"bill":{"credits":2.5}}'),
        left=Decimal("997.5"),
        usage_format=Format.KEY,
        usage_key="bill.credits",
    )


async def test_looking_has_a_limit(bank: Meter, caplog: pytest.LogCaptureFixture) -> None:
    await cost(bank, json_script(b'{"x":"' + b"x" * 2000 + b'",' + USED[1:]), left=1000, inspect_bytes_max=1000)
    assert "no usage was read: too large" in caplog.text


async def test_paths_that_are_not_metered_are_forwarded_for_free(bank: Meter) -> None:
    async with proxied(json_script(USED), bank, path_prefix="/v1", skip_paths=("/v1/models",)) as proxy:
        for path in ("/", "/v1/models", "/v2"):
            answer = await fetch(proxy.port, request("GET", path, user=None))
            assert (answer.status, answer.one("x-reservation-id")) == (200, None)
        assert (await fetch(proxy.port, request("OPTIONS", "/v1/chat", user=None))).status == 200
        assert (await fetch(proxy.port, request("GET", "/v1/models/../chat", user=None))).status == 401
        assert len(proxy.upstream.asked) == 4
        await proxy.settles_at(1000)


async def test_the_hold_is_there_before_the_upstream_hears_of_the_request(bank: Meter) -> None:
    held = []

    async def script(_: Asked, reply: Reply) -> None:
        held.append(await proxy.balance())
        await reply.json(USED)

    async with proxied(script, bank) as proxy:
        await fetch(proxy.port, request("GET", "/", "X-Estimated-Tokens: 300"))
        await proxy.settles_at(985)

    assert held == [(700, 300)]


async def test_a_hold_is_renewed_while_its_response_streams(bank: Meter) -> None:
    go_on = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await go_on.wait()
        await reply.event(USED.decode())
        await reply.chunk(b"")

    async with proxied(script, bank, ttl_seconds=1.5) as proxy, connected(proxy.port) as client:
        await client.send(request("GET", "/"))
        _, headers = await client.head()
        first = await bank.reservation(dict(headers)["x-reservation-id"])
        assert not isinstance(first, Refusal)

        async def is_renewed() -> bool:
            now = await bank.reservation(first.reservation_id)
            assert not isinstance(now, Refusal)
            return now.expires_at > first.expires_at

        await until_it(is_renewed, "the hold ends later")
        go_on.set()
        await client.chunk()
        await proxy.settles_at(985)


async def test_usage_above_the_hold_is_charged_as_far_as_credits_go(bank: Meter) -> None:
    await cost(bank, json_script(b'{"usage":{"input_tokens":5000,"output_tokens":1}}'), left=0)


async def test_p20_usage_above_the_hold_costs_no_more_than_the_hold_if_that_is_wanted(bank: Meter) -> None:
    await cost(bank, json_script(b'{"usage":{"input_tokens":500,"output_tokens":1}}'), left=900, over="hold_only")


async def test_p19_the_rows_of_a_charge_carry_the_request_id(bank: Meter) -> None:
    async with proxied(json_script(USED), bank) as proxy:
        await fetch(proxy.port, request("GET", "/", "X-Request-Id: req-1"))
        await proxy.settles_at(985)
    page = await bank.history("user-1", reference="req-1")
    assert isinstance(page, TransactionPage)
    assert [(row.kind, row.reference) for row in page.items] == [("commit", "req-1"), ("reserve", "req-1")]


async def test_u5_each_answer_tells_the_id_of_its_request(bank: Meter) -> None:
    """The upstream's own id of it stays; a refusal names the id in its document, too."""
    brought = "X-Request-Id: req-1"
    async with proxied(json_script(USED), bank) as proxy:
        assert (await fetch(proxy.port, request("GET", "/", brought))).all("x-request-id") == ["req-1"]
        assert len((await fetch(proxy.port, request("GET", "/"))).all("x-request-id")) == 1
        refused = await fetch(proxy.port, request("GET", "/", brought, user="stranger"))
        assert (refused.status, refused.all("x-request-id")) == (402, ["req-1"])
        assert refused.body.count(b'"request_id":"req-1"') == 1
    async with proxied(json_script(USED, "X-Request-Id: req_upstream"), bank) as proxy:
        assert (await fetch(proxy.port, request("GET", "/", brought))).all("x-request-id") == ["req_upstream"]


@pytest.mark.parametrize(
    ("header", "trailer", "charged"),
    [("", "29", 29), ("X-Credits-Actual: 0", "29", 29), ("X-Credits-Actual: 7", "29", 7)],
)
async def test_trailers_tell_what_headers_could_not_know(bank: Meter, header: str, trailer: str, charged: int) -> None:
    """K16: a header that tells 0 beats nothing."""

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream(*([header] if header else []))
        await reply.chunk(b"hi")
        await reply.raw(f"0\r\nX-Credits-Actual: {trailer}\r\n\r\n".encode())

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", "/", body=b"{}"))
        await proxy.settles_at(1000 - charged)

    assert answer.body == b"hi"
