"""What every gateway does with the example configuration that it is offered with."""

from __future__ import annotations

import gzip
import json
import socket
import time
from typing import Any

import httpx2
import pytest

from tests.api.sidecar import wait_for
from tests.gateways.gateway import Running
from tests.gateways.sidecar import GRANTED

pytestmark = pytest.mark.gateways

HELD = 100
USED = 30


def get(running: Running, path: str, user_id: str | None, **headers: str) -> httpx2.Response:
    """One request through the gateway; `_` in a header's name stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if user_id is not None:
        sent["x-user-id"] = user_id
    return running.http.get(running.url + path, headers=sent)


def refusal(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem that the client got."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.content)
    assert (problem["type"], problem["status"]) == (f"/problems/{slug}", status)
    return problem


def expected(running: Running, path: str) -> int:
    """What a request to that path is charged: some gateways do not see bodies."""
    return USED if running.gateway.reads_bodies or path not in ("/json", "/sse") else 0


def test_allowed_requests_reach_the_api_and_are_charged(running: Running) -> None:
    user_id = running.sidecar.user()

    response = get(running, "/both", user_id)

    assert (response.status_code, response.json()["text"]) == (200, "hello")
    seen = running.upstream.seen[0]
    assert seen.headers["x-reservation-id"].startswith(("q0_", "r0_"))
    assert ("x-credits-actual" in response.headers) == running.gateway.shows_actual
    assert running.sidecar.settled(user_id) == USED
    assert running.sidecar.kinds(user_id) == ["grant", "reserve", "commit"]


def test_requests_without_identity_are_refused(running: Running) -> None:
    response = get(running, "/json", None)

    refusal(response, 401, "missing-identity")
    assert running.upstream.seen == []


def test_requests_beyond_the_credit_are_refused_with_a_problem(running: Running) -> None:
    user_id = running.sidecar.user(HELD - 1)

    response = get(running, "/json", user_id)

    problem = refusal(response, 402, "insufficient-credits")
    assert problem["code"] == "INSUFFICIENT_CREDITS"
    assert response.headers["x-credits-remaining"] == str(HELD - 1)
    if running.gateway.refusal_bodies:
        assert (problem["required"], problem["available"]) == (HELD, HELD - 1)
    assert running.upstream.seen == []
    assert running.sidecar.balance(user_id) == (HELD - 1, 0)


def test_nobody_is_served_while_the_meter_is_down(running: Running) -> None:
    user_id = running.sidecar.user()
    running.valve.shut()

    response = get(running, "/json", user_id)

    assert response.status_code == running.gateway.down
    assert running.upstream.seen == []
    running.valve.open()
    wait_for(lambda: get(running, "/json", user_id).status_code == 200, "service after the outage")


def test_a_meter_whose_redis_hangs_answers_by_its_deadline(running: Running) -> None:
    user_id = running.sidecar.user()
    running.sidecar.pause_redis(1000)

    response = get(running, "/json", user_id)

    assert response.status_code == running.gateway.slow
    assert running.upstream.seen == []
    running.sidecar.wait_for_balance(user_id, GRANTED)
    assert "commit" not in running.sidecar.kinds(user_id)


def test_a_meter_that_never_answers_is_not_waited_for(running: Running) -> None:
    if running.gateway.stuck is None:
        pytest.skip(f"{running.gateway} waits for a silent sidecar: it has no timeout of its own")
    user_id = running.sidecar.user()
    running.valve.stuck = True

    response = get(running, "/json", user_id)

    running.valve.stuck = False
    assert response.status_code == running.gateway.stuck
    assert running.upstream.seen == []
    wait_for(lambda: get(running, "/json", user_id).status_code == 200, "service after that")


@pytest.mark.parametrize("path", ["/json", "/header"])
def test_usage_is_charged_where_the_gateway_sees_it(running: Running, path: str) -> None:
    user_id = running.sidecar.user()

    assert get(running, path, user_id).status_code == 200

    assert running.sidecar.settled(user_id) == expected(running, path)
    assert running.sidecar.kinds(user_id)[-1] == ("commit" if expected(running, path) else "release")


@pytest.mark.parametrize(
    ("path", "tokens"), [("/schema", 29), ("/exponent", 29), ("/anthropic", 29), ("/batches", 0), ("/long", 29)]
)
def test_k12_usage_is_read_as_json_and_not_searched_for(running: Running, path: str, tokens: int) -> None:
    if not running.gateway.reads_bodies:
        pytest.skip(f"{running.gateway} takes usage from a header only")
    user_id = running.sidecar.user()

    assert get(running, path, user_id).status_code == 200

    assert running.sidecar.settled(user_id) == tokens


def test_event_streams_pass_unbuffered_and_are_charged(running: Running, first_event_ms: dict[str, float]) -> None:
    user_id = running.sidecar.user()
    began = time.perf_counter()

    with running.http.stream("GET", running.url + "/sse", headers={"x-user-id": user_id}) as response:
        chunks = response.iter_bytes()
        first = next(chunks)
        first_event_ms[running.gateway.name] = (time.perf_counter() - began) * 1000
        # The upstream sends the rest only now: whoever buffers would not have come this far.
        assert b"hello" in first and not running.upstream.finish.is_set()
        assert running.sidecar.balance(user_id)[1] == HELD
        running.upstream.finish.set()
        rest = b"".join(chunks)

    assert rest.endswith(b"data: [DONE]\n\n")
    assert running.sidecar.settled(user_id) == expected(running, "/sse")


def test_compressed_answers_arrive_whole_and_are_charged(running: Running) -> None:
    user_id = running.sidecar.user()

    with running.http.stream(
        "GET", running.url + "/gzip", headers={"x-user-id": user_id, "accept-encoding": "gzip"}
    ) as response:
        raw = b"".join(response.iter_raw())

    text = gzip.decompress(raw) if response.headers.get("content-encoding") == "gzip" else raw
    assert json.loads(text)["text"] == "hello"
    assert running.sidecar.settled(user_id) == USED


def test_failures_of_the_api_are_free(running: Running) -> None:
    user_id = running.sidecar.user()

    response = get(running, "/fail", user_id)

    assert (response.status_code, response.json()["text"]) == (500, "hello")
    assert running.sidecar.settled(user_id) == 0
    assert running.sidecar.kinds(user_id)[-1] == "release"


def test_a_client_that_leaves_does_not_get_the_answer_free(running: Running) -> None:
    user_id = running.sidecar.user()
    address = httpx2.URL(running.url)
    with socket.create_connection((address.host, address.port or 80), timeout=20) as client:
        client.sendall(f"GET /talk HTTP/1.1\r\nHost: api\r\nX-User-Id: {user_id}\r\n\r\n".encode())
        received = b""
        while b"hello" not in received:
            received += client.recv(4096)

    assert running.upstream.gone.wait(20), "the gateway tells the upstream that the client left"
    if running.gateway.aborted == "open":
        assert running.sidecar.balance(user_id) == (GRANTED - HELD, HELD)
    else:
        charged = {"commit": HELD, "release": 0}[running.gateway.aborted]
        assert running.sidecar.settled(user_id) == charged


def test_the_same_commit_twice_is_charged_once(running: Running) -> None:
    user_id = running.sidecar.user()
    assert get(running, "/header", user_id).status_code == 200
    assert running.sidecar.settled(user_id) == USED
    reservation_id = running.upstream.seen[0].headers["x-reservation-id"]

    again = running.sidecar.http.post(
        "/gateway/logs", json=[{"reservation_id": reservation_id, "status": 200, "usage": USED}]
    )

    assert again.json() == {"accepted": 1, "ignored": 0, "failed": 0}
    assert running.sidecar.balance(user_id) == (GRANTED - USED, 0)
    assert running.sidecar.kinds(user_id) == ["grant", "reserve", "commit"]


def test_a_reservation_id_of_the_client_is_worth_nothing(running: Running) -> None:
    victim, user_id, poor = running.sidecar.user(), running.sidecar.user(), running.sidecar.user(0)
    held = running.sidecar.http.post("/credits/reservations", json={"user_id": victim, "amount": HELD}).json()
    spoofed = held["reservation_id"]

    assert get(running, "/both", user_id, X_Reservation_Id=spoofed).status_code == 200
    assert get(running, "/both", poor, X_Reservation_Id=spoofed).status_code == 402
    assert get(running, "/both", None, X_Reservation_Id=spoofed).status_code == 401

    assert [seen.headers["x-reservation-id"] == spoofed for seen in running.upstream.seen] == [False]
    assert running.sidecar.settled(user_id) == USED
    assert get(running, "/both", user_id).status_code == 200  # behind the log lines of those before
    running.sidecar.wait_for_balance(user_id, GRANTED - 2 * USED)
    assert running.sidecar.balance(victim) == (GRANTED - HELD, HELD)


def test_a_request_id_of_the_client_is_worth_nothing(running: Running) -> None:
    user_id = running.sidecar.user()

    for _ in range(2):
        assert get(running, "/both", user_id, X_Request_Id="mine").status_code == 200

    running.sidecar.wait_for_balance(user_id, GRANTED - 2 * USED)


def test_a_query_of_the_client_chooses_nothing(running: Running) -> None:
    user_id = running.sidecar.user(HELD - 1)

    assert get(running, "/both?mode=check&amount=1", user_id).status_code == 402


def test_bodies_pass_to_the_api_and_not_to_the_meter(running: Running) -> None:
    user_id = running.sidecar.user()
    body = b"x" * 300_000

    response = running.http.post(running.url + "/both", content=body, headers={"x-user-id": user_id})

    assert response.status_code == 200
    assert [(seen.method, seen.body) for seen in running.upstream.seen] == [("POST", body)]
    assert running.sidecar.settled(user_id) == USED


def test_few_connections_to_the_meter_carry_many_requests(running: Running) -> None:
    many = 16
    credit = many * HELD  # logs may come after the last request
    user_id = running.sidecar.user(credit)

    for _ in range(many):
        assert get(running, "/both", user_id).status_code == 200
    running.sidecar.wait_for_balance(user_id, credit - many * USED)

    assert running.valve.requests >= many
    assert running.valve.connections <= running.gateway.connections


def test_the_client_is_told_where_the_tightest_rate_limit_stands(running: Running) -> None:
    """With what is served, but through Caddy and Traefik, and with what is refused."""
    user_id = running.sidecar.user()
    running.sidecar.limit(user_id, {"rpm": {"kind": "requests", "limit": 2, "per_seconds": 3600}})
    for left in (1, 0):
        served = get(running, "/json", user_id)
        assert served.status_code == 200
        if running.gateway.name not in ("caddy", "traefik"):
            assert served.headers["ratelimit-policy"] == '"rpm";q=2;w=3600'
            assert served.headers["ratelimit"].startswith(f'"rpm";r={left};t=')
    refused = get(running, "/json", user_id)
    refusal(refused, 429, "rate-limited")
    assert 0 < int(refused.headers["retry-after"]) <= 1800
    assert refused.headers["ratelimit"] == f'"rpm";r=0;t={refused.headers["retry-after"]}'
