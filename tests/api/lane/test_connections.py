"""What a connection does over its life: bodies that come late, clients that go away, the end of the server."""

from __future__ import annotations

import socket
import time

import pytest

from tests.api.lane.answers import balance, deduct, livez, request
from tests.api.lane.conftest import WAYS
from tests.api.lane.serving import Sidecar, wait_for

BODY = b'{"user_id":"rich","amount":1}'
LONG = b'{"user_id":"rich","amount":1,"description":"' + b"x" * 70_000 + b'"}'
JSON = "Content-Type: application/json"


def test_a_connection_is_kept_for_many_requests(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        for number in range(1, 51):
            client.send(deduct("rich") if number % 2 else livez()).answers(number)

        assert len(sidecar.connections) == 1


def test_continue_comes_before_the_body(sidecar: Sidecar) -> None:
    head = request("POST", "/credits/deduct", JSON, "Content-Length: 29", "Expect: 100-continue")
    with sidecar.client() as client:
        assert [answer.status for answer in client.send(head).answers(1)] == [100]
        answers = client.send(BODY, livez()).answers(3)

    assert [answer.status for answer in answers] == [100, 200, 200]


def test_continue_of_a_pipelined_request_waits_for_its_turn(sidecar: Sidecar) -> None:
    sidecar.redis.open = False
    head = request("POST", "/credits/deduct", JSON, "Content-Length: 29", "Expect: 100-continue")
    with sidecar.client() as client:
        client.send(balance("one") + head)
        wait_for(lambda: sidecar.redis.waiting, "the balance waits")
        sidecar.redis.open = True
        assert [answer.status for answer in client.answers(2)] == [200, 100]
        answers = client.send(BODY).answers(3)

    assert [answer.status for answer in answers] == [200, 100, 200]


def test_a_body_too_long_is_refused_before_its_end_and_the_rest_is_skipped(sidecar: Sidecar) -> None:
    head = request("POST", "/credits/deduct", JSON, f"Content-Length: {len(LONG)}")
    with sidecar.client() as client:
        client.send(head + LONG[:-100])
        assert client.answers(1)[0].status == 413
        answers = client.send(LONG[-100:] + deduct("rich")).answers(2)

    assert answers[1].status == 200
    assert sidecar.available() == 999_999
    assert sidecar.count(413) == 1


def test_chunks_without_end_are_refused(sidecar: Sidecar) -> None:
    head = request("POST", "/credits/deduct", JSON, "Transfer-Encoding: chunked")
    with sidecar.client() as client:
        client.send(head, *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 70)
        assert client.answers(1)[0].status == 413
        answers = client.send(b"0\r\n\r\n", balance("one")).answers(2)

    assert answers[1].status == 200


@pytest.mark.parametrize("end", ["close", "reset", "half-close"])
def test_a_client_that_goes_before_the_answer_is_still_charged_once(sidecar: Sidecar, end: str) -> None:
    sidecar.redis.open = False
    with sidecar.client() as client:
        client.send(deduct("rich", 5))
        wait_for(lambda: sidecar.redis.waiting, "the deduct waits")
        if end == "reset":
            client.reset()
        elif end == "close":
            client.socket.close()
        else:
            client.socket.shutdown(socket.SHUT_WR)
        sidecar.no_connections()
        sidecar.redis.open = True
        if end == "half-close":
            assert client.to_the_end() == []

    wait_for(lambda: sidecar.available() != 1_000_000, "the deduct is done")
    assert sidecar.available() == 999_995
    assert sidecar.ask(deduct("rich", 5)).json["available"] == 999_990


@pytest.mark.parametrize("cut", [10, -3])
def test_half_a_request_is_not_done(sidecar: Sidecar, cut: int) -> None:
    """Neither half a head nor half a body; the second is counted as a fault of the client."""
    with sidecar.client() as client:
        client.send(deduct("rich", 5)[:cut])
        wait_for(lambda: sidecar.connections and sidecar.connections[0].headers is not None, "it has come")
    sidecar.no_connections()

    assert sidecar.available() == 1_000_000
    wait_for(lambda: sidecar.count(400) == (cut < 0), "it is counted")


def test_an_idle_connection_is_closed(request: pytest.FixtureRequest) -> None:
    for http in WAYS.values():
        sidecar = Sidecar(http, timeout_keep_alive=1)
        sidecar.start()
        request.addfinalizer(sidecar.stop)
        with sidecar.client() as client:
            assert len(client.send(deduct("rich", "much") + balance("one")).to_the_end()) == 2


def test_a_slow_body_keeps_a_connection_from_being_idle(request: pytest.FixtureRequest) -> None:
    """Also one that began in the same data as a request that was answered at once."""
    for http in WAYS.values():
        sidecar = Sidecar(http, timeout_keep_alive=1)
        sidecar.start()
        request.addfinalizer(sidecar.stop)
        text = deduct("rich")
        with sidecar.client() as client:
            client.send(deduct("rich", "much") + text[:-5])
            time.sleep(1.5)
            assert [answer.status for answer in client.send(text[-5:]).answers(2)] == [422, 200]


def test_the_end_of_the_server_waits_for_answers_and_closes_the_rest(sidecar: Sidecar) -> None:
    sidecar.redis.open = False
    with sidecar.client() as busy, sidecar.client() as idle, sidecar.client() as piped:
        idle.send(livez()).answers(1)
        busy.send(deduct("rich", 3))
        wait_for(lambda: sidecar.redis.waiting == 1, "the first waits")
        piped.send(balance("one") + livez() + deduct("rich", 4))
        wait_for(lambda: sidecar.redis.waiting == 2, "the second waits")
        sidecar.server.should_exit = True
        assert len(idle.to_the_end()) == 1
        sidecar.redis.open = True
        answers, more = busy.to_the_end(), piped.to_the_end()

    assert [answer.status for answer in answers] == [200]
    assert [answer.status for answer in more] == [200, 200, 200]
    assert (answers[-1].header("connection"), more[-1].header("connection")) == ("close", "close")
    sidecar.thread.join(20)
    assert not sidecar.thread.is_alive()


def test_answers_are_counted(sidecar: Sidecar) -> None:
    with sidecar.client() as client:
        client.send(deduct("rich"), deduct("nobody"), deduct("rich", "much"), balance("one")).answers(4)
        found = client.send(request("POST", "/credits/reservations", body={"user_id": "rich", "amount": 1})).answers(5)

    assert [answer.status for answer in found] == [200, 402, 422, 200, 201]
    assert (sidecar.count(402), sidecar.count(422), sidecar.count(201)) == (1, 1, 1)
    assert sidecar.count(200) >= 4
