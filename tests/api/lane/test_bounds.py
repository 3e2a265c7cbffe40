"""What one client may make the process keep or wait for (X6), and what is owed when rubbish follows (X11)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from meter.http.bounded import Bounds
from tests.api.lane.answers import balance, chunked, deduct, livez, request
from tests.api.lane.conftest import WAYS
from tests.api.lane.serving import Sidecar, wait_for
from tests.api.lane.ways import Ways

RUBBISH = b"\x16\x03\x01 this is no HTTP\r\n\r\n"
MANY = [f"X-{number}: v" for number in range(200)]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """The class of a way in."""
    return WAYS[request.param]


def bounded(request: pytest.FixtureRequest, way: Any, **bounds: Any) -> Sidecar:
    """A sidecar with bounds of its own."""
    sidecar = Sidecar(way)
    sidecar.app.state.bounds = Bounds(**bounds)
    sidecar.start()
    request.addfinalizer(sidecar.stop)
    return sidecar


@pytest.mark.parametrize(
    "text",
    [
        balance("rich", *MANY),
        livez(*MANY),
        balance("rich", "X-Long: " + "a" * 70_000),
        livez("X-Long: " + "a" * 70_000),
        request("GET", "/credits/balance/" + "a" * 70_000),
        request("POST", "/credits/deduct", *MANY, body={"user_id": "rich", "amount": 1}),
    ],
    ids=["many", "many, cold", "long", "long, cold", "target", "many with a body"],
)
@pytest.mark.parametrize("piece_bytes", [1_000, 2**20], ids=["in pieces", "whole"])
def test_x6_a_head_beyond_its_bounds_is_431_and_the_end(ways: Ways, text: bytes, piece_bytes: int) -> None:
    pieces = [text[at : at + piece_bytes] for at in range(0, len(text), piece_bytes)]

    outcome = ways.same([deduct("rich") + b"", *pieces, livez()])

    assert outcome.statuses == [200, 431]
    assert outcome.closed
    assert outcome.answers[-1].json["type"] == "/problems/head-too-large"


def test_x6_a_head_within_its_bounds_is_served(ways: Ways) -> None:
    text = deduct("rich", 1, *MANY[:90], "X-Long: " + "a" * 60_000)

    assert ways.same([text, text[:50_000], text[50_000:], livez()]).statuses == [200, 200, 200]


@pytest.mark.parametrize(
    ("start", "drop"),
    [(b"G", b"E"), (b"GET /livez HTTP/1.1\r\nHost: a\r\n", b"X"), (b"\r\n", b"\r\n"), (balance("rich")[:-2], b"Y")],
)
def test_x6_headers_that_never_end_are_408(request: pytest.FixtureRequest, way: Any, start: bytes, drop: bytes) -> None:
    """Dripping a byte now and then does not help."""
    sidecar = bounded(request, way, head_seconds=0.5)
    with sidecar.client() as client:
        client.send(livez()).answers(1)
        client.send(start)
        time.sleep(0.3)
        client.send(drop)
        answers = client.to_the_end()

    assert [answer.status for answer in answers] == [200, 408]


def test_x6_a_body_that_never_ends_is_408(request: pytest.FixtureRequest, way: Any) -> None:
    sidecar = bounded(request, way, head_seconds=0.5, body_seconds=0.5)
    with sidecar.client() as client:
        answers = client.send(deduct("rich")[:-3]).to_the_end()

    assert [answer.status for answer in answers] == [408]
    assert sidecar.available() == 1_000_000


def test_x6_who_waits_for_us_is_not_late(request: pytest.FixtureRequest, way: Any) -> None:
    sidecar = bounded(request, way, head_seconds=0.3, body_seconds=0.3)
    sidecar.redis.open = False
    with sidecar.client() as client:
        client.send(deduct("rich") + balance("one") + livez())
        wait_for(lambda: sidecar.redis.waiting, "the deduct waits")
        time.sleep(1.0)
        sidecar.redis.open = True
        assert client.answers(3)[-1].status == 200


def test_x6_a_connection_too_many_is_told_so(request: pytest.FixtureRequest, way: Any) -> None:
    sidecar = bounded(request, way, connections_max=2)
    with sidecar.client() as one, sidecar.client() as two:
        one.send(livez()).answers(1)
        two.send(livez()).answers(1)
        with sidecar.client() as third:
            answers = third.to_the_end()
        assert [answer.status for answer in answers] == [503]
        assert answers[0].header("retry-after")
        one.send(livez()).answers(2)
    sidecar.no_connections()
    assert sidecar.ask(livez()).status == 200


@pytest.mark.parametrize("hot", [balance("one"), deduct("rich"), livez()], ids=["balance", "deduct", "cold"])
@pytest.mark.parametrize("number", [1, 3])
def test_x11_what_came_before_rubbish_is_answered_first(ways: Ways, hot: bytes, number: int) -> None:
    outcome = ways.same([hot * number + RUBBISH + livez(), livez()])

    assert outcome.statuses == [200] * number + [400]
    assert outcome.closed
    assert outcome.answers[-1].json["type"] == "/problems/malformed-request"


@pytest.mark.parametrize("broken", [deduct("rich")[:-29], request("POST", "/credits/add", body={"a": 1})[:-8]])
def test_x11_a_broken_body_is_not_owed_an_answer_of_its_own(ways: Ways, broken: bytes) -> None:
    head = broken[: broken.index(b"\r\n\r\n") + 4].replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX-Length")
    outcome = ways.same([deduct("rich") + head + b"zz\r\n", livez()])

    assert outcome.statuses == [200, 400]
    ways.same([balance("rich")])


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_x12_an_upgrade_is_answered_as_without(ways: Ways, cold: bool, protocol: str) -> None:
    headers = ("Connection: Upgrade", f"Upgrade: {protocol}", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    text = livez(*headers) if cold else deduct("rich", 1, *headers)

    assert ways.same([text + balance("rich"), livez(), text[:30], text[30:]]).statuses == [200] * 4


def test_x12_an_upgrade_with_a_chunked_body_is_answered_as_without(ways: Ways) -> None:
    body = chunked(b'{"user_id":"rich",', b'"amount":1}')
    text = request("POST", "/credits/deduct", "Connection: upgrade", "Upgrade: websocket",
                   "Content-Type: application/json", "Transfer-Encoding: chunked", body=body)  # fmt: skip

    assert ways.same([text + text, livez()]).statuses == [200] * 3
