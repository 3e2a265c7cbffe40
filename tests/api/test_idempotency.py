"""Idempotency-Key: the first answer again for the same body, a refusal for another, and no key used up by a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.sidecar import Api

# Each call that takes a key: method, path, body, and a body that asks for something else.
KEYED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "add": ("POST", "/add", {"user_id": "u", "amount": 5}, {"user_id": "u", "amount": 6}),
    "deduct": ("POST", "/deduct", {"user_id": "u", "amount": 5}, {"user_id": "v", "amount": 5}),
    "partial": (
        "POST",
        "/deduct",
        {"user_id": "u", "amount": 200, "shortfall": "partial"},
        {"user_id": "u", "amount": 2},
    ),
    "reserve": (
        "POST",
        "/reservations",
        {"user_id": "u", "amount": 5},
        {"user_id": "u", "amount": 5, "ttl_seconds": 9},
    ),
    "commit": ("POST", "/reservations/r/commit", {"amount": 4}, {"amount": 5}),
    "release": ("POST", "/reservations/r/release", {}, {"description": "why"}),
    "extend": ("POST", "/reservations/r/extend", {"add_amount": 1}, {"add_amount": 2}),
    "void": ("POST", "/grants/u/g/void", {}, {"metadata": {}}),
    "adjust up": (
        "POST",
        "/adjust",
        {"user_id": "u", "amount": 5, "reason": "x"},
        {"user_id": "u", "amount": 5, "reason": "y"},
    ),
    "adjust down": (
        "POST",
        "/adjust",
        {"user_id": "u", "amount": -5, "reason": "x"},
        {"user_id": "u", "amount": 5, "reason": "x"},
    ),
    "configure": ("PATCH", "/users/u", {"overdraft_limit": 5}, {"overdraft_limit": 6}),
}


@pytest.fixture
def funded(api: Api) -> Api:
    """User u has 100 credits in grant g, 10 of them in reservation r."""
    api.post("/add", {"user_id": "u", "amount": 100, "grant_id": "g"})
    api.post("/reservations", {"user_id": "u", "amount": 10, "reservation_id": "r"}, status=201)
    return api


@pytest.mark.parametrize("name", KEYED)
def test_the_same_call_gets_the_first_answer_byte_for_byte_and_another_body_422(funded: Api, name: str) -> None:
    method, path, body, other = KEYED[name]
    first = funded.call(method, "/credits" + path, body, key="key-1")
    assert first.status < 300 and not first.replayed, first.raw
    funded.advance(1)
    funded.post("/add", {"user_id": "u", "amount": 1})
    before = funded.entries()
    again = funded.call(method, "/credits" + path, body, key="key-1")
    assert (again.status, again.raw, again.replayed) == (first.status, first.raw, True)
    assert funded.refused(422, "idempotency-key-reused", method, path, other, key="key-1") == {}
    assert funded.entries() == before
    assert [entry.operation_id for entry in before].count("key-1") == 1


def test_a_refund_is_repeated_and_not_given_twice(funded: Api) -> None:
    charge = funded.post("/deduct", {"user_id": "u", "amount": 20})["transaction_id"]
    body = {"user_id": "u", "transaction_id": charge, "amount": 5}
    first = funded.call("POST", "/credits/refund", body, key="k")
    again = funded.call("POST", "/credits/refund", body, key="k")
    assert (again.raw, again.replayed) == (first.raw, True)
    funded.refused(422, "idempotency-key-reused", "POST", "/refund", {**body, "amount": 6}, key="k")
    assert funded.available("u") == 75


def test_a_key_used_for_one_call_is_refused_for_another(funded: Api) -> None:
    funded.post("/deduct", {"user_id": "u", "amount": 5}, key="k")
    funded.refused(422, "idempotency-key-reused", "POST", "/reservations", {"user_id": "u", "amount": 5}, key="k")
    funded.refused(422, "idempotency-key-reused", "POST", "/add", {"user_id": "u", "amount": 5}, key="k")


@pytest.mark.parametrize("amount", [5, 5.0, "5", "5.000000"])
def test_an_amount_written_another_way_is_the_same_body(funded: Api, amount: object) -> None:
    first = funded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 5}, key="k")
    again = funded.call("POST", "/credits/deduct", {"amount": amount, "user_id": "u", "shortfall": "reject"}, key="k")
    assert (again.raw, again.replayed) == (first.raw, True)


def test_a_refusal_does_not_use_the_key_up(api: Api) -> None:
    body = {"user_id": "u", "amount": 5}
    api.refused(402, "insufficient-credits", "POST", "/deduct", body, key="k")
    api.refused(422, "validation-error", "POST", "/deduct", {"user_id": "u"}, key="k")
    api.post("/add", {"user_id": "u", "amount": 5})
    done = api.call("POST", "/credits/deduct", body, key="k")
    assert (done.status, done.replayed) == (200, False)
    assert api.call("POST", "/credits/deduct", body, key="k").raw == done.raw


def test_a_key_may_be_a_quoted_string_which_is_the_same_key(funded: Api) -> None:
    body = {"user_id": "u", "amount": 5}
    first = funded.call("POST", "/credits/deduct", body, key='"8e03978e-40d5-43dd-bc93-6894a57f9324"')
    bare = funded.call("POST", "/credits/deduct", body, key="8e03978e-40d5-43dd-bc93-6894a57f9324")
    assert (first.replayed, bare.raw, bare.replayed) == (False, first.raw, True)


@pytest.mark.parametrize("key", ["", '""', '"', "two words", 'a"b', "a\\b", '"a"b"', "x" * 129, "a\tb", "clé"])
def test_a_key_that_is_none_is_400_and_nothing_is_written(funded: Api, key: str) -> None:
    before = funded.entries()
    answer = funded.call(
        "POST",
        "/credits/deduct",
        {"user_id": "u", "amount": 5},
        headers={"idempotency-key": key.encode("latin-1")},  # type: ignore[dict-item]
    )
    assert (answer.status, answer.body["code"]) == (400, "INVALID_IDEMPOTENCY_KEY")
    assert funded.entries() == before


@pytest.mark.parametrize("key", ["x" * 128, "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", "grant", "k"])
def test_every_visible_character_makes_a_key(funded: Api, key: str) -> None:
    first = funded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 5}, key=key)
    again = funded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 5}, key=key)
    assert (first.status, again.raw, again.replayed) == (200, first.raw, True)
    assert funded.entries()[-1].operation_id == key


def test_a_probe_is_repeated_though_it_writes_no_row(api: Api) -> None:
    first = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 0}, key="k")
    again = api.call("POST", "/credits/deduct", {"user_id": "u", "amount": 0}, key="k")
    assert (again.raw, again.replayed) == (first.raw, True)
    api.refused(422, "idempotency-key-reused", "POST", "/deduct", {"user_id": "u", "amount": 1}, key="k")


def test_keys_are_remembered_for_a_day_at_least(funded: Api) -> None:
    first = funded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 5}, key="k")
    funded.advance(86_399)
    again = funded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 5}, key="k")
    assert (again.raw, again.replayed) == (first.raw, True)
