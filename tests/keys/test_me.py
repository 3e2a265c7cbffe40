"""What users ask about themselves: H40 as far as budgets go, `/me/*`."""

from __future__ import annotations

from decimal import Decimal

from tests.api.sidecar import Answer, problem_members
from tests.keys.conftest import Counter


def mine(counter: Counter, text: str, path: str) -> Answer:
    return counter.call("GET", f"/me/{path}", headers={"authorization": f"Bearer {text}"})


def test_one_sees_oneself_and_nobody_else(counter: Counter) -> None:
    text, others = counter.issue("u")["key"], counter.issue("acme/alice")["key"]
    counter.add("acme/alice", 2)
    assert counter.reserve(text, 1).status == 201
    assert counter.call("POST", "/credits/deduct", {"api_key": text, "amount": "0.5"}).status == 200

    assert mine(counter, text, "balance").body["available"] == Decimal("3.5")
    assert mine(counter, others, "balance").body["user_id"] == "acme/alice"
    kinds = [row["kind"] for row in mine(counter, text, "history").body["items"]]
    assert kinds == ["deduct", "reserve", "key", "grant"]
    [charged] = mine(counter, text, "history?kind=deduct").body["items"]
    assert charged["user_id"] == "u"
    if counter.folder is None:  # else nobody flushes
        assert [row["spent"] for row in mine(counter, text, "usage?by=user").body["items"]] == [Decimal("0.5")]
    assert [row["user_id"] for row in mine(counter, others, "keys").body["items"]] == ["acme/alice"]
    for path in ("usage?user_id=acme/alice", "keys?user_id=acme/alice", "usage?path=acme"):
        problem_members(mine(counter, text, path), 422, "validation-error")


def test_p6_a_balance_of_a_past_time_is_not_todays(counter: Counter) -> None:
    text = counter.issue("u")["key"]
    assert mine(counter, text, "balance").body["available"] > 0
    if counter.folder is None:  # there is a store that has no past of this user
        past = mine(counter, text, "balance?at=2020-01-01T00:00:00Z")
        assert (past.status, past.body["available"]) == (200, 0)
    problem_members(mine(counter, text, "balance?when=now"), 422, "validation-error")


def test_it_needs_a_key_that_may_read(counter: Counter) -> None:
    blind = counter.issue("u", scopes=["spend"])["key"]
    operators = counter.issue(None, scopes=["admin:read"])["key"]

    for path in ("balance", "history", "usage", "keys"):
        assert problem_members(mine(counter, blind, path), 403, "key-not-allowed") == {"scope": "read:self"}
        counter.invalid(mine(counter, blind[:-1], path))
        counter.invalid(mine(counter, operators, path))
        nobody = counter.call("GET", f"/me/{path}", headers={"x-user-id": "u"})
        problem_members(nobody, 401, "missing-identity")
        assert nobody.headers["www-authenticate"] == 'Bearer realm="meter"'
