"""Batches: an answer for each operation, in order; atomic ones all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from meter.testing import fake_app
from tests import invariants
from tests.api.sidecar import Api, balances
from tests.partition import WINDOW
from tests.servers import fake_server


def deduct(amount: object, user_id: str = "u", **members: object) -> dict[str, object]:
    return {"op": "deduct", "user_id": user_id, "amount": amount, **members}


def results(answer: Any) -> list[Any]:
    """The status of each result, or its code where it is a problem."""
    return [result.get("code", result["status"]) for result in answer["results"]]


def test_each_operation_is_answered_in_order_as_on_its_own(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 100})
    answer = api.post(
        "/batch",
        {
            "operations": [
                deduct(10),
                {"op": "reserve", "user_id": "u", "amount": 20, "reservation_id": "r", "ttl_seconds": 60},
                {"op": "commit", "reservation_id": "r", "amount": 5},
                {"op": "release", "reservation_id": "r"},
                deduct(86),
                {"op": "release", "reservation_id": "unknown"},
                deduct(85),
            ]
        },
    )
    transactions = [entry.transaction_id for entry in api.entries()]
    assert answer["results"][0] == {
        "status": 200,
        "user_id": "u",
        "transaction_id": transactions[1],
        "amount": 10,
        "taken": 10,
        "uncovered": 0,
        **balances(90),
    }
    assert answer["results"][1] == {
        "status": 201,
        "user_id": "u",
        "reservation_id": "r",
        "amount": 20,
        "expires_at": "2023-11-14T22:14:20.000Z",
        "expires_in": 60,
        **balances(70, 20),
    }
    refused = answer["results"][4]
    assert (refused["status"], refused["type"], refused["required"]) == (402, "/problems/insufficient-credits", 86)
    assert refused["detail"] and refused["title"] and refused["available"] == 85
    assert results(answer) == [
        200,
        201,
        200,
        "RESERVATION_COMMITTED",
        "INSUFFICIENT_CREDITS",
        "RESERVATION_NOT_FOUND",
        200,
    ]
    assert api.available("u") == 0


def test_an_atomic_batch_is_all_or_nothing(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    before = api.entries()
    undone = api.post("/batch", {"operations": [deduct(6), deduct(6), deduct(1)], "atomic": True})
    assert results(undone) == ["BATCH_NOT_APPLIED", "INSUFFICIENT_CREDITS", "BATCH_NOT_APPLIED"]
    assert undone["results"][0]["status"] == 424
    assert api.entries() == before
    assert results(api.post("/batch", {"operations": [deduct(6), deduct(4)], "atomic": True})) == [200, 200]
    assert api.available("u") == 0


def test_a_batch_with_a_key_is_repeated_as_a_whole(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    body = {"operations": [deduct(1), deduct(2), {"op": "reserve", "user_id": "u", "amount": 3}]}
    first = api.call("POST", "/credits/batch", body, key="k")
    again = api.call("POST", "/credits/batch", body, key="k")
    assert (first.replayed, again.raw, again.replayed) == (False, first.raw, True)
    assert api.get("/balance/u") == {"user_id": "u", **balances(4, 3)}


def test_p17_another_batch_under_the_key_is_refused_as_a_whole(api: Api) -> None:
    """Else one that is longer would be charged for what is beyond the first, and answer the rest as if it were it."""
    api.post("/add", {"user_id": "u", "amount": 10})
    first = [deduct(1), deduct(2)]
    assert results(api.post("/batch", {"operations": first}, key="k")) == [200, 200]
    for other in ([deduct(1), deduct(5)], [deduct(1)], [*first, deduct(3)], [deduct(2), deduct(1)], first[::-1]):
        api.refused(422, "idempotency-key-reused", "POST", "/batch", {"operations": other}, key="k")
    whole = {"operations": first, "atomic": True}
    assert results(api.post("/batch", whole, key="k")) == ["IDEMPOTENCY_KEY_REUSED"] * 2
    assert results(api.post("/batch", {"operations": first}, key="k")) == [200, 200]
    assert api.available("u") == 7


def test_p17_the_key_of_a_call_that_is_that_of_an_item_is_refused(api: Api) -> None:
    """`order.1` is the second item of a batch under `order`: the same deduct under it is not its repeat."""
    api.post("/add", {"user_id": "u", "amount": 10})
    body = {"user_id": "u", "amount": 2}
    api.post("/batch", {"operations": [deduct(1), deduct(2)]}, key="order")
    api.refused(422, "idempotency-key-reused", "POST", "/deduct", body, key="order.1")
    api.post("/deduct", body, key="other.1")
    many = {"operations": [deduct(1), deduct(2)]}
    api.refused(422, "idempotency-key-reused", "POST", "/batch", many, key="other")
    assert api.available("u") == 5


def test_p17_an_id_chosen_in_a_batch_stays_a_key_of_its_own(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    held = {"user_id": "u", "amount": 3, "reservation_id": "r"}
    api.post("/batch", {"operations": [{"op": "reserve", **held}]}, key="k")
    assert api.call("POST", "/credits/reservations", held).replayed
    other = {"operations": [deduct(1), {"op": "reserve", **held, "amount": 4}]}
    assert results(api.post("/batch", other, key="k2")) == [200, "IDEMPOTENCY_KEY_REUSED"]
    assert api.available("u") == 6


def test_a_batch_that_did_something_new_is_no_repeat(api: Api) -> None:
    body = {"operations": [deduct(0), deduct(5)]}
    first = api.call("POST", "/credits/batch", body, key="k")
    assert results(first.body) == [200, "INSUFFICIENT_CREDITS"]
    api.post("/add", {"user_id": "u", "amount": 5})
    second = api.call("POST", "/credits/batch", body, key="k")
    assert (results(second.body), second.replayed) == ([200, 200], False)
    assert api.call("POST", "/credits/batch", body, key="k").replayed


def test_the_largest_batch_is_taken_and_a_larger_one_is_not(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 500})
    assert results(api.post("/batch", {"operations": [deduct(1)] * 500})) == [200] * 500
    assert api.available("u") == 0
    for operations in ([deduct(1)] * 501, []):
        members = api.refused(422, "validation-error", "POST", "/batch", {"operations": operations})
        assert [error["pointer"] for error in members["errors"]] == ["/operations"]


@pytest.mark.parametrize(
    ("operation", "pointer"),
    [
        ({"op": "deduct", "user_id": "u", "amount": -1}, "/operations/1/amount"),
        ({"op": "deduct", "user_id": "u", "amount": 1, "extra": 1}, "/operations/1/extra"),
        ({"op": "deduct", "amount": 1}, "/operations/1/user_id"),
        ({"op": "reserve", "user_id": "u", "amount": 1, "ttl_seconds": 86401}, "/operations/1/ttl_seconds"),
        ({"op": "commit"}, "/operations/1/reservation_id"),
        ({"op": "release", "reservation_id": "a b"}, "/operations/1/reservation_id"),
        ({"op": "add", "user_id": "u", "amount": 1}, "/operations/1"),
        ({"user_id": "u", "amount": 1}, "/operations/1"),
        ("deduct", "/operations/1"),
        (None, "/operations/1"),
    ],
)
def test_a_fault_in_one_operation_refuses_the_batch_and_points_at_it(api: Api, operation: object, pointer: str) -> None:
    api.post("/add", {"user_id": "u", "amount": 5})
    before = api.entries()
    members = api.refused(422, "validation-error", "POST", "/batch", {"operations": [deduct(1), operation]})
    assert [error["pointer"] for error in members["errors"]] == [pointer]
    assert api.entries() == before


def test_a_smaller_limit_of_the_deployment_holds_for_batches_too() -> None:
    with TestClient(fake_app(batch_max=2)) as http:
        assert http.post("/credits/batch", json={"operations": [deduct(0)] * 2}).status_code == 200
        refused = http.post("/credits/batch", json={"operations": [deduct(0)] * 3})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/operations")


def test_users_of_several_partitions_are_served_and_an_atomic_batch_stays_in_one() -> None:
    server = fake_server()
    with TestClient(fake_app(server.fake, partitions=4)) as http:
        api = Api(http, server.client)
        users = [f"user-{n}" for n in range(12)]
        for user in users:
            api.post("/add", {"user_id": user, "amount": 5})
            api.post("/reservations", {"user_id": user, "amount": 2, "reservation_id": f"of-{user}"}, status=201)
        mixed = [deduct(1, user) for user in users] + [
            {"op": "commit", "reservation_id": f"of-{user}"} for user in users
        ]
        assert results(api.post("/batch", {"operations": mixed})) == [200] * 24
        assert [api.available(user) for user in users] == [2] * 12
        atomic = {"operations": [deduct(1, user) for user in users], "atomic": True}
        assert api.refused(422, "operations-span-partitions", "POST", "/batch", atomic) == {}
        team = {"operations": [deduct(0, f"org/{n}") for n in range(12)], "atomic": True}
        assert results(api.post("/batch", team)) == [200] * 12
        assert http.get("/readyz").status_code == 200
    assert len({key.decode().split(":")[1] for key in server.client.keys("*")}) == 4
    invariants.check(server.client, window_ms=WINDOW)
