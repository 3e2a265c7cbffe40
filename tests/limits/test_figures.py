"""What explain and quote show of each level, the counter of rules that refuse, and cases at the edges of windows."""

from __future__ import annotations

from tests.limits.conftest import Shop, reached


def test_explain_and_quote_show_what_each_level_stands_at(shop: Shop) -> None:
    """Leaf first, those without rules left out; nothing is changed by looking."""
    shop.add("acme/red/bot", 100)
    shop.set("acme", budgets={"daily": {"limit": 50, "window": "day"}}, pool=True)
    limits = {"rpm": {"kind": "requests", "limit": 4}, "open": {"kind": "concurrent", "limit": 2}}
    shop.set("acme/red/bot", rate_limits=limits, budgets={"all": {"limit": 20, "window": "total"}})
    assert shop.deduct(6, "acme/red/bot").status == 200
    shop.reserve(3, "acme/red/bot")
    explained = shop.get("/explain/acme%2Fred%2Fbot?amount=12")
    bot, acme = explained["levels"]
    assert (bot["user_id"], acme["user_id"], acme["pool"], bot["pool"]) == ("acme/red/bot", "acme", True, False)
    assert acme["budgets"] == {
        "daily": {
            "limit": 50,
            "window": "day",
            "time_zone": "UTC",
            "unit": "credits",
            "mode": "enforce",
            "alert_at": [],
            "used": 6,
            "reserved": 3,
            "remaining": 41,
            "resets_at": "2030-01-02T00:00:00.000Z",
            "source": "user",
        }
    }
    assert bot["budgets"]["all"]["resets_at"] is None and bot["budgets"]["all"]["remaining"] == 11
    rpm = {"kind": "requests", "limit": 4, "per_seconds": 60, "burst": 4, "source": "user"}
    assert bot["rate_limits"]["rpm"] == {**rpm, "remaining": 2, "resets_in": 30}
    assert bot["rate_limits"]["open"] == {"kind": "concurrent", "limit": 2, "source": "user", "remaining": 1}
    assert explained["would"] == "budget_reached"
    quoted = shop.post("/quote", {"user_id": "acme/red/bot", "amount": 12})
    assert quoted["levels"] == explained["levels"]
    shop.add("plain", 1)
    assert shop.get("/explain/plain")["levels"] == []


def test_all_that_refuses_one_request_is_told_and_counted_at_once(shop: Shop) -> None:
    shop.add("acme/a", 5)
    shop.set("acme", suspended=True, budgets={"d": {"limit": 1, "window": "day"}})
    shop.limits("acme/a", l={"kind": "requests", "limit": 1}, c={"kind": "concurrent", "limit": 1})
    shop.set("acme", suspended=False)
    shop.reserve(1, "acme/a")
    refused = shop.ask("/reservations", user_id="acme/a", amount=9)
    rules = [one["rule"] for one in refused.body["violations"]]
    assert (refused.status, sorted(rules)) == (402, ["budget", "concurrency", "credits", "rate_limit"])
    shop.set("acme", suspended=True)
    assert shop.deduct(1, "acme/a").status == 403
    text = shop.http.get("/metrics").text
    counted = {line.partition(" ")[0]: line.partition(" ")[2] for line in text.splitlines() if "refusing_rules" in line}
    assert counted['meter_refusing_rules_total{rule="concurrency"}'] == "1.0"
    assert counted['meter_refusing_rules_total{rule="suspended"}'] == "1.0"
    assert all("acme" not in name for name in counted), "no label names a user"


def test_a_cap_over_midnight_in_kathmandu(shop: Shop) -> None:
    """UTC+05:45: the day ends at 18:15 UTC, and not a millisecond before or after."""
    shop.add("u", 100)
    shop.budgets(daily={"limit": 10, "window": "day", "time_zone": "Asia/Kathmandu"})
    assert shop.budget()["resets_at"] == "2030-01-01T18:15:00.000Z"
    assert shop.deduct(7).status == 200
    hold = shop.reserve(3, ttl_seconds=86_400)
    shop.at("2030-01-01T18:14:59.999Z")
    assert reached(shop.deduct("0.000001")) == [("u", "daily")]
    shop.at("2030-01-01T18:15:00.000Z")
    assert shop.used("u") == (0, 3), "the open hold weighs on both days"
    assert reached(shop.deduct(8)) == [("u", "daily")]
    assert shop.deduct(7).status == 200
    assert shop.commit(hold, 3).status == 200
    assert shop.used("u") == (10, 0), "and is booked on the day of its commit"
    assert shop.budget()["resets_at"] == "2030-01-02T18:15:00.000Z"


def test_a_cap_that_is_lowered_under_open_holds(shop: Shop) -> None:
    """At a level and at the leaf: new spending is refused at once, what is held is charged or given back."""
    shop.add("acme/a", 100)
    for level in ("acme", "acme/a"):
        shop.budgets(level, daily={"limit": 10, "window": "day"})
    holds = [shop.reserve(3, "acme/a") for _ in range(3)]
    for level in ("acme", "acme/a"):
        shop.budgets(level, daily={"limit": 5})
    assert reached(shop.deduct(0, "acme/a")) == [("acme/a", "daily"), ("acme", "daily")]
    assert [shop.commit(hold, 3).status for hold in holds[:2]] == [200, 200]
    assert shop.used("acme") == shop.used("acme/a") == (6, 3)
    over = shop.commit(holds[2], 4)
    assert (over.status, over.body["charged"], over.body["limited_by"]) == (200, 3, "daily"), "no more than is held"
    assert shop.used("acme") == (9, 0)
    assert shop.deduct(0, "acme/a").status == 402
    shop.advance(86_400)
    assert shop.deduct(5, "acme/a").status == 200


def test_a_refund_into_a_past_window(shop: Shop) -> None:
    """Gives the credits back and makes no room in the window that lasts, nor does the part that is refunded later."""
    shop.add("acme/a", 100)
    shop.budgets("acme", daily={"limit": 10, "window": "day"}, all={"limit": 50, "window": "total"})
    charge = shop.deduct(8, "acme/a").body["transaction_id"]
    shop.advance(86_400)
    assert shop.deduct(9, "acme/a").status == 200
    for amount in (5, 3):
        answer = shop.ask("/refund", user_id="acme/a", transaction_id=charge, amount=amount)
        assert answer.status == 200, answer.raw
        assert shop.used("acme") == (9, 0)
    assert shop.used("acme", "all") == (9, 0), "a window that lasts has it back"
    assert shop.available("acme/a") == 91
    assert reached(shop.deduct(2, "acme/a")) == [("acme", "daily")]
    assert shop.deduct(1, "acme/a").status == 200
