"""`ANY /gateway/authorize[/{rest}]`: meter/gateway/authorize.py."""

from __future__ import annotations

import socket

import pytest

from meter.errors import ConfigError
from meter.testing import fake_app
from tests.api.sidecar import serving
from tests.gateway.caller import Caller, calling, refusal

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT")


def test_an_allowed_request_is_200_without_a_body(caller: Caller) -> None:
    answer = caller.authorize(x_user_id="u", x_estimated_tokens="12.5")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"
    assert "content-type" not in answer.headers
    assert answer.headers["x-reservation-id"].startswith("r0_")
    assert answer.headers["x-credits-reserved"] == "12.5"
    assert answer.headers["x-credits-remaining"] == "987.5"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["", "/", "/v1/chat", "/a//b/../c"])
def test_any_method_and_path_is_authorized(caller: Caller, method: str, path: str) -> None:
    assert caller.authorize(method=method, path=path, x_user_id="u").status_code == 200
    assert caller.balance() == (900, 100)


def test_more_than_there_is_is_402(caller: Caller) -> None:
    answer = caller.authorize(x_user_id="u", x_estimated_tokens="1001")

    problem = refusal(answer, 402, "insufficient-credits")
    assert (problem["required"], problem["available"]) == (1001, 1000)
    assert answer.headers["x-credits-remaining"] == "1000"
    assert answer.headers["x-credits-reserved"] == "0"


def test_a_suspended_account_is_403(caller: Caller) -> None:
    caller.http.patch("/credits/users/u", json={"suspended": True})

    answer = caller.authorize(x_user_id="u")

    refusal(answer, 403, "account-suspended")
    assert answer.headers["x-credits-remaining"] == "1000"


def test_nobody_is_401(caller: Caller) -> None:
    refusal(caller.authorize(), 401, "missing-identity")
    refusal(caller.authorize(x_user_id=""), 401, "missing-identity")


@pytest.mark.parametrize(
    "headers",
    [
        [("x-user-id", "u"), ("x-user-id", "u")],
        [("x-user-id", "u"), ("X_User_Id", "v")],
        [("x-user-id", "u"), ("x_request_id", "1")],
        [("x-user-id", "u v")],
        [("x-user-id", "{u}")],
        [("x-user-id", "u" * 129)],
        [("x-user-id", "u\u00e9")],
        [("x-user-id", "u"), ("x-request-id", "a b")],
        [("x-user-id", "u"), ("x-request-id", 'a"b')],
        [("x-user-id", "u"), ("x-request-id", "a\\b")],
        [("x-user-id", "u"), ("x-request-id", "a"), ("x-request-id", "b")],
        [("x-user-id", "u"), ("x-request-id", "a" * 129)],
    ],
)
def test_ids_that_cannot_be_or_are_there_twice_are_400(caller: Caller, headers: list[tuple[str, str]]) -> None:
    sent = [(name, value.encode("latin-1")) for name, value in headers]

    refusal(caller.http.get("/gateway/authorize", headers=sent), 400, "invalid-id")  # type: ignore[arg-type]

    assert caller.balance() == (1000, 0)


@pytest.mark.parametrize("estimate", ["x", "-1", "1e3", "NaN", "1,5", "0.0000001", "9" * 40, "+5", "1 2"])
def test_estimates_that_are_no_amounts_are_400(caller: Caller, estimate: str) -> None:
    refusal(caller.authorize(x_user_id="u", x_estimated_tokens=estimate), 400, "invalid-estimate")


def test_an_estimate_counts_as_the_minimum_at_least(caller: Caller) -> None:
    answer = caller.authorize(x_user_id="u", x_estimated_tokens="0")

    assert answer.headers["x-credits-reserved"] == "1"


