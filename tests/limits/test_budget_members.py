"""What a budget counts, whether it refuses, what it tells, and how it begins anew; from outside."""

from __future__ import annotations

from typing import Any

from tests.limits.conftest import Shop, reached


def alerts(shop: Shop) -> list[tuple[str, str, str, int, int]]:
    """The alerts of budgets in the ledger: kind, level, budget, millionths, used."""
    told: list[Any] = [entry.detail.get("budget_alerts", []) for entry in shop.entries()]
    found = [one for several in told for one in several]
    return [(kind, level, name, at, used) for kind, level, name, _, at, used, *_ in found]


def test_a_budget_of_requests(shop: Shop) -> None:
    """A commit keeps the request of its reservation, a release and an end give it back; limits are whole."""
    shop.add("u", 100)
    shop.budgets(calls={"limit": 3, "window": "day", "unit": "requests"})
    hold, other = shop.reserve(50, ttl_seconds=60), shop.reserve(1, ttl_seconds=60)
    assert shop.budget(name="calls") == {
        "limit": 3,
        "window": "day",
        "time_zone": "UTC",
        "unit": "requests",
        "mode": "enforce",
        "alert_at": [],
        "used": 2,
        "reserved": 0,
        "remaining": 1,
        "resets_at": "2030-01-02T00:00:00.000Z",
        "source": "user",
    }
    assert shop.deduct(1).status == 200
    refused = shop.deduct(1)
    assert reached(refused) == [("u", "calls")]
    [violation] = refused.body["violations"]
    assert (violation["limit"], violation["used"]) == (3, 3)
    assert shop.deduct(0).status == 200, "which asks for nothing"
    assert shop.commit(hold, 70).status == 200, "which was let through"
    assert shop.used(name="calls")[0] == 3
    assert shop.release(other).status == 200
    assert shop.used(name="calls")[0] == 2
    shop.reserve(1, ttl_seconds=60)
    assert shop.deduct(1).status == 402
    shop.advance(60)
    assert shop.deduct(1).status == 200, "the hold ended, and nothing came of it"
    shop.budgets(calls={"limit": 4})
    assert (shop.budget(name="calls")["limit"], shop.used(name="calls")[0]) == (4, 3)
    members = shop.refused(
        422, "validation-error", "PATCH", "/users/u", {"budgets": {"calls": {"limit": 1.5, "unit": "requests"}}}
    )
    assert members["errors"][0]["pointer"] == "/budgets/calls/limit"
    assert shop.call("PATCH", "/credits/users/u", {"budgets": {"calls": {"limit": 1.5}}}).status == 422
    shop.advance(86_400)
    assert shop.used(name="calls") == (0, 0)


def test_another_unit_begins_anew(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(one={"limit": 10, "window": "day"})
    shop.deduct(7)
    shop.budgets(one={"unit": "requests", "limit": 5})
    assert shop.used(name="one") == (0, 0)
    shop.deduct(7)
    assert shop.used(name="one") == (1, 0)
    shop.budgets(one={"unit": None, "limit": 10})
    assert shop.budget(name="one")["unit"] == "credits"


def test_a_budget_that_observes_refuses_nothing(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(seen={"limit": 10, "window": "day", "mode": "observe", "alert_at": [0.5]})
    assert [shop.deduct(6).status for _ in range(3)] == [200] * 3
    assert shop.deduct(2, shortfall="partial").body["taken"] == 2
    budget = shop.budget(name="seen")
    assert (budget["used"], budget["remaining"], budget["mode"]) == (20, 0, "observe")
    assert alerts(shop) == [
        ("budget_warning", "u", "seen", 500_000, 6_000_000),
        ("budget_reached", "u", "seen", 10**6, 12_000_000),
    ]
    shop.budgets(seen={"mode": None})
    assert reached(shop.deduct(1)) == [("u", "seen")]


def test_alerts_are_told_once_a_window_on_the_level(shop: Shop) -> None:
    """By the charge that reaches them, not by what is held; and again in the next window, or after a reset."""
    shop.add("acme/a", 100)
    shop.budgets("acme", daily={"limit": 10, "window": "day", "alert_at": [0.8, 0.5]})
    hold = shop.reserve(9, "acme/a")
    assert alerts(shop) == []
    shop.commit(hold, 8)
    both = [("budget_warning", "acme", "daily", at, 8_000_000) for at in (500_000, 800_000)]
    assert alerts(shop) == both
    shop.deduct(1, "acme/a")
    assert alerts(shop) == both
    shop.deduct(1, "acme/a")
    assert alerts(shop) == [*both, ("budget_reached", "acme", "daily", 10**6, 10_000_000)]
    shop.budgets("acme", daily={"limit": 20})
    shop.deduct(9, "acme/a")
    assert len(alerts(shop)) == 3, "those of this window were told"
    shop.advance(86_400)
    shop.deduct(10, "acme/a")
    assert alerts(shop)[3:] == [("budget_warning", "acme", "daily", 500_000, 10_000_000)]


def test_a_reset_begins_a_budget_anew(shop: Shop) -> None:
    """What is held weighs as before; a charge of before is not given back to the new beginning."""
    shop.add("u", 100)
    shop.budgets(daily={"limit": 10, "window": "day", "alert_at": [0.5]}, weekly={"limit": 50, "window": "week"})
    charge = shop.deduct(6).body["transaction_id"]
    hold = shop.reserve(3)
    settings: Any = shop.post("/users/u/budgets/daily/reset", {})
    assert (settings["budgets"]["daily"]["used"], settings["budgets"]["daily"]["reserved"]) == (0, 3)
    assert settings["budgets"]["weekly"]["used"] == 6
    shop.post("/refund", {"user_id": "u", "transaction_id": charge})
    assert shop.used() == (0, 3)
    assert shop.commit(hold, 3).status == 200
    assert reached(shop.deduct(8)) == [("u", "daily")]
    assert shop.deduct(7).status == 200
    assert [kind for kind, *_ in alerts(shop)] == ["budget_warning", "budget_warning", "budget_reached"]
    assert shop.call("POST", "/credits/users/u/budgets/none/reset", {}).status == 404
    assert shop.call("POST", "/credits/users/v/budgets/daily/reset", {}).status == 404
