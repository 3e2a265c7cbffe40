"""What the proxy does not forward."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest

from meter import Credits, Meter
from meter.errors import Unavailable
from tests.proxy.proxied import proxied
from tests.proxy.serving import RawAnswer, connected, fetch, request
from tests.proxy.upstream import Asked, Reply

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


async def used(_: Asked, reply: Reply) -> None:
    await reply.json(USED)


class Away:
    """Carries no call."""

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> tuple[int, bytes, bool]:
        raise Unavailable("redis", "Redis is away")


def problem(answer: RawAnswer) -> tuple[int, str]:
    body = orjson.loads(answer.body)
    assert answer.one("content-type") == "application/problem+json"
    assert body["detail"] and body["status"] == answer.status
    return answer.status, body["code"]


@pytest.mark.parametrize(
    ("headers", "user", "expected"),
    [
        ([], None, (401, "MISSING_IDENTITY")),
        (["X-User-Id: other"], "user-1", (400, "INVALID_ID")),
        (["X-Estimated-Tokens: -1"], "user-1", (400, "INVALID_ESTIMATE")),
        (["X-Estimated-Tokens: 0.0000001"], "user-1", (402, "INSUFFICIENT_CREDITS")),
        (["X-Estimated-Tokens: 1000.1"], "user-1", (402, "INSUFFICIENT_CREDITS")),
        ([], "stranger", (402, "INSUFFICIENT_CREDITS")),
    ],
)
async def test_a_request_that_may_not_spend_does_not_reach_the_upstream(
    bank: Meter, headers: list[str], user: str | None, expected: tuple[int, str]
) -> None:
    if "0.0000001" in str(headers):
        await bank.deduct("user-1", "999.5")
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        for _ in range(2):  # the connection stays usable
            await client.send(request("POST", "/", *headers, body=b"{}", user=user))
            assert problem(await client.answer()) == expected
        assert proxy.upstream.asked == []
        assert (await proxy.balance())[1] == 0


async def test_a_suspended_account_is_403(bank: Meter) -> None:
    await bank.configure("user-1", suspended=True)
    async with proxied(used, bank) as proxy:
        assert problem(await fetch(proxy.port, request("GET", "/"))) == (403, "ACCOUNT_SUSPENDED")


async def test_when_nobody_can_say_it_is_503(bank: Meter) -> None:
    async with proxied(used, bank, credits_=Credits(Away())) as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))

    assert problem(answer) == (503, "METERING_UNAVAILABLE")
    assert answer.one("retry-after") == "1"
    assert proxy.upstream.asked == []


async def test_when_nobody_can_say_it_may_be_forwarded_unmetered(bank: Meter, caplog: pytest.LogCaptureFixture) -> None:
    async with proxied(used, bank, credits_=Credits(Away()), fail="open") as proxy:
        answer = await fetch(proxy.port, request("GET", "/"))

    assert (answer.status, answer.body, answer.one("x-credits-metered")) == (200, USED, "0")
    assert "forwarded unmetered: user user-1, estimate 100: Redis is away" in caplog.text


async def test_a_refused_upload_is_told_and_cut_off(bank: Meter) -> None:
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        head = request("POST", "/", "Content-Length: 10000000", user="stranger")
        await client.send(head + b"x" * 100_000)
        answer = await client.answer()
        client.writer.write(b"x" * 1_000_000)

        assert problem(answer) == (402, "INSUFFICIENT_CREDITS")
        assert answer.one("connection") == "close"
        assert await client.closed()


async def test_a_refused_upload_that_falls_asleep_is_cut_off(bank: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.proxy.problems.LINGER_SECONDS", 0.05)
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", "Transfer-Encoding: chunked", user="stranger"))
        assert problem(await client.answer()) == (402, "INSUFFICIENT_CREDITS")
        assert await client.closed()


async def test_a_client_that_asks_first_need_not_send_its_body(bank: Meter) -> None:
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 2", user="stranger"))
        assert problem(await client.answer()) == (402, "INSUFFICIENT_CREDITS")
        assert await client.closed()


async def test_a_client_that_asks_first_is_told_to_go_on(bank: Meter) -> None:
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 2"))
        assert await client.head() == (100, [])
        await client.send(b"{}")
        assert (await client.answer()).body == USED
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert (asked.body, asked.all("expect")) == (b"{}", [])


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "anything"])
async def test_an_upgrade_is_501(bank: Meter, protocol: str) -> None:
    upgrade = request(
        "GET",
        "/chat",
        f"Upgrade: {protocol}",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    async with proxied(used, bank) as proxy, connected(proxy.port) as client:
        await client.send(upgrade)
        assert problem(await client.answer()) == (501, "NOT_IMPLEMENTED")
        assert await client.closed()
        assert proxy.upstream.asked == []
        await proxy.settles_at(1000)


async def test_answers_tell_where_the_tightest_rate_limit_stands(bank: Meter) -> None:
    """What is served, beside what the upstream says for itself, and what is refused, with the wait."""

    async def limited(_: Asked, reply: Reply) -> None:
        await reply.json(USED, 'RateLimit: "theirs";r=9;t=9')

    await bank.configure("user-1", rate_limits={"rpm": {"kind": "requests", "limit": 2, "per_seconds": 3600}})
    async with proxied(limited, bank) as proxy, connected(proxy.port) as client:
        for left in (1, 0):
            await client.send(request("POST", "/", body=b"{}"))
            served = await client.answer()
            assert (served.status, served.one("ratelimit-policy")) == (200, '"rpm";q=2;w=3600')
            [stands] = served.all("ratelimit")
            assert stands.startswith(f'"rpm";r={left};t='), "ours alone: two would be one list of both"
        await client.send(request("POST", "/", body=b"{}"))
        refused = await client.answer()
        assert problem(refused) == (429, "RATE_LIMITED")
        wait = refused.one("retry-after")
        assert wait is not None and 0 < int(wait) <= 1800
        assert refused.one("ratelimit") == f'"rpm";r=0;t={wait}'
        await bank.configure("user-1", rate_limits={"rpm": None})
        await client.send(request("POST", "/", body=b"{}"))
        assert (await client.answer()).one("ratelimit") == '"theirs";r=9;t=9'
