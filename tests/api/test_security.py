"""What is kept from who is not to know it, and what hostile bytes come to: over a socket and as plain ASGI."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from meter.api_key import new_api_key
from meter.app import create_app
from meter.config import load_settings
from tests.api.sidecar import Api, problem_members, serving
from tests.api.with_a_store import WAYS, at_noon
from tests.servers import real_server

SECRETS = {
    "redis_url": "redis://u:hunter2@h:1/0",
    "queue_url": "redis://u:hunter2@h:1/0",
    "store_url": "postgresql://u:hunter2@h/d",
    "gateway_secret": "hunter2",
    "code_secret": "hunter2",
    "notify": "apprise:discord://hunter2/hunter2",
}


@pytest.fixture(params=WAYS)
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Api]:
    with at_noon(Api, request, tmp_path) as found:
        found.post("/add", {"user_id": "u", "amount": 5})
        yield found


def test_settings_that_are_shown_have_no_secret() -> None:
    assert "hunter2" not in repr(load_settings(**SECRETS))


def test_a_key_is_not_taken_from_a_query_nor_repeated(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Servers in between write queries into their logs."""
    for path in ("/credits/deduct", "/credits/reservations", "/credits/quote"):
        neither_taken_nor_repeated(api, path, caplog)


def neither_taken_nor_repeated(api: Api, path: str, caplog: pytest.LogCaptureFixture) -> None:
    text = api.post("/keys", {"user_id": "u"}, status=201)["key"]
    assert api.call("POST", f"{path}?api_key={text}", {"amount": 1}).status == 422
    for body in ({"api_key": text * 9, "amount": 1}, {"api_key": [text], "amount": 1}, {"api_key": text[:-1] + "0"}):
        answer = api.call("POST", path, body)
        assert answer.status in (401, 422) and text[12:40].encode() not in answer.raw
    stranger = new_api_key("u", is_test=True)[0]
    assert problem_members(api.call("POST", path, {"api_key": stranger, "amount": 1}), 401, "invalid-key") == {}
    told = json.dumps(api.get("/events?limit=500"), default=str) + caplog.text
    assert text[12:40] not in told and stranger[12:40] not in told
    assert api.available("u") == 5


HOSTILE = (
    b'{"metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"metadata":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    b"[" * 100_000,
    b'{"amount":' + b"9" * 60_000 + b"}",
    b'{"amount":1e999999}',
    b'{"amount":-0.0000000000000000000000001}',
    b'{"user_id":"u{1}","amount":1}',
    b'{"user_id":"u\\u0000","amount":1}',
    b'{"amount":true}',
    b'{"amount":NaN}',
    b"\xff\xfe{}",
)


def test_a_hostile_body_is_refused_and_nothing_fails(api: Api) -> None:
    for path in ("/credits/deduct", "/credits/plans", "/credits/batch", "/credits/codes", "/credits/redeem"):
        for content in HOSTILE:
            answer = api.call("POST", path, content=content)
            assert answer.status in (400, 413, 422), (path, content[:60], answer.raw[:200])
    assert api.available("u") == 5


AMBIGUOUS = (
    "content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    "content-length: 5\r\ncontent-length: 6\r\n",
    "content-length: 5, 6\r\n",
    "content-length: +5\r\n",
    "transfer-encoding: chunked, identity\r\n",
    "transfer-encoding: xchunked\r\n",
    "transfer-encoding : chunked\r\n",
    "x-a: b\r\n c: d\r\ntransfer-encoding: chunked\r\n",
)


def test_a_request_whose_end_is_unclear_hides_no_other_one(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What one server takes for the body, the next may take for a request of somebody else's."""
    user = {"user_id": f"u-{secrets.token_hex(4)}", "amount": 5}
    hidden = json.dumps(user).encode()
    second = b"POST /credits/deduct HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    second += b"content-length: %d\r\n\r\n%b" % (len(hidden), hidden)
    url: str = request.getfixturevalue("redis_url")
    real_server(url)
    settings = load_settings(redis_url=url, store_url=f"sqlite:///{tmp_path}/m.db", redis_timeout_ms=10_000)
    with serving(create_app(settings)) as base, httpx2.Client(base_url=base) as http:
        api = Api(http, None)
        api.post("/add", user)
        place = urlsplit(base)
        for path in ("/credits/deduct", "/credits/plans"):
            for framing in AMBIGUOUS:
                head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{framing}\r\n"
                with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as connection:
                    connection.sendall(head.encode() + b"0\r\n\r\n" + second)
                    answered = b"".join(iter(lambda: connection.recv(65_536), b""))
                assert answered.startswith(b"HTTP/1.1 400 "), (path, framing, answered[:300])
        assert api.available(str(user["user_id"])) == 5
