"""`ANY /gateway/commit`: meter/gateway/authorize.py."""

from __future__ import annotations

import pytest

from tests.gateway.caller import Caller, calling, refusal


def test_a_commit_charges_what_was_used(caller: Caller) -> None:
    reservation_id = caller.held()

    answer = caller.commit(method="POST", x_reservation_id=reservation_id, x_credits_actual="30.5")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-reservation-id"] == reservation_id
    assert answer.headers["x-credits-charged"] == "30.5"
    assert answer.headers["x-credits-remaining"] == "969.5"


def test_a_request_can_be_committed_by_its_own_id(caller: Caller) -> None:
    caller.held(x_request_id="one")

    assert caller.commit(x_user_id="u", x_request_id="one", x_credits_actual="30").status_code == 200

    assert caller.balance() == (970, 0)


def test_the_same_commit_twice_is_charged_once(caller: Caller) -> None:
    reservation_id = caller.held()

    first = caller.commit(x_reservation_id=reservation_id, x_credits_actual="30")
    again = caller.commit(x_reservation_id=reservation_id, x_credits_actual="30")
    other = caller.commit(x_reservation_id=reservation_id, x_credits_actual="31")

    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert refusal(other, 409, "reservation-committed")["charged"] == 30
    assert caller.balance() == (970, 0)


@pytest.mark.parametrize(
    ("actual", "status", "charged"),
    [
        ("30", "200", 30),
        ("30", "500", 0),
        ("30", "404", 0),
        ("30", "000", 30),  # no response was seen, but usage was
        ("", "500", 0),
        ("", "200", 0),  # release is the default
        ("", "499", 100),  # who leaves before the answer pays what was held
        ("", "-", 0),
        ("2000", "200", 1000),  # cap: what there is
        ("0", "200", 0),
        ("0.0000001", "200", "0.000001"),  # rounded up to what can be counted
    ],
)
def test_what_is_charged(caller: Caller, actual: str, status: str, charged: int | str) -> None:
    reservation_id = caller.held()

    answer = caller.commit(x_reservation_id=reservation_id, x_credits_actual=actual, x_upstream_status=status)

    assert answer.headers["x-credits-charged"] == str(charged)
    assert caller.balance()[1] == 0


def test_success_without_usage_costs_the_estimate_where_that_is_the_policy() -> None:
    with calling(gateway_on_missing_usage="estimate") as caller:
        caller.add("u", 1000)
        told, failed, silent = caller.held(), caller.held(), caller.held()

        assert caller.commit(x_reservation_id=told).headers["x-credits-charged"] == "100"
        assert caller.commit(x_reservation_id=failed, x_upstream_status="502").headers["x-credits-charged"] == "0"
        caller.advance(301)

        assert caller.balance() == (800, 0)
        assert caller.http.get(f"/credits/reservations/{silent}").json()["state"] == "committed"


def test_a_hold_that_nobody_settles_is_released_by_default(caller: Caller) -> None:
    caller.held()
    caller.advance(301)

    assert caller.balance() == (1000, 0)


def test_a_late_commit_is_charged(caller: Caller) -> None:
    reservation_id = caller.held()
    caller.advance(301)

    assert caller.commit(x_reservation_id=reservation_id, x_credits_actual="30").status_code == 200

    assert caller.balance() == (970, 0)
    assert caller.entries()[-1].detail["late"] is True


def test_an_unknown_reservation_is_404(caller: Caller) -> None:
    refusal(caller.commit(x_reservation_id="r0_unknown", x_credits_actual="1"), 404, "reservation-not-found")
    refusal(caller.commit(x_user_id="u", x_request_id="one"), 404, "reservation-not-found")


def test_a_commit_names_one_reservation(caller: Caller) -> None:
    refusal(caller.commit(), 400, "invalid-id")
    refusal(caller.commit(x_reservation_id="a b"), 400, "invalid-id")
    refusal(caller.commit(x_user_id="u"), 400, "invalid-id")
    refusal(caller.commit(x_request_id="one"), 401, "missing-identity")


@pytest.mark.parametrize("actual", ["x", "-1", "1,2", "Infinity", "9" * 30])
def test_a_usage_that_is_no_number_is_400(caller: Caller, actual: str) -> None:
    reservation_id = caller.held()

    refusal(caller.commit(x_reservation_id=reservation_id, x_credits_actual=actual), 400, "invalid-usage")

    assert caller.balance() == (900, 100)