def test_the_same_request_id_is_the_same_reservation(caller: Caller) -> None:
    first = caller.authorize(x_user_id="u", x_request_id="one")
    caller.authorize(x_user_id="u", x_request_id="two")
    again = caller.authorize(x_user_id="u", x_request_id="one")

    assert again.status_code == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-reservation-id"] == first.headers["x-reservation-id"]
    assert first.headers["x-reservation-id"].startswith("q0_")
    assert again.headers["x-credits-remaining"] == "800"  # as it is now
    assert caller.balance() == (800, 200)


def test_the_ledger_tells_which_request_a_hold_was_for(caller: Caller) -> None:
    caller.held(x_request_id="one")

    assert caller.entries()[-1].detail["metadata"] == {"request_id": "one"}


def test_a_request_id_is_of_one_user(caller: Caller) -> None:
    caller.add("v", 1000)

    assert caller.held("u", x_request_id="one") != caller.held("v", x_request_id="one")
    assert caller.balance("v") == (900, 100)


def test_the_secret_makes_other_ids() -> None:
    ids = set()
    for secret in ("", "a", "b"):
        with calling(gateway_secret=secret) as caller:
            caller.add("u", 100)
            ids.add(caller.held(x_request_id="one"))

    assert len(ids) == 3


def test_a_request_id_with_another_estimate_is_409(caller: Caller) -> None:
    caller.held(x_request_id="one")

    answer = caller.authorize(x_user_id="u", x_request_id="one", x_estimated_tokens="7")

    refusal(answer, 409, "request-id-reused")


@pytest.mark.parametrize("end", ["committed", "released", "expired"])
def test_the_request_id_of_a_finished_reservation_is_no_free_pass(caller: Caller, end: str) -> None:
    caller.held(x_request_id="one")
    if end == "committed":
        caller.commit(x_user_id="u", x_request_id="one", x_credits_actual="5")
    elif end == "released":
        caller.commit(x_user_id="u", x_request_id="one", x_upstream_status="500")
    else:
        caller.advance(301)
    before = caller.balance()

    answer = caller.authorize(x_user_id="u", x_request_id="one", x_estimated_tokens="100")

    assert refusal(answer, 409, "request-id-reused")["state"] == end
    assert caller.balance() == before


def test_mode_deduct_charges_at_once(caller: Caller) -> None:
    answer = caller.authorize("?mode=deduct&amount=2.5", x_user_id="u", x_estimated_tokens="50")

    assert (answer.status_code, answer.headers["x-credits-charged"]) == (200, "2.5")
    assert answer.headers["x-reservation-id"] == ""
    assert answer.headers["x-credits-remaining"] == "997.5"
    refusal(caller.authorize("?mode=deduct", x_user_id="u", x_estimated_tokens="998"), 402, "insufficient-credits")


def test_mode_deduct_takes_a_request_id_once(caller: Caller) -> None:
    assert caller.authorize("?mode=deduct", x_user_id="u", x_request_id="one").status_code == 200

    refusal(caller.authorize("?mode=deduct", x_user_id="u", x_request_id="one"), 409, "request-id-reused")
    assert caller.balance() == (900, 0)


def test_mode_check_changes_nothing(caller: Caller) -> None:
    enough = caller.authorize("?mode=check", x_user_id="u", x_estimated_tokens="1000")
    short = caller.authorize("?mode=check", x_user_id="u", x_estimated_tokens="1001")

    assert (enough.status_code, enough.headers["x-credits-remaining"]) == (200, "1000")
    assert (enough.headers["x-reservation-id"], enough.headers["x-credits-reserved"]) == ("", "0")
    assert refusal(short, 402, "insufficient-credits")["required"] == 1001
    caller.http.patch("/credits/users/u", json={"suspended": True})
    refusal(caller.authorize("?mode=check", x_user_id="u"), 403, "account-suspended")
    assert caller.balance() == (1000, 0)


def test_the_mode_can_be_set_for_gateways_whose_path_cannot_say_it() -> None:
    with calling(gateway_mode="deduct") as caller:
        caller.add("u", 1000)
        assert caller.authorize(path="/v1/chat", x_user_id="u").headers["x-credits-charged"] == "100"


