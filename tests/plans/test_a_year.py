"""A year in a minute: a monthly plan from 31 January on, moved on by the test clock, with the jobs called by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.notify.post import Post, post
from tests.notify.receiver import receiver

START = datetime(2030, 1, 31, 12, tzinfo=UTC)
ENDS = [
    datetime(2030, month, day, 12, tzinfo=UTC)
    for month, day in (
        (2, 28),
        (3, 31),
        (4, 30),
        (5, 31),
        (6, 30),
        (7, 31),
        (8, 31),
        (9, 30),
        (10, 31),
        (11, 30),
        (12, 31),
    )
] + [datetime(2031, 1, 31, 12, tzinfo=UTC)]


async def step(office: Post, now: datetime) -> None:
    """The clock moves, and every job runs once."""
    answer = office.http.put("/test-clock", json={"now": now.isoformat()})
    assert answer.status_code == 200, answer.text
    office.now = now
    await office.town.sweep()
    await office.town.allocate()
    await office.remind()
    await office.deliver()


def history(office: Post) -> list[Any]:
    items = office.call("GET", "/history/u?limit=500")["items"]
    return list(reversed(items))


async def test_a_year_of_a_plan() -> None:
    async with post(START) as office, receiver() as hook:
        secret = office.add_webhook(hook.url)["secret"]
        plan = {"plan_id": "pro", "name": "Pro", "credit_limit": 100, "price": "9.90", "billing_period": "monthly"}
        office.call("POST", "/plans", plan, status=201)
        office.call("PUT", "/subscriptions/u", {"plan_id": "pro"})
        office.call("PATCH", "/users/u", {"low_credit_thresholds": [25]})
        for number, end in enumerate(ENDS):
            office.call("POST", "/deduct", {"user_id": "u", "amount": 80})
            await step(office, datetime.fromtimestamp(end.timestamp() - 86_400 * 5, UTC))
            await step(office, end)
            row = office.call("GET", "/subscriptions/u")["items"][0]
            assert (row["period"], row["state"]) == (number + 1, "active")
            assert datetime.fromisoformat(row["period_started_at"]) == end
            assert office.call("GET", "/balance/u")["available"] == 100
        kinds = [(item["kind"], item["amount"]) for item in history(office) if item["kind"] != "account"]
        month = [("grant", 100), ("deduct", 80), ("grant_expired", 20)]
        assert kinds == month * 12 + [("grant", 100)]
        assert all(one.signed_by(secret) for one in hook.received)
        assert len({one.id for one in hook.received}) == len(hook.received)
        expected = ["credits_exhausted", "credits_expired", "expiring_credits", "low_credits", "subscription_renewed"]
        assert {kind: hook.kinds().count(kind) for kind in expected} == dict.fromkeys(expected, 12)
        assert len(hook.received) == 60
        assert {entry["state"] for entry in office.log()} == {"delivered"}
