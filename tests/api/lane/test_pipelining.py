"""Pipelined requests, hot and cold ones mixed: answered in order, each once, in bounded memory."""

from __future__ import annotations

import threading
import time

import pytest

from tests.api.lane.answers import Answer, balance, chunked, deduct, livez, request
from tests.api.lane.serving import Sidecar, wait_for

USERS = ("one", "two", "three")
JSON = "Content-Type: application/json"
BAD = deduct("rich", "much")
BAD_AND_CLOSE = deduct("rich", "much", "Connection: close")


def _which(answer: Answer) -> str:
    return "live" if answer.json.get("status") == "ok" else str(answer.json.get("user_id", answer.status))


def test_hot_and_cold_requests_are_answered_in_order(sidecar: Sidecar) -> None:
    texts = [balance("one"), livez(), balance("two"), livez(), livez(), balance("three"), deduct("rich"), livez()]

    with sidecar.client() as client:
        answers = client.send(b"".join(texts)).answers(len(texts))

    assert [_which(answer) for answer in answers] == ["one", "live", "two", "live", "live", "three", "rich", "live"]


def test_order_holds_wherever_the_bytes_are_cut(sidecar: Sidecar) -> None:
    text = balance("one") + livez() + deduct("rich") + BAD + balance("two")

    for cut in range(1, len(text), 7):
        with sidecar.client() as client:
            answers = client.send(text[:cut], text[cut:]).answers(5)
        assert [_which(answer) for answer in answers] == ["one", "live", "rich", "422", "two"]


def test_bytes_that_trickle_are_one_request(sidecar: Sidecar) -> None:
    text = deduct("rich") + livez()

    with sidecar.client() as client:
        answers = client.send(*(bytes([byte]) for byte in text)).answers(2)

    assert [_which(answer) for answer in answers] == ["rich", "live"]
    assert sidecar.available() == 999_999


def test_a_refusal_waits_for_the_answer_before_it(sidecar: Sidecar) -> None:
    """It needs no Redis and could be given at once."""
    sidecar.redis.open = False
    with sidecar.client() as client:
        client.send(deduct("rich") + BAD + livez())
        wait_for(lambda: sidecar.redis.waiting, "the deduct waits")
        assert client.text == b""
        sidecar.redis.open = True
        answers = client.answers(3)

    assert [_which(answer) for answer in answers] == ["rich", "422", "live"]


def test_thousands_that_are_answered_at_once_do_not_nest(sidecar: Sidecar) -> None:
    """The first waits for Redis; the others are refused as soon as their turn comes."""
    sidecar.redis.open = False
    with sidecar.client() as client:
        client.send(deduct("rich") + BAD * 1500 + balance("one"))
        wait_for(lambda: sidecar.redis.waiting, "the deduct waits")
        sidecar.redis.open = True
        answers = client.answers(1502)

    assert [answer.status for answer in answers] == [200] + [422] * 1500 + [200]
    assert sidecar.count(422) == 1500


def test_bodies_of_pipelined_requests_stay_with_their_own(sidecar: Sidecar) -> None:
    sidecar.redis.open = False
    body = b'{"user_id":"rich","amount":7}'
    late = request("POST", "/credits/deduct", JSON, "Transfer-Encoding: chunked", body=chunked(body[:5], body[5:]))
    with sidecar.client() as client:
        client.send(deduct("rich", 1) + late[:-20])
        wait_for(lambda: sidecar.redis.waiting, "the first deduct waits")
        client.send(late[-20:], deduct("rich", 9))
        sidecar.redis.open = True
        answers = client.answers(3)

    assert [answer.json["amount"] for answer in answers] == [1, 7, 9]


@pytest.mark.parametrize("first", [deduct("rich", 1, "Connection: close"), BAD_AND_CLOSE], ids=["done", "refused"])
def test_nothing_after_a_closing_request_is_done(sidecar: Sidecar, first: bytes) -> None:
    """Neither when that was answered from Redis nor when it was refused at once."""
    with sidecar.client() as client:
        answers = client.send(first + deduct("rich", 1000) + livez()).to_the_end()

    assert len(answers) == 1
    assert answers[0].header("connection") == "close"
    assert sidecar.available() >= 999_999


def test_http_1_0_closes_after_the_answer(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        answers = client.send(request("GET", "/credits/balance/one", version="1.0") + livez()).to_the_end()

    assert [_which(answer) for answer in answers] == ["one"]


def test_an_upgrade_does_not_repeat_the_request_before_it(sidecar: Sidecar) -> None:
    sidecar.redis.open = False
    upgrade = livez("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                    "Sec-WebSocket-Version: 13")  # fmt: skip
    with sidecar.client() as client:
        client.send(deduct("rich", 1) + upgrade)
        wait_for(lambda: sidecar.redis.waiting, "the deduct waits")
        sidecar.redis.open = True
        client.to_the_end()
    wait_for(lambda: not sidecar.redis.waiting, "all is done")

    assert sidecar.ask(deduct("rich", 1)).json["available"] == 999_998


@pytest.mark.parametrize("text", [balance("one"), livez()], ids=["hot", "cold"])
def test_a_client_that_does_not_read_is_not_read_from(sidecar: Sidecar, text: bytes) -> None:
    """Its answers fill the sockets, then its requests do; what waits in our memory stays small."""
    if not sidecar.hot:
        pytest.skip("uvicorn reads on after each answer, so that unanswered requests pile up")
    many = text * 1000
    with sidecar.client(receive_bytes=4096) as client:
        client.socket.setblocking(False)
        sent = offset = quiet = 0
        while quiet < 100:
            try:
                written = client.socket.send(many[offset:])
                sent, offset, quiet = sent + written, (offset + written) % len(many), 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.005)
            assert sent < 64 * 2**20, "it reads on without end"
        protocol = sidecar.connections[0]
        assert len(protocol.pipeline) <= 2 * 262_144 // len(text)
        assert protocol.transport.get_write_buffer_size() < 2**20
        assert sidecar.ask(livez()).status == 200
    sidecar.no_connections()


def test_a_client_that_reads_late_gets_every_answer_in_order(sidecar: Sidecar) -> None:
    """Hot answers fill the buffers, and cold ones come in between."""
    many, long = 400, "x" * 110  # long names fill the buffers soon
    text = b"".join(balance(f"u{n}{long}") + (livez() if n % 10 == 0 else b"") for n in range(many))
    with sidecar.client(receive_bytes=4096) as client:
        sender = threading.Thread(target=client.send, args=(text,))
        sender.start()
        wait_for(lambda: sidecar.connections and sidecar.connections[0].flow.write_paused, "the buffers are full")
        answers = client.answers(many + many // 10)
        sender.join()

    assert [_which(answer) for answer in answers if _which(answer) != "live"] == [f"u{n}{long}" for n in range(many)]
    live = [at for at, answer in enumerate(answers) if _which(answer) == "live"]
    assert live == [1 + 11 * n for n in range(many // 10)]
