"""What HTTP itself allows: pieces, pipelines, chunks and connections that end, through the hot lane and beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest

from tests.api.sidecar import DEADLINE_SECONDS, Api

pytestmark = pytest.mark.parametrize("server", ["redis"], indirect=True)

DEDUCT = b'{"user_id":"u","amount":1}'


@pytest.fixture
def funded(api: Api) -> Api:
    """User u has 100 credits."""
    api.post("/add", {"user_id": "u", "amount": 100})
    return api


class Wire:
    """A connection on which bytes are written as they are."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers: BinaryIO = connection.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        """Sends pieces one by one."""
        for piece in pieces:
            self._connection.sendall(piece)

    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers, body."""
        status = int(self._answers.readline().split()[1])
        headers = {}
        while (line := self._answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return status, headers, self._answers.read(int(headers.get(b"content-length", b"0")))

    def at_end(self) -> bool:
        """Whether the other side has closed the connection."""
        return self._answers.read(1) == b""


@pytest.fixture
def wire(funded: Api) -> Iterator[Wire]:
    """A connection to the sidecar on the real server."""
    with socket.create_connection(address(funded), timeout=DEADLINE_SECONDS) as connection:
        yield Wire(connection)


def address(api: Api) -> tuple[str, int]:
    where = urlsplit(str(api.http.base_url))
    assert where.hostname and where.port
    return where.hostname, where.port


def request(method: str, path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: sidecar", *headers]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(path: str, *chunks: bytes) -> bytes:
    head = request("POST", path, b"", "content-type: application/json", "transfer-encoding: chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def test_a_pipeline_of_hot_and_other_requests_is_answered_in_order(wire: Wire, funded: Api) -> None:
    deduct, balance = request("POST", "/credits/deduct", DEDUCT), request("GET", "/credits/balance/u")
    wire.send(
        deduct
        + request("GET", "/livez")
        + deduct
        + request("GET", "/credits/grants/u")
        + balance
        + request("GET", "/nowhere")
        + request("POST", "/credits/deduct", b"{")
        + deduct
        + balance
    )
    answers = [wire.answer() for _ in range(9)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 200, 200, 404, 400, 200, 200]
    assert b'"available":98,' in answers[4][2] and b'"available":97,' in answers[8][2]
    assert funded.available("u") == 97


def test_a_long_pipeline_is_answered_whole(wire: Wire, funded: Api) -> None:
    wire.send(request("POST", "/credits/deduct", DEDUCT) * 100)
    assert [wire.answer()[0] for _ in range(100)] == [200] * 100
    wire.send(request("POST", "/credits/deduct", DEDUCT))
    assert wire.answer()[0] == 402
    assert funded.available("u") == 0


def test_a_request_in_single_bytes_is_the_same_request(wire: Wire, funded: Api) -> None:
    whole = request("POST", "/credits/deduct", DEDUCT) + chunked("/credits/reservations", DEDUCT[:5], DEDUCT[5:])
    wire.send(*(bytes([byte]) for byte in whole))
    assert [wire.answer()[0] for _ in range(2)] == [200, 201]
    assert funded.get("/balance/u")["balance"] == 99


def test_a_body_that_is_awaited_is_asked_for(wire: Wire, funded: Api) -> None:
    for path in ("/credits/deduct", "/credits/add"):
        head, _, body = request("POST", path, DEDUCT, "expect: 100-continue").partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        assert wire.answer()[0] == 100
        wire.send(body)
        assert wire.answer()[0] == 200
    assert funded.available("u") == 100


def test_a_body_beyond_the_limit_leaves_the_connection_in_order(wire: Wire, funded: Api) -> None:
    for path in ("/credits/deduct", "/credits/add"):
        large = b'{"user_id":"u","amount":1,"description":"' + b"x" * 300_000 + b'"}'
        for whole in (request("POST", path, large), chunked(path, *([large[:1000]] * 300))):
            wire.send(whole)
            assert wire.answer()[0] == 413
        wire.send(request("POST", "/credits/deduct", b'{"user_id":"u","amount":0}'))
        assert wire.answer()[0] == 200
    assert funded.available("u") == 100


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", ["connection: close"]), ("1.0", []), ("1.0", ["connection: keep-alive"])]
)
def test_a_connection_ends_when_the_client_says_so(wire: Wire, funded: Api, version: str, headers: list[str]) -> None:
    wire.send(request("POST", "/credits/deduct", DEDUCT, *headers, version=version))
    status, answered, _ = wire.answer()
    assert (status, answered.get(b"connection")) == (200, b"close")
    assert wire.at_end()
    assert funded.available("u") == 99


@pytest.mark.parametrize("nonsense", [b"\x00\x01\r\n\r\n", b"POST\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 100_000])
def test_what_is_no_http_ends_one_connection_and_no_other(wire: Wire, funded: Api, nonsense: bytes) -> None:
    wire.send(request("POST", "/credits/deduct", DEDUCT))
    assert wire.answer()[0] == 200
    wire.send(nonsense)
    assert wire.answer()[0] == 400
    assert funded.available("u") == 99


def test_a_client_that_leaves_early_is_charged_once_and_harms_nobody(funded: Api) -> None:
    for n in range(20):
        with socket.create_connection(address(funded)) as connection:
            connection.sendall(request("POST", "/credits/deduct", DEDUCT, f"idempotency-key: k{n}"))
            connection.sendall(b'POST /credits/add HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"user_id":"u",')
    for n in range(20):  # whether it was applied or not, the same key settles it
        assert funded.post("/deduct", {"user_id": "u", "amount": 1}, key=f"k{n}")["taken"] == 1
    assert funded.available("u") == 80


def test_header_names_and_targets_are_taken_as_http_means_them(wire: Wire, funded: Api) -> None:
    wire.send(
        request("POST", "/credits/deduct", DEDUCT, "IDEMPOTENCY-KEY: k")
        + request("POST", "/credits/deduct?", DEDUCT, "idempotency-key:k")
        + request("POST", "/credits/%64educt", DEDUCT, "Idempotency-Key:  k  ")
        + request("GET", "/credits/balance/%75")
    )
    answers = [wire.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200] * 4
    assert answers[0][2] == answers[1][2] == answers[2][2]
    assert [headers.get(b"idempotency-replayed") for _, headers, _ in answers] == [None, b"true", b"true", None]
    assert funded.available("u") == 99
