"""Refusals in the words of each provider's clients (C10), and what owners see of usage that was not read (K18)."""

from __future__ import annotations

import orjson
import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply


async def nothing(_: Asked, reply: Reply) -> None:
    await reply.json(b"{}")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/chat/completions", ("error", "message")),
        ("/v1/messages", ("error", "message")),
        ("/v1beta/models/g:generateContent", ("error", "message")),
        ("/model/m/converse", ("message",)),
        ("/v2/chat", ("message",)),
        ("/api/chat", ("error",)),
    ],
)
async def test_a_refusal_can_be_read_by_the_providers_own_clients(
    bank: Meter, path: str, where: tuple[str, ...]
) -> None:
    """C10: and stays the problem that it is."""
    async with proxied(nothing, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", path, body=b"{}", user="poor"))

    told = problem = orjson.loads(answer.body)
    for name in where:
        told = told[name]
    assert (answer.status, told) == (402, problem["detail"])
    assert (problem["type"], problem["code"]) == ("/problems/insufficient-credits", "INSUFFICIENT_CREDITS")
    assert answer.one("x-amzn-errortype") == ("INSUFFICIENT_CREDITS" if path.startswith("/model/") else None)


async def test_other_refusals_and_faults_of_the_upstream_too(bank: Meter) -> None:
    async def dead(_: Asked, reply: Reply) -> None:
        reply.die()

    async with proxied(dead, bank) as proxy:
        for target, user, status in (("/v1/models", None, 401), ("/v1/models", "user-1", 502)):
            answer = await fetch(proxy.port, request("GET", target, user=user))
            assert (answer.status, bool(orjson.loads(answer.body)["error"]["message"])) == (status, True)
        answer = await fetch(proxy.port, request("POST", "/v1/responses", body=b"{}"))
        assert (answer.status, bool(orjson.loads(answer.body)["error"]["message"])) == (502, True)
        answer = await fetch(proxy.port, request("POST", "/mine", body=b"{}", user=None))
        assert "error" not in orjson.loads(answer.body)


async def test_what_was_not_read_is_counted_and_told_by_reason_and_provider(
    bank: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """K18."""

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(b"{}", *(["Content-Encoding: br"] if asked.target == "/v1/messages" else []))

    async with proxied(script, bank, probes_port=None, inspect_bytes_max=1) as proxy:
        app = proxy.server.config.app
        for path in ("/v1/messages", "/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions"):
            await fetch(proxy.port, request("POST", path, body=b"{}"))
        await proxy.settles_at(1000)
        unread = app._charger.unread  # type: ignore[union-attr]

    assert dict(unread) == {("coding", "anthropic"): 1, ("too large", "openai"): 3}
    assert caplog.text.count("no usage was read") == 3  # of three, the first and the second


@pytest.mark.parametrize("line", ["OPTIONS *", "POST *", "GET *"])
async def test_a_star_is_no_path(bank: Meter, line: str) -> None:
    """K14: one line, 400, and no traceback."""
    async with proxied(nothing, bank) as proxy:
        answer = await fetch(proxy.port, f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert (answer.status, orjson.loads(answer.body)["code"]) == (400, "INVALID_PATH")
