"""Both ways in give the same answers: requests one by one, whole and byte by byte, well made and not."""

from __future__ import annotations

import pytest

from tests.api.lane.answers import balance, chunked, deduct, livez, request
from tests.api.lane.ways import BODY_MAX, Ways

JSON = "Content-Type: application/json"
CHUNKS = "Transfer-Encoding: chunked"
RESERVATIONS = "/credits/reservations"
SMALL = b'{"user_id":"rich","amount":1}'
LONG = b'{"user_id":"rich","amount":1,"description":"' + b"x" * BODY_MAX + b'"}'

REQUESTS = {
    "deduct": deduct("rich"),
    "deduct by a stranger": deduct("nobody"),
    "deduct of nonsense": deduct("rich", "much"),
    "unknown field": request("POST", "/credits/deduct", body={"user_id": "rich", "amount": 1, "tip": 2}),
    "not json": request("POST", "/credits/deduct", body=b"{"),
    "no body": request("POST", "/credits/deduct"),
    "empty body": request("POST", "/credits/deduct", body=b""),
    "wrong media type": request("POST", "/credits/deduct", "Content-Length: 29", "Content-Type: text/xml", body=SMALL),
    "no media type": request("POST", "/credits/deduct", "Content-Length: 29", body=SMALL),
    "idempotency key": deduct("rich", 2, "Idempotency-Key: once"),
    "idempotency key again": deduct("rich", 2, "Idempotency-Key: once"),
    "idempotency key with another body": deduct("rich", 3, "Idempotency-Key: once"),
    "broken idempotency key": deduct("rich", 2, 'Idempotency-Key: a"b'),
    "empty idempotency key": deduct("rich", 2, "Idempotency-Key:"),
    "reserve": request("POST", RESERVATIONS, body={"user_id": "rich", "amount": 5, "reservation_id": "r-1"}),
    "reserve again": request("POST", RESERVATIONS, body={"user_id": "rich", "amount": 5, "reservation_id": "r-1"}),
    "reserve without an id": request("POST", RESERVATIONS, body={"user_id": "rich", "amount": 5}),
    "extend": request("POST", RESERVATIONS + "/r-1/extend", body={"ttl_seconds": 60}),
    "commit": request("POST", RESERVATIONS + "/r-1/commit", body={"amount": 4}),
    "commit again": request("POST", RESERVATIONS + "/r-1/commit", body={"amount": 4}),
    "commit with another amount": request("POST", RESERVATIONS + "/r-1/commit", body={"amount": 5}),
    "release after commit": request("POST", RESERVATIONS + "/r-1/release"),
    "unknown reservation": request("POST", RESERVATIONS + "/none/release"),
    "unknown verb": request("POST", RESERVATIONS + "/r-1/steal"),
    "impossible reservation": request("POST", RESERVATIONS + "/a%20b/commit"),
    "reservation id too long": request("POST", f"{RESERVATIONS}/{'r' * 129}/commit"),
    "balance": balance("rich"),
    "balance of a stranger": balance("nobody"),
    "balance of a user in a team": balance("team/me"),
    "balance of an escaped user": balance("team%2Fme"),
    "balance of an impossible user": balance("%7Bx%7D"),
    "balance of a user too long": balance("u" * 129),
    "balance with a body": request("GET", "/credits/balance/rich", body={"a": 1}),
    "balance with a query": balance("rich?at=2031-01-01T00:00:00Z"),
    "balance with an empty query": balance("rich?"),
    "balance with a fragment": balance("rich#x"),
    "balance of nobody": balance(""),
    "slash after": request("POST", "/credits/deduct/", body=SMALL),
    "two slashes": request("POST", "//credits/deduct", body=SMALL),
    "two slashes inside": request("POST", "/credits//deduct", body=SMALL),
    "dots": request("POST", "/credits/../credits/deduct", body=SMALL),
    "escape in the path": request("POST", "/credits/%64educt", body=SMALL),
    "upper case path": request("POST", "/CREDITS/DEDUCT", body=SMALL),
    "query on a hot path": request("POST", "/credits/deduct?x=1", body=SMALL),
    "absolute target": request("POST", "http://elsewhere/credits/deduct", body=SMALL),
    "absolute target without path": request("GET", "http://elsewhere"),
    "asterisk": request("OPTIONS", "*"),
    "authority": request("CONNECT", "meter:80"),
    "head": request("HEAD", "/credits/balance/rich"),
    "head of a post": request("HEAD", "/credits/deduct"),
    "options": request("OPTIONS", "/credits/deduct"),
    "get of a post": request("GET", "/credits/deduct"),
    "delete": request("DELETE", "/credits/balance/rich"),
    "unknown method": request("BREW", "/credits/deduct"),
    "lower case method": request("post", "/credits/deduct", body=SMALL),
    "nothing there": request("GET", "/nothing"),
    "cold": livez(),
    "http 1.0": request("GET", "/credits/balance/rich", version="1.0"),
    "http 1.0 keep-alive": request("GET", "/credits/balance/rich", "Connection: keep-alive", version="1.0"),
    "http 2.0": request("GET", "/credits/balance/rich", version="2.0"),
    "http 1.2": request("GET", "/credits/balance/rich", version="1.2"),
    "no version": b"GET /credits/balance/rich\r\n\r\n",
    "preface of http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare line feeds": b"GET /credits/balance/rich HTTP/1.1\nHost: meter\n\n",
    "empty lines first": b"\r\n\r\n" + balance("rich"),
    "no host": b"GET /credits/balance/rich HTTP/1.1\r\n\r\n",
    "connection close": deduct("rich", 1, "Connection: close"),
    "connection close of a refusal": request("POST", "/credits/deduct", "Connection: close", body=b"{"),
    "continue": deduct("rich", 1, "Expect: 100-continue"),
    "continue without a body": balance("rich", "Expect: 100-continue"),
    "continue in capitals": deduct("rich", 1, "EXPECT: 100-Continue"),
    "another expectation": deduct("rich", 1, "Expect: 200-maybe"),
    "continue of a long body": request("POST", "/credits/deduct", "Expect: 100-continue", body=LONG),
    "long body": request("POST", "/credits/deduct", JSON, body=LONG),
    "long body in chunks": request("POST", "/credits/deduct", JSON, CHUNKS, body=chunked(LONG[:999], LONG[999:])),
    "long body, cold": request("POST", "/credits/add", JSON, body=LONG),
    "body of the longest length": request("POST", "/credits/deduct", body=SMALL + b" " * (BODY_MAX - len(SMALL))),
    "chunks": request("POST", "/credits/deduct", JSON, CHUNKS, body=chunked(SMALL[:7], SMALL[7:])),
    "chunk extension": request("POST", "/credits/deduct", JSON, CHUNKS, body=b"1d;a=b\r\n" + SMALL + b"\r\n0\r\n\r\n"),
    "chunks with trailers": request(
        "POST", "/credits/deduct", JSON, CHUNKS, body=chunked(SMALL, trailers=b"X-Sum: 1\r\nX-Other: 2\r\n")
    ),
    "no chunks": request("POST", "/credits/deduct", JSON, CHUNKS, body=chunked()),
    "broken chunk": request("POST", "/credits/deduct", JSON, CHUNKS, body=b"zz\r\n" + SMALL),
    "negative chunk": request("POST", "/credits/deduct", JSON, CHUNKS, body=b"-5\r\n" + SMALL),
    "chunk of 2^64": request("POST", "/credits/deduct", JSON, CHUNKS, body=b"10000000000000000\r\n" + SMALL),
    "length and chunks": request("POST", "/credits/deduct", "Content-Length: 29", CHUNKS, body=chunked(SMALL)),
    "chunks not last": request("POST", "/credits/deduct", CHUNKS + ", gzip", body=chunked(SMALL)),
    "unknown coding": request("POST", "/credits/deduct", "Transfer-Encoding: gzip", body=SMALL),
    "chunks twice": request("POST", "/credits/deduct", CHUNKS, CHUNKS, body=chunked(SMALL)),
    "length of words": request("POST", "/credits/deduct", "Content-Length: ten", body=SMALL),
    "length below zero": request("POST", "/credits/deduct", "Content-Length: -1", body=SMALL),
    "length with a plus": request("POST", "/credits/deduct", "Content-Length: +29", body=SMALL),
    "length too large": request("POST", "/credits/deduct", "Content-Length: 99999999999999999999", body=SMALL),
    "length too short": request("POST", "/credits/deduct", "Content-Length: 20", body=SMALL),
    "lengths that differ": request("POST", "/credits/deduct", "Content-Length: 29", "Content-Length: 30", body=SMALL),
    "lengths that agree": request("POST", "/credits/deduct", "Content-Length: 29", "Content-Length: 29", body=SMALL),
    "length list": request("POST", "/credits/deduct", "Content-Length: 29, 29", body=SMALL),
    "huge header": balance("rich", "X-Big: " + "y" * 100_000),
    "many headers": balance("rich", *(f"X-{n}: {n}" for n in range(500))),
    "same header twice": deduct("rich", 1, "Idempotency-Key: a1", "Idempotency-Key: a2"),
    "folded header": balance("rich", "X-A: b\r\n c"),
    "header without a colon": balance("rich", "X-A"),
    "header without a name": balance("rich", ": x"),
    "space before the colon": balance("rich", "X-A : b"),
    "zero byte in a header": balance("rich", "X-A: \0"),
    "zero byte in the target": balance("ri\0ch"),
    "zero byte in the method": request("PO\0ST", "/credits/deduct", body=SMALL),
    "space in the target": balance("ri ch"),
    "high byte in the target": balance("r\xefch"),
    "high byte in a header": balance("rich", "X-A: \xff"),
    "high byte in the key": deduct("rich", 1, "Idempotency-Key: \xff"),
    "upgrade to something": balance("rich", "Connection: Upgrade", "Upgrade: h2c"),
    "upgrade of a deduct": deduct("rich", 1, "Connection: Upgrade", "Upgrade: h2c"),
    "authorize": request("GET", "/gateway/authorize", "X-User-Id: rich", "X-Estimated-Tokens: 1"),
    "authorize below": request("POST", "/gateway/authorize/v1/chat?x=1", "X-User-Id: rich", "Content-Length: 0"),
    "authorize without user": request("GET", "/gateway/authorize"),
    "authorize a stranger": request("PUT", "/gateway/authorize", "X-User-Id: nobody"),
    "authorize by head": request("HEAD", "/gateway/authorize", "X-User-Id: nobody"),
    "authorize with options": request("GET", "/gateway/authorize?mode=deduct&amount=1", "X-User-Id: rich"),
    "authorize with wrong options": request("GET", "/gateway/authorize?mode=guess", "X-User-Id: rich"),
    "authorize for nginx": request("GET", "/gateway/authorize?dialect=nginx", "X-User-Id: nobody"),
    "authorize with a user twice": request("GET", "/gateway/authorize", "X-User-Id: rich", "X-User-Id: other"),
    "authorize an escaped path": request("GET", "/gateway/authorize/a%2Fb%20c", "X-User-Id: rich"),
    "authorize an odd path": request("GET", "/gateway/authorize//a/../b?c=%20&d", "X-User-Id: rich"),
    "authorize with a body": request("POST", "/gateway/authorize", "X-User-Id: rich", body={"a": 1}),
    "authorize with a long body": request("POST", "/gateway/authorize", "X-User-Id: rich", body=LONG),
    "authorize with continue": request(
        "POST", "/gateway/authorize", "X-User-Id: rich", "Expect: 100-continue", body={}
    ),
    "authorize and close": request("GET", "/gateway/authorize", "X-User-Id: rich", "Connection: close"),
    "authorize something else": request("GET", "/gateway/authorizer", "X-User-Id: rich"),
    "gateway commit": request("GET", "/gateway/commit", "X-Reservation-Id: none"),
    "gateway commit without id": request("POST", "/gateway/commit"),
    "gateway commit below": request("POST", "/gateway/commit/x"),
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
}


