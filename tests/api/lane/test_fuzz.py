"""Malformed requests, made by mutation of good ones, are answered alike by both ways in."""

from __future__ import annotations

from itertools import count, pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.lane.answers import balance, chunked, deduct, livez, request
from tests.api.lane.ways import Ways

_SMALL = b'{"user_id":"a-user","amount":0.01}'
_JSON = "Content-Type: application/json"

GOOD = (
    deduct("a-user", 0.01),
    deduct("nobody", 1, "Expect: 100-continue"),
    deduct("a-user", 0.01, "Idempotency-Key: a-user"),
    deduct("a-user", 0.01, "Connection: close"),
    balance("a-user"),
    balance("team%2Fme"),
    livez(),
    request("POST", "/credits/deduct", _JSON, "Transfer-Encoding: chunked", body=chunked(_SMALL[:9], _SMALL[9:])),
    request("POST", "/credits/reservations/a-user/commit", body={"amount": 1}),
    request("POST", "/credits/reservations", body={"user_id": "nobody", "amount": 1, "reservation_id": "a-user"}),
    request("GET", "/credits/explain/a-user?amount=1"),
    request("GET", "/gateway/authorize/v1/chat?q=1", "X-User-Id: a-user", "X-Estimated-Tokens: 0.01"),
    request("HEAD", "/gateway/authorize?mode=deduct&amount=0.01", "X-User-Id: a-user", "X-Request-Id: a-user"),
    request("POST", "/gateway/commit", "X-Reservation-Id: a-user", body={}),
)

TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.0",
    b"%2F",
    b"//",
    b"http://elsewhere",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: gzip",
    b"\r\nConnection: close",
    b"\r\nConnection: keep-alive",
    b"\r\nConnection: Upgrade\r\nUpgrade: h2c",
    b"\r\nExpect: 100-continue",
    b"\r\nContent-Type: text/plain",
    b"\r\nIdempotency-Key: a-user",
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A good request with up to three faults."""
    text = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 12)))
        kind = draw(st.sampled_from(("insert", "replace", "delete", "repeat", "flip")))
        if kind == "insert":
            text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at:]
        elif kind == "replace":
            text = text[:at] + draw(st.binary(max_size=4)) + text[end:]
        elif kind == "delete":
            text = text[:at] + text[end:]
        elif kind == "repeat":
            text = text[:end] + text[at:end] + text[end:]
        elif at < len(text):
            text = text[:at] + bytes([text[at] ^ (1 << draw(st.integers(0, 7)))]) + text[at + 1 :]
    return text


_NAMES = map("u{:05x}".format, count())


def _own(ways: Ways, requests: list[bytes]) -> bytes:
    """The requests on a user of their own with a few credits, so that no example depends on another one."""
    name = next(_NAMES)
    ways.same([request("POST", "/credits/add", body={"user_id": name, "amount": 5, "grant_id": "g"})])
    return b"".join(requests).replace(b"a-user", name.encode())


_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(requests=st.lists(_mutated(), min_size=1, max_size=3))
def test_malformed_requests_are_alike_byte_by_byte(ways: Ways, requests: list[bytes]) -> None:
    """Each byte alone, everything settled in between: nothing is left to time."""
    text = _own(ways, requests)

    ways.same([text[at : at + 1] for at in range(len(text))])


@_FUZZ
@given(requests=st.lists(_mutated(), min_size=1, max_size=4), data=st.data())
def test_malformed_requests_are_alike_in_pieces(ways: Ways, requests: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere, so that pipelined ones wait for each other."""
    text = _own(ways, requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))

    ways.same([text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end])
