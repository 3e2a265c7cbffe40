"""Headers that were read once are known again by their bytes, and mean what they meant; how many is bounded."""

from __future__ import annotations

import pytest

from meter.api.lane.cycle import Found
from meter.api.lane.plain import KEPT_BYTES_MAX, KEPT_MAX, PlainReader
from meter.http.bounded import Bounds
from tests.api.lane.answers import balance, deduct, request
from tests.api.lane.ways import Ways

FOUND = Found(lambda request, respond: None, {})


def reader() -> PlainReader:
    """A reader that takes everything for hot."""
    return PlainReader(lambda method, target: FOUND, lambda headers: b"origin" not in headers, 4096)


def test_known_headers_in_front_of_another_request_are_read_for_that_one(ways: Ways) -> None:
    """The same block behind another line: a GET that announces a body, a longer body, one that has not come yet."""
    text = deduct("rich", 1)
    block = text[text.index(b"\r\n") : text.index(b"\r\n\r\n") + 4]
    body = text[text.index(b"\r\n\r\n") + 4 :]
    get = b"GET /credits/balance/rich HTTP/1.1" + block + body
    short = b"POST /credits/deduct HTTP/1.1" + block + body[:-3]

    outcome = ways.same([text, get, text, short, body[-3:], balance("rich"), text + balance("rich")])

    assert outcome.statuses == [200] * 7


@pytest.mark.parametrize(
    "header",
    [
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Connection: close",
        "A: 1\r\nA: 2",
        "Content-Length: 1x",
        "Content-Length: 4097",
        "Origin: https://page.example",
    ],
)
def test_what_is_not_plain_is_not_kept(header: str) -> None:
    plain = reader()
    text = request("POST", "/credits/deduct", header, body={"user_id": "rich", "amount": 1})

    for _ in range(2):
        assert plain.read(text, Bounds()) is None
    assert not plain._blocks


def test_a_bound_that_is_smaller_now_holds_for_headers_that_are_new() -> None:
    assert reader().read(deduct("rich", 1, "A: b", "C: d"), Bounds(headers_max=3)) is None
    assert reader().read(deduct("rich", 1), Bounds(head_max_bytes=20)) is None


def test_headers_that_never_come_again_take_a_bounded_place() -> None:
    plain = reader()
    for number in range(3 * KEPT_MAX):
        assert plain.read(deduct("rich", 1, f"X-Other: {number}"), Bounds()) is not None
        assert len(plain._blocks) <= KEPT_MAX
    plain._blocks.clear()
    for header in ("Idempotency-Key: k", "X-Request-Id: r", "Traceparent: t", f"X-Long: {'a' * KEPT_BYTES_MAX}"):
        assert plain.read(deduct("rich", 1, header), Bounds()) is not None
    assert not plain._blocks
