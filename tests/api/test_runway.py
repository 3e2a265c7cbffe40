"""`GET /credits/runway/{user_id}`, and the alert `runs_out_soon`, on a test clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from meter.testing import app_in_step
from tests.api.test_reports import get, post


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(app_in_step(partitions=3, runs_out_days="7,2", notify="log")) as client:
        client.put("/test-clock", json={"now": "2030-01-01T12:30:00Z"})
        yield client


def pass_hours(http: TestClient, hours: float) -> None:
    http.put("/test-clock", json={"advance_seconds": hours * 3600})


def spend(http: TestClient, user_id: str, amount: float, days: int) -> None:
    """So much a day, and then a moment to see it."""
    for _ in range(days):
        post(http, "/deduct", {"user_id": user_id, "amount": amount})
        pass_hours(http, 24)


def judge(http: TestClient) -> int:
    """All pages of the job; how many were told."""
    warned, more = 0, True
    while more:
        page = post(http, "/jobs/runway", {})
        warned, more = warned + page["warned"], page["more"]
    return int(warned)


def alerts(http: TestClient, user_id: str) -> list[Any]:
    post(http, "/jobs/deliver", {})
    found = http.get("/credits/notifications?limit=500").json()["items"]
    return [one for one in found if one["user_id"] == user_id and one["kind"] == "runs_out_soon"]


def test_nothing_is_said_below_a_day_of_charges(http: TestClient) -> None:
    post(http, "/add", {"user_id": "u", "amount": 100})
    post(http, "/deduct", {"user_id": "u", "amount": 10})
    pass_hours(http, 23.9)
    silent = get(http, "/runway/u")
    pass_hours(http, 0.1)
    told = get(http, "/runway/u")

    assert silent == {
        "user_id": "u",
        "available": 90,
        "burn_per_day": None,
        "runs_out_at": None,
        "next_credits_at": None,
        "covered_until_next_credits": None,
        "confidence": None,
        "is_complete": True,
    }
    assert told["confidence"] == "low" and 9.7 < told["burn_per_day"] <= 10
    assert told["runs_out_at"].startswith("2030-01-11T")
    assert get(http, "/runway/nobody") == {**silent, "user_id": "nobody", "available": 0}


def test_top_ups_are_no_burn_and_refunds_are_less_of_it(http: TestClient) -> None:
    post(http, "/add", {"user_id": "u", "amount": 100})
    charge = post(http, "/deduct", {"user_id": "u", "amount": 40})
    pass_hours(http, 24)
    before = get(http, "/runway/u")["burn_per_day"]
    post(http, "/add", {"user_id": "u", "amount": 1000})
    assert get(http, "/runway/u")["burn_per_day"] == before
    post(http, "/refund", {"user_id": "u", "transaction_id": charge["transaction_id"]})

    found = get(http, "/runway/u")

    assert (found["burn_per_day"], found["runs_out_at"], found["available"]) == (0, None, 1100)
    assert found["covered_until_next_credits"] is None


def test_ends_starts_and_renewals_are_walked_over(http: TestClient) -> None:
    """20 a day: the first grant ends before it is spent, the plan renews each week, and 150 a week are 10 too many."""
    body = {"plan_id": "pro", "name": "P", "credit_limit": 150, "price": 1, "billing_period": "weekly"}
    post(http, "/plans", body, 201)
    assert http.put("/credits/subscriptions/u", json={"plan_id": "pro"}).is_success
    spend(http, "u", 20, 5)
    found = get(http, "/runway/u")
    assert (found["covered_until_next_credits"], found["runs_out_at"]) == (True, None)
    assert found["next_credits_at"] == "2030-01-08T12:30:00.000Z"

    post(http, "/deduct", {"user_id": "u", "amount": 40})
    short = get(http, "/runway/u")

    assert short["covered_until_next_credits"] is False
    assert short["runs_out_at"] < short["next_credits_at"]


def test_who_runs_out_soon_is_told_once_on_crossing_and_again_after_a_margin(http: TestClient) -> None:
    for user_id in ("u", "v"):
        post(http, "/add", {"user_id": user_id, "amount": 120})
    post(http, "/add", {"user_id": "rich", "amount": 100000})
    for _ in range(6):
        for user_id in ("u", "v", "rich"):
            post(http, "/deduct", {"user_id": user_id, "amount": 10})
        pass_hours(http, 24)
        judge(http)
    assert [one["data"]["days"] for one in alerts(http, "u")] == [7]
    assert judge(http) == 0

    post(http, "/add", {"user_id": "u", "amount": 5})
    judge(http)
    assert len(alerts(http, "u")) == 1, "within the margin"
    post(http, "/add", {"user_id": "u", "amount": 60})
    judge(http)
    post(http, "/deduct", {"user_id": "u", "amount": 70})
    judge(http)

    told = alerts(http, "u")
    assert [one["data"]["days"] for one in sorted(told, key=lambda one: one["created_at"])] == [7, 7]
    assert alerts(http, "rich") == []
    assert set(told[0]["data"]) == {"days", "runs_out_at", "available", "burn_per_day"}
    spend(http, "v", 12, 4)
    judge(http)
    assert {one["data"]["days"] for one in alerts(http, "v")} == {7, 2}
