"""X17: what a client writes into a path or into `Connection` leads past nothing."""

from __future__ import annotations

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

USED = b'{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


async def used(_: Asked, reply: Reply) -> None:
    await reply.json(USED)


@pytest.mark.parametrize(
    "target", ["/v1%00/chat", "/public%00/../v1/chat", "/%00", "/a%0d%0ab", "/v1%09/chat", "/x%1f", "/x%7f"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_x17_a_path_with_control_characters_is_400(bank: Meter, method: str, target: str) -> None:
    async with proxied(used, bank, path_prefix="/v1") as proxy:
        answer = await fetch(proxy.port, request(method, target))

        assert (answer.status, proxy.upstream.asked) == (400, [])
        assert b'"type":"/problems/invalid-path"' in answer.body
        await proxy.settles_at(1000)


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_a_target_without_a_path_is_400(bank: Meter, method: str) -> None:
    async with proxied(used, bank) as proxy:
        assert (await fetch(proxy.port, request(method, "*"))).status == 400
        assert proxy.upstream.asked == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/chat",
        "//v1/chat",
        "/%2fv1/chat",
        "/./v1/chat",
        "/x/../v1/chat",
        "/x/%2e%2e/v1/chat",
        "/x/..%2fv1/chat",
        "/x/..%5cv1/chat",
        "/v1;x/chat",
        "/v1%3bx/chat",
        "/V1/chat",
        "/%56%31/chat",
        "/%2576%2531/chat",
        "/v1%c0%afchat",
        "/%c1%b6%c0%b1/chat",
        "/x/..%c0%afv1/chat",
        "/v1%3f/chat",
        "/v1%23/chat",
        "/v1./chat",
        "/v1%20/chat",
        "/v1%2500/chat",
        "/%ef%bd%961/chat",
    ],
)
async def test_x17_every_spelling_of_a_metered_path_is_charged_and_passed_on_as_it_is(bank: Meter, target: str) -> None:
    async with proxied(used, bank, path_prefix="/v1") as proxy:
        refused = await fetch(proxy.port, request("GET", target, user=None))
        assert (refused.status, proxy.upstream.asked) == (401, [])

        assert (await fetch(proxy.port, request("GET", target))).status == 200
        assert [asked.target for asked in proxy.upstream.asked] == [target]
        await proxy.settles_at(985)


@pytest.mark.parametrize("target", ["/v2/chat", "/v10/chat", "/public;v=1", "/public//x", "/public/%c3%a9", "/a%20b"])
async def test_other_paths_stay_free(bank: Meter, target: str) -> None:
    async with proxied(used, bank, path_prefix="/v1") as proxy:
        assert (await fetch(proxy.port, request("GET", target, user=None))).status == 200


@pytest.mark.parametrize("header", ["X-User-Id", "x-user-id", "close, X-User-Id", "X-Private, X-USER-ID"])
async def test_x17_connection_does_not_strip_the_identity(bank: Meter, header: str) -> None:
    async with proxied(used, bank) as proxy:
        assert (await fetch(proxy.port, request("GET", "/", f"Connection: {header}", "X-Private: 1"))).status == 200
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert asked.all("x-user-id") == ["user-1"]
    assert asked.all("connection") == []
    assert bool(asked.all("x-private")) != ("Private" in header)  # another header that it names is for this hop


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Account", "user-1"),
        ("Authorization", "Bearer x"),
        ("Cookie", "a=1"),
        ("X-Request-Id", "one"),
        ("X-Forwarded-Proto", "https"),
        ("Content-Type", "application/json"),
        ("Accept-Encoding", "gzip"),
        ("Cache-Control", "no-store"),
    ],
)
async def test_x17_nor_what_is_for_the_whole_way(bank: Meter, name: str, value: str) -> None:
    """Above all not the accepted codings: the answer might come in one whose usage nobody reads."""
    async with proxied(used, bank, user_id_header="X-Account") as proxy:
        sent = request("GET", "/", f"Connection: {name}", "X-Account: user-1", user=None)
        sent = sent if name == "X-Account" else sent.replace(b"\r\nX-Acc", f"\r\n{name}: {value}\r\nX-Acc".encode())
        assert (await fetch(proxy.port, sent)).status == 200
        asked = await proxy.upstream.was_asked()

    assert asked.all(name.lower()) == [value]
