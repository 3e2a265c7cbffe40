"""A year in a minute: a monthly plan from 31 January on, moved on by the test clock, with the jobs called by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.alerts.post import Post, post
from tests.alerts.receiver import Receiver, receiver

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
IDLE = 6
"""The month in which nothing is spent."""


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
    """Each month 80 of 100 are spent, but for July; of the rest up to 15 live on for three days more."""
    async with post(START) as office, receiver() as hook:
        secret = office.add_webhook(hook.url)["secret"]
        plan = {"plan_id": "pro", "name": "Pro", "credit_limit": 100, "price": "9.90", "billing_period": "monthly"}
        office.call("POST", "/plans", {**plan, "rollover": {"max_amount": 15, "valid_days": 3}}, status=201)
        office.call("PUT", "/subscriptions/u", {"plan_id": "pro"})
        office.call("PATCH", "/users/u", {"low_credit_thresholds": [40]})
        for number, end in enumerate(ENDS):
            if number != IDLE:
                office.call("POST", "/deduct", {"user_id": "u", "amount": 80})
            await step(office, datetime.fromtimestamp(end.timestamp() - 86_400 * 5, UTC))
            await step(office, end)
            row = office.call("GET", "/subscriptions/u")["items"][0]
            assert (row["period"], row["state"]) == (number + 1, "active")
            assert datetime.fromisoformat(row["period_started_at"]) == end
            assert office.call("GET", "/balance/u")["available"] == 115

        kinds = [(item["kind"], item["amount"]) for item in history(office) if item["kind"] != "account"]
        first = [("grant", 100), ("deduct", 80), ("grant_rolled_over", 15), ("grant_expired", 5)]
        month = [("grant", 100), ("deduct", 80), ("grant_rolled_over", 15), ("grant_expired", 20)]
        idle = [("grant", 100), ("grant_expired", 15), ("grant_rolled_over", 15), ("grant_expired", 85)]
        assert kinds == first + month * (IDLE - 1) + idle + month * (11 - IDLE) + [("grant", 100)]
        check_alerts(office, hook, secret)


def check_alerts(office: Post, hook: Receiver, secret: str) -> None:
    """Every alert of the year arrived once and signed: two of a month's grant, and one of its rest, come to an end."""
    assert all(one.signed_by(secret) for one in hook.received)
    assert len({one.id for one in hook.received}) == len(hook.received)
    counts = {"low_credits": 11, "credits_expired": 13, "expiring_credits": 24, "subscription_renewed": 12}
    assert {kind: hook.kinds().count(kind) for kind in set(hook.kinds())} == counts
    data = [one.body["data"] for one in hook.received]
    ending = [item["grant_id"].partition(".")[2] for item in data if "days" in item]
    assert sorted(ending) == sorted(f"{number}{name}" for number in range(12) for name in ("", ".rollover"))
    expired = sum(item["amount"] for item, kind in zip(data, hook.kinds(), strict=True) if kind == "credits_expired")
    assert expired == 5 + 20 * 10 + 15 + 85
    assert {entry["state"] for entry in office.log()} == {"delivered"}
