"""A1 and A3: whose an id is, and the transactions and refusals of everybody, flushed or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from meter.ledger import across
from meter.testing import app_in_step
from tests.api.test_reports import NOW, get, pages, post


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(app_in_step(partitions=3)) as client:
        client.put("/test-clock", json={"now": NOW})
        yield client


def found(http: TestClient, text: str) -> list[tuple[str, str]]:
    return [(one["kind"], one["user_id"]) for one in get(http, f"/find?id={text}")["items"]]


def test_a1_every_kind_of_id_leads_to_its_user(http: TestClient) -> None:
    post(http, "/add", {"user_id": "acme/eu", "amount": 100, "grant_id": "g-1"})
    charge = post(http, "/deduct", {"user_id": "acme/eu", "amount": 1}, X_Request_Id="req-1")
    hold = {"user_id": "acme/eu", "amount": 1, "reservation_id": "hold-1"}
    assert http.post("/credits/reservations", json=hold).status_code == 201
    keyed = post(http, "/deduct", {"user_id": "acme/us", "amount": 900}, 402, X_Request_Id="req-2")
    key = http.post("/credits/keys", json={"user_id": "acme/eu"}).json()

    assert keyed["code"] == "INSUFFICIENT_CREDITS"
    assert found(http, "acme/eu") == [("user", "acme/eu")]
    assert found(http, "acme") == [("user", "acme/eu")]
    assert found(http, "req-1") == [("request", "acme/eu")]
    assert found(http, charge["transaction_id"]) == [("transaction", "acme/eu")]
    assert found(http, "hold-1") == [("reservation", "acme/eu")]
    assert found(http, "g-1") == [("grant", "acme/eu")]
    assert found(http, key["key_id"]) == [("key", "acme/eu")]
    get(http, "/events")  # what was refused is written when somebody looks, else within a second
    assert found(http, "req-2") == [("refusal", "acme/us")]
    assert found(http, "nobody") == []


def test_a1_the_exact_one_comes_first_and_twenty_are_enough(http: TestClient) -> None:
    for n in range(25):
        post(http, "/add", {"user_id": f"u{n:02}", "amount": 1})
    post(http, "/add", {"user_id": "u", "amount": 1})
    items = get(http, "/find?id=u")["items"]
    assert [one["user_id"] for one in items] == ["u", *(f"u{n:02}" for n in range(19))]


def test_a3_everybody_newest_first_with_what_was_refused(http: TestClient) -> None:
    for n in range(4):
        post(http, "/add", {"user_id": f"u{n}", "amount": 10, "metadata": {"team": n % 2}})
        http.put("/test-clock", json={"advance_seconds": 60})
    post(http, "/deduct", {"user_id": "u1", "amount": 11}, 402, X_Actor="ada")
    http.put("/test-clock", json={"advance_seconds": 60})
    post(http, "/deduct", {"user_id": "u2", "amount": 3}, X_Actor="ada")
    get(http, "/events")

    everything = pages(http, "/transactions?include=refusals&limit=2")
    assert [(one["kind"], one["user_id"]) for one in everything] == [
        ("deduct", "u2"),
        ("refusal", "u1"),
        ("grant", "u3"),
        ("grant", "u2"),
        ("grant", "u1"),
        ("grant", "u0"),
    ]
    refusal = everything[1]
    assert (refusal["reason"], refusal["amount"], refusal["available"]) == ("insufficient", 11, 10)
    assert refusal["violations"] == [
        {"rule": "credits", "user_id": "u1", "id": None, "limit": 10, "required": 11},
    ]
    assert [one["kind"] for one in pages(http, "/transactions?kind=deduct,void&limit=1")] == ["deduct"]
    assert [one["user_id"] for one in pages(http, "/transactions?metadata=team:1&limit=1")] == ["u3", "u1"]
    assert len(pages(http, "/transactions?actor=ada&limit=1")) == 1
    assert len(pages(http, "/transactions?actor=ada&include=refusals&limit=1")) == 2
    assert [one["kind"] for one in pages(http, "/transactions?user_id=u1&include=refusals&limit=1")] == [
        "refusal",
        "grant",
    ]
    since = "2030-01-01T12:01:00Z"
    assert [one["user_id"] for one in pages(http, f"/transactions?kind=grant&from={since}&limit=1")] == [
        "u3",
        "u2",
        "u1",
    ]
    assert [one["user_id"] for one in pages(http, f"/transactions?to={since}&limit=1")] == ["u0"]
    csv = http.get("/credits/transactions?format=csv").text.splitlines()
    assert csv[0].startswith("transaction_id,seq,kind,user_id,amount") and len(csv) == 6


def test_a3_a_rare_row_is_found_though_a_page_looks_at_few(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "SCANNED_MAX", 3)
    monkeypatch.setattr(across, "CHUNK", 2)
    post(http, "/add", {"user_id": "u", "amount": 100}, X_Actor="ada")
    for n in range(9):
        post(http, "/deduct", {"user_id": f"u{n % 2}", "amount": 0.5, "shortfall": "reject"}, 402)
        post(http, "/deduct", {"user_id": "u", "amount": 1})
    first = get(http, "/transactions?actor=ada")
    assert (first["items"], first["next_cursor"] is None) == ([], False)
    assert [one["kind"] for one in pages(http, "/transactions?actor=ada&limit=50")] == ["grant"]


def test_a3_the_chain_of_a_charge_and_what_can_be_refunded(http: TestClient) -> None:
    post(http, "/add", {"user_id": "u", "amount": 100})
    hold = {"user_id": "u", "amount": 30, "reservation_id": "r-1"}
    assert http.post("/credits/reservations", json=hold, headers={"x-request-id": "req-9"}).status_code == 201
    http.put("/test-clock", json={"advance_seconds": 5})
    post(http, "/reservations/r-1/extend", {"add_amount": 5})
    post(http, "/deduct", {"user_id": "u", "amount": 2})
    http.put("/test-clock", json={"advance_seconds": 5})
    post(http, "/reservations/r-1/commit", {"amount": 20})
    [commit] = get(http, "/transactions?kind=commit")["items"]
    for amount in (3, 4):
        post(http, "/refund", {"user_id": "u", "transaction_id": commit["transaction_id"], "amount": amount})

    story = get(http, f"/transactions/{commit['transaction_id']}")
    kinds = ["reserve", "extend", "commit", "refund", "refund"]
    assert [one["kind"] for one in story["chain"]] == kinds
    assert (story["refundable"], story["transaction"]["reference"]) == (13, "req-9")
    of_a_refund = get(http, f"/transactions/{story['chain'][-1]['transaction_id']}")
    assert ([one["kind"] for one in of_a_refund["chain"]], of_a_refund["refundable"]) == (kinds, None)
    assert [one["kind"] for one in get(http, "/transactions?reservation_id=r-1")["items"]] == kinds[2::-1]
    assert http.get("/credits/transactions/0-99999-x-1").json()["code"] == "TRANSACTION_NOT_FOUND"


def test_a3_a_change_of_an_account_tells_what_was_there_before(http: TestClient) -> None:
    http.patch("/credits/users/u", json={"overdraft_limit": 5, "low_credit_thresholds": [10]})
    http.patch("/credits/users/u", json={"overdraft_limit": 7.5, "metadata": {"team": "red"}})
    http.patch("/credits/users/u", json={"suspended": True, "price_multiplier": 1.5, "low_credit_thresholds": []})
    told: list[Any] = [one["changes"] for one in get(http, "/transactions?user_id=u&kind=account")["items"]]
    assert told == [
        {"suspended": [False, True], "low_credit_thresholds": [[10], []], "price_multiplier": [None, 1.5]},
        {"overdraft_limit": [5, 7.5], "metadata": [None, {"team": "red"}]},
        {"overdraft_limit": [0, 5], "low_credit_thresholds": [[], [10]]},
    ]


def test_a3_two_ways_to_say_whose_are_one_too_many(http: TestClient) -> None:
    answer = http.get("/credits/transactions?user_id=u&reference=r")
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"pointer": "/reference", "detail": "does not go with user_id"}],
    )