@pytest.mark.parametrize("text", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_a_request_is_answered_alike(ways: Ways, text: bytes, bytewise: bool) -> None:
    """And so is one that follows it on the same connection."""
    pieces = [text[at : at + 1] for at in range(len(text))] if bytewise and len(text) < 5000 else [text]

    ways.same([*pieces, livez(), deduct("rich")])
    ways.same([balance("rich")])


@pytest.mark.parametrize("text", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_between_hot_ones_is_answered_alike(ways: Ways, text: bytes) -> None:
    """All in one piece."""
    ways.same([deduct("rich") + text, balance("rich") + livez()])
    ways.same([balance("rich")])


def test_the_table_reaches_every_kind_of_answer(ways: Ways) -> None:
    statuses = {status for text in REQUESTS.values() for status in ways.same([text]).statuses}

    assert {100, 200, 201, 400, 402, 404, 405, 409, 413, 415, 422} <= statuses


def test_thousands_that_wait_for_one_are_answered_alike(ways: Ways) -> None:
    """All in one piece; the first waits for Redis, the others are refused as soon as their turn comes."""
    outcome = ways.same([deduct("rich") + deduct("rich", "much") * 2000 + balance("rich")])

    assert outcome.statuses == [200] + [422] * 2000 + [200]


def test_nothing_is_done_after_a_closing_request(ways: Ways) -> None:
    """The parser reads on after HTTP/1.0 with keep-alive, which is closed all the same."""
    last = deduct("rich", "much", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")

    assert ways.same([last + deduct("rich")]).statuses == [422]
    ways.same([balance("rich")])


def test_the_lane_takes_no_trailer_for_a_header(ways: Ways) -> None:
    """uvicorn mixes them with the headers when all comes in one piece, which no caller can rely on."""
    head = request("POST", "/credits/deduct", JSON, CHUNKS)
    for _ in range(2):
        text = head + chunked(SMALL, trailers=b"Idempotency-Key: late\r\n")
        outcome = ways.loop.run_until_complete(ways.lane.talk([text]))
        assert outcome.statuses == [200]
        assert outcome.answers[0].header("idempotency-replayed") is None
        ways.loop.run_until_complete(ways.plain.talk([head + chunked(SMALL)]))
    ways.same([balance("rich")])