@pytest.mark.parametrize("path", ["/", "/v1/chat"])
def test_a_query_behind_the_clients_path_is_the_clients(caller: Caller, path: str) -> None:
    answer = caller.authorize("?mode=check&amount=1", path=path, x_user_id="u")

    assert (answer.status_code, answer.headers["x-credits-reserved"]) == (200, "100")


def test_a_query_that_the_gateway_passed_on_is_refused(caller: Caller) -> None:
    passed = caller.authorize("?mode=check&amount=1", x_user_id="u", x_forwarded_uri="/v1/chat?mode=check&amount=1")
    own = caller.authorize("?mode=check&amount=1", x_user_id="u", x_forwarded_uri="/v1/chat?mode=check")

    refusal(passed, 422, "validation-error")
    assert own.status_code == 200


@pytest.mark.parametrize(
    "query", ["?mode=free", "?dialect=apache", "?mod=check", "?mode=check&mode=check", "?amount=x", "?amount=-1"]
)
def test_a_query_that_is_not_understood_is_refused(caller: Caller, query: str) -> None:
    refusal(caller.authorize(query, x_user_id="u"), 422, "validation-error")


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ({}, b"401", b"missing-identity"),
        ({"x_user_id": "a b"}, b"400", b"invalid-id"),
        ({"x_user_id": "u", "x_estimated_tokens": "1001"}, b"402", b"insufficient-credits"),
    ],
)
def test_nginx_gets_every_refusal_as_403_with_its_status_in_a_header(
    caller: Caller, headers: dict[str, str], status: bytes, slug: bytes
) -> None:
    answer = caller.authorize("?dialect=nginx", **headers)

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (403, b"", "0")
    assert answer.headers["x-meter-status"] == status.decode()
    assert answer.headers["x-meter-problem"] == slug.decode()
    assert answer.headers["x-reservation-id"] == ""


def test_nginx_gets_200_as_everybody(caller: Caller) -> None:
    answer = caller.authorize("?dialect=nginx", x_user_id="u")

    assert (answer.status_code, answer.content) == (200, b"")
    assert "x-meter-status" not in answer.headers


def test_headers_can_have_other_names() -> None:
    names = {
        "gateway_user_header": "X-Consumer",
        "gateway_estimate_header": "X-Cost",
        "gateway_request_header": "X-Trace",
        "gateway_estimate_default": "5",
    }
    with calling(**names) as caller:
        caller.add("u", 100)

        answer = caller.authorize(x_consumer="u", x_cost="7", x_trace="t")

        assert answer.headers["x-credits-reserved"] == "7"
        assert answer.headers["x-reservation-id"].startswith("q0_")
        assert caller.authorize(x_consumer="u").headers["x-credits-reserved"] == "5"
        refusal(caller.authorize(x_user_id="u"), 401, "missing-identity")


def test_a_default_that_cannot_be_counted_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"METER_GATEWAY_ESTIMATE_DEFAULT=0\.5"):
        fake_app(decimal_places=0, gateway_estimate_default="0.5")


def test_a_body_that_is_announced_and_never_sent_is_not_waited_for() -> None:
    with serving(fake_app()) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"POST /gateway/authorize HTTP/1.1\r\nHost: meter\r\nContent-Length: 10\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("partitions", [1, 3])
def test_reservations_are_found_in_every_partition(partitions: int) -> None:
    with calling(partitions=partitions) as caller:
        for user_id in ("a", "b", "c", "d", "team/e"):
            caller.add(user_id, 100)
            reservation_id = caller.held(user_id, 10, x_request_id="one")
            assert caller.commit(x_reservation_id=reservation_id, x_credits_actual="4").status_code == 200
            caller.held(user_id, 10, x_request_id="two")
            entry = {"user_id": user_id, "request_id": "two", "usage": 1}
            assert caller.logs(entry) == {"accepted": 1, "ignored": 0, "failed": 0}
            assert caller.balance(user_id) == (95, 0)
