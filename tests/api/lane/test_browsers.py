"""A web page of others cannot use a sidecar through the browser of whoever runs it (U2): both ways in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from meter.http.browsers import BrowserGuard, is_loopback
from tests.api.lane.answers import balance, deduct, livez, request
from tests.api.lane.ways import Ways

SPEND = json.dumps({"user_id": "rich", "amount": 1}).encode()
ADD = {"user_id": "rich", "amount": 1, "grant_id": "from a page"}
CROSS = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty")
LINK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")


def called(name: str, text: bytes) -> bytes:
    """The request, with another Host."""
    return text.replace(b"Host: meter", b"Host: " + name.encode())


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
@pytest.mark.parametrize("path", ["/credits/deduct", "/credits/add", "/credits/webhooks", "/test-clock"])
def test_u2_every_body_must_say_that_it_is_json(ways: Ways, path: str, content_type: str | None) -> None:
    headers = [] if content_type is None else [f"Content-Type: {content_type}"]
    method = "PUT" if path == "/test-clock" else "POST"
    text = request(method, path, *headers, f"Content-Length: {len(SPEND)}", body=SPEND)

    assert ways.same([text, balance("rich")]).statuses == [415, 200]


@pytest.mark.parametrize("headers", [CROSS, ("Sec-Fetch-Site: same-site",), ("Origin: https://evil.example",),
                                     ("Origin: null",), ("Origin: http://meter.evil.example",),
                                     ("Origin: http://meter", *CROSS[:0], "Origin: http://evil.example")],
                         ids=["no-cors", "same-site", "origin", "null", "longer", "two"])  # fmt: skip
@pytest.mark.parametrize(
    "text",
    [
        deduct("rich"),
        request("POST", "/credits/add", body=ADD),
        request("GET", "/credits/history/rich"),
        balance("rich"),
        request("PATCH", "/credits/users/rich", body={}),
        request("POST", "/gateway/logs", body={}),
        livez(),
    ],
    ids=["deduct", "add", "history", "balance", "patch", "logs", "livez"],
)
def test_u2_what_a_page_of_others_sends_is_403(ways: Ways, text: bytes, headers: tuple[str, ...]) -> None:
    start, _, rest = text.partition(b"\r\n")
    outcome = ways.same([b"\r\n".join([start, *(header.encode() for header in headers), rest]), balance("rich")])

    assert outcome.statuses == [403, 200]
    assert outcome.answers[0].json["type"] == "/problems/foreign-origin"


@pytest.mark.parametrize("headers", [("Origin: http://meter",), ("Sec-Fetch-Site: none",),
                                     ("Origin: https://METER", "Sec-Fetch-Site: same-origin"),
                                     ("Sec-Fetch-Site: same-origin",)])  # fmt: skip
def test_u2_our_own_page_and_who_types_the_address_are_served(ways: Ways, headers: tuple[str, ...]) -> None:
    texts = [deduct("rich", 1, *headers), balance("rich", *headers), livez(*headers)]

    assert ways.same(texts).statuses == [200] * 3


def test_u2_a_link_to_a_page_of_ours_may_be_followed_but_not_framed(ways: Ways) -> None:
    framed = tuple(line.replace("document", "iframe") for line in LINK)
    texts = [request("GET", "/docs", *LINK), request("GET", "/docs", *framed), request("POST", "/docs", *LINK)]

    assert ways.same(texts).statuses == [200, 403, 403]


def test_u2_a_gateway_passes_on_what_browsers_send(ways: Ways) -> None:
    """nginx and Traefik send the client's own headers along; what they call cannot be called by a page alone."""
    headers = ("Origin: https://shop.example", *CROSS, "X-User-Id: rich", "X-Estimated-Tokens: 1")
    texts = [request("GET", "/gateway/authorize", *headers), request("GET", "/gateway/authorize/v1?x=1", *headers)]

    assert ways.same(texts).statuses == [200, 200]
    preflight = request("OPTIONS", "/gateway/authorize", "Origin: https://evil.example",
                        "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-user-id")  # fmt: skip
    answer = ways.same([preflight]).answers[0]
    assert answer.status == 401
    assert not any(name.startswith("access-control") for name, _ in answer.headers)


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example",
                                  "localhost.evil.example", "evil.example.", "127.0.0.1.nip.io:80"])  # fmt: skip
