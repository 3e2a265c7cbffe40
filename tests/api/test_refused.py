"""A4 and A10: what was refused, counted and told with the figures of its moment; and what ends soon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from meter.ledger import refusals
from meter.testing import app_in_step
from tests.api.test_reports import NOW, get, pages, post


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(app_in_step(partitions=3)) as client:
        client.put("/test-clock", json={"now": NOW})
        yield client


def test_a4_counted_by_reason_user_and_hour(http: TestClient) -> None:
    for user_id, many in (("a", 3), ("b", 1)):
        for _ in range(many):
            post(http, "/deduct", {"user_id": user_id, "amount": 1}, 402)
    http.patch("/credits/users/c", json={"suspended": True})
    post(http, "/deduct", {"user_id": "c", "amount": 1}, 403)
    http.put("/test-clock", json={"advance_seconds": 3600})
    post(http, "/deduct", {"user_id": "a", "amount": 1}, 402)

    assert pages(http, "/refusals?group_by=reason&limit=1") == [
        {"reason": "insufficient", "refusals": 5},
        {"reason": "suspended", "refusals": 1},
    ]
    assert pages(http, "/refusals?group_by=user&limit=1")[0] == {"user": "a", "refusals": 4}
    assert pages(http, "/refusals?group_by=user,hour&limit=9")[:2] == [
        {"user": "a", "hour": NOW, "refusals": 3},
        {"user": "a", "hour": "2030-01-01T13:00:00.000Z", "refusals": 1},
    ]
    later = "from=2030-01-01T13:00:00Z&to=2030-01-01T14:00:00Z"
    assert get(http, f"/refusals?{later}")["items"] == [{"reason": "insufficient", "refusals": 1}]
    assert http.get("/credits/refusals?group_by=reason,reason").status_code == 422


def test_a4_the_last_hundred_of_a_user_and_a_flood_is_a_number(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "KEPT_OF_A_USER", 5)
    monkeypatch.setattr("meter.api.refused.KEPT_OF_A_USER", 5)
    monkeypatch.setattr(refusals, "TRIMMED_AFTER", 3)
    monkeypatch.setattr(refusals, "PER_USER_BURST", 4)
    monkeypatch.setattr(refusals, "PAUSE_SECONDS", 60)
    for n in range(1, 4):
        for _ in range(4):
            post(http, "/deduct", {"user_id": "a", "amount": n}, 402, X_Request_Id=f"r{n}")
        get(http, "/refusals")
    for _ in range(7):  # three more than one write takes of a user
        post(http, "/deduct", {"user_id": "b", "amount": 1}, 402)

    assert {one["user"]: one["refusals"] for one in pages(http, "/refusals?group_by=user&limit=5")} == {"a": 12, "b": 7}
    last = pages(http, "/refusals/a?limit=2")
    assert [(one["amount"], one["reference"]) for one in last] == [(3, "r3")] * 4 + [(2, "r2")]
    assert last[0]["violations"] == [{"rule": "credits", "user_id": "a", "id": None, "limit": 0, "required": 3}]
    assert len(pages(http, "/refusals/b?limit=50")) == 4
    kept = pages(http, "/events?kind=refusal&user_id=a&limit=50")
    assert len(kept) <= 8  # the last five, and what came since they were counted out


def test_a4_a_budget_that_refuses_is_told_as_it_stood(http: TestClient) -> None:
    post(http, "/add", {"user_id": "org/key", "amount": 100})
    budget = {"budgets": {"daily": {"limit": 10, "window": "day"}}}
    assert http.patch("/credits/users/org", json=budget).status_code == 200
    post(http, "/deduct", {"user_id": "org/key", "amount": 8})
    post(http, "/deduct", {"user_id": "org/key", "amount": 5}, 402)
    http.patch("/credits/users/org", json={"budgets": {"daily": {"limit": 99}}})

    [refused] = get(http, "/refusals/org%2Fkey")["items"]
    [rule] = refused["violations"]
    assert (refused["reason"], refused["available"]) == ("budget_reached", 92)
    assert (rule["rule"], rule["user_id"], rule["id"], rule["limit"], rule["used"]) == ("budget", "org", "daily", 10, 8)


def test_a10_what_ends_soon_of_everybody(http: TestClient) -> None:
    for n in range(5):
        day = 2 + n
        post(http, "/add", {"user_id": f"u{n % 2}", "amount": 10, "expires_at": f"2030-01-{day:02}T00:00:00Z"})
    post(http, "/add", {"user_id": "never", "amount": 10})
    post(http, "/deduct", {"user_id": "u0", "amount": 4})
    told = get(http, "/expiring?days=3.4&limit=2")
    assert (told["credits"], told["users"]) == (26, 2)
    assert [one["remaining"] for one in pages(http, "/expiring?days=3.4&limit=2")] == [6, 10, 10]