@pytest.mark.parametrize(
    "text",
    [
        deduct("rich"),
        balance("rich"),
        livez(),
        request("POST", "/credits/add", body=ADD),
        request("GET", "/gateway/authorize", "X-User-Id: rich"),
    ],
    ids=["deduct", "balance", "livez", "add", "authorize"],
)
def test_u2_a_name_that_was_pointed_here_is_403(ways: Ways, text: bytes, name: str) -> None:
    outcome = ways.same([called(name, text), balance("rich")])

    assert outcome.statuses == [403, 200]
    assert outcome.answers[0].json["type"] == "/problems/host-not-allowed"


@pytest.mark.parametrize("name", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "[::1]", "sidecar",
                                  "host.docker.internal:8000", "meter.localhost", "10.1.2.3"])  # fmt: skip
def test_u2_our_names_are_served(ways: Ways, name: str) -> None:
    assert ways.same([called(name, deduct("rich")), called(name, livez())]).statuses == [200, 200]


def test_u2_names_and_origins_can_be_allowed() -> None:
    guard = BrowserGuard(is_local=True, hosts=["api.example"], origins=["https://app.example"])
    app, other = {b"host": b"api.example:443"}, {b"host": b"other.example"}

    assert guard.refusal(app, reads=False, passed_on=False) is None
    assert guard.refusal(other, reads=True, passed_on=False) is not None
    assert guard.refusal(app | {b"origin": b"https://app.example"}, reads=False, passed_on=False) is None
    assert guard.refusal(app | {b"origin": b"https://app.example:1"}, reads=False, passed_on=False) is not None


def test_a_form_of_our_own_page_that_tells_no_origin_is_served() -> None:
    """Chromium sends `Origin: null` from a page with `Referrer-Policy: no-referrer`, and says itself where it was."""
    guard = BrowserGuard(is_local=True)
    null = {b"host": b"127.0.0.1:8000", b"origin": b"null"}

    assert guard.refusal(null | {b"sec-fetch-site": b"same-origin"}, reads=False, passed_on=False) is None
    for site in (b"cross-site", b"same-site", b"none"):
        assert guard.refusal(null | {b"sec-fetch-site": site}, reads=False, passed_on=False) is not None
    assert guard.refusal(null, reads=False, passed_on=False) is not None


def test_u2_on_a_network_any_name_will_do() -> None:
    guard = BrowserGuard(is_local=False)

    assert guard.refusal({b"host": b"meter.corp.example"}, reads=False, passed_on=False) is None
    assert guard.refusal({b"host": b"a.b", b"origin": b"http://c.d"}, reads=False, passed_on=False) is not None
    hosts = ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "", "10.0.0.1", "meter")
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 5


PAGE = "Origin: https://app.example"
ASKS = (PAGE, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-api-key")


@pytest.fixture(scope="module")
def shared() -> Iterator[Ways]:
    """Both ways in to a sidecar that pages of one origin may call."""
    loop = asyncio.new_event_loop()
    found = Ways(loop, allowed_origins="https://App.example")
    found.start()
    yield found
    found.stop()
    loop.close()


@pytest.mark.parametrize("text", [deduct("rich", 1, PAGE), balance("rich", PAGE), livez(PAGE)])
def test_u2_a_page_of_an_allowed_origin_is_told_so(shared: Ways, text: bytes) -> None:
    """U2: the setting says that it may call, and a browser lets it only where the answer says so, too."""
    [answer] = shared.same([text]).answers

    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "https://app.example"
    assert "x-request-id" in (answer.header("access-control-expose-headers") or "")
    [plain] = shared.same([livez()]).answers
    assert plain.header("access-control-allow-origin") is None


def test_u2_its_refusals_can_be_read_too(shared: Ways) -> None:
    [answer] = shared.same([deduct("nobody", 1, PAGE)]).answers

    assert (answer.status, answer.header("access-control-allow-origin")) == (402, "https://app.example")


@pytest.mark.parametrize("path", ["/credits/deduct", "/credits/plans", "/me/balance"])
def test_u2_its_browser_may_ask_beforehand(shared: Ways, path: str) -> None:
    [answer] = shared.same([request("OPTIONS", path, *ASKS)]).answers

    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "https://app.example")
    assert "POST" in (answer.header("access-control-allow-methods") or "")
    [foreign] = shared.same([request("OPTIONS", path, *ASKS[1:], "Origin: https://other.example")]).answers
    assert (foreign.status, foreign.header("access-control-allow-origin")) == (403, None)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_u2_what_a_gateway_passes_on_is_answered_as_without(shared: Ways, method: str) -> None:
    """What its client's browser asks is for the API behind the gateway to answer."""
    identity = ("X-User-Id: rich", "X-Request-Id: r1")
    [answer] = shared.same([request(method, "/gateway/authorize", *identity, *ASKS)]).answers

    assert (answer.status, answer.header("access-control-allow-origin")) == (200, None)
