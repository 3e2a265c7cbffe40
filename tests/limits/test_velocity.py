"""The breaker: who is charged too fast is warned of, refused or suspended, and armed again by itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.limits.conftest import Shop

HOUR = 3600


def trips(shop: Shop) -> list[tuple[str, str, int]]:
    """The alerts of breakers in the ledger: whose, what it does, and what had been charged."""
    told: list[Any] = [entry.detail.get("budget_alerts", []) for entry in shop.entries()]
    return [
        (level, action, used) for several in told for kind, level, action, _, _, used, *_ in several if "velo" in kind
    ]


def breaker(shop: Shop, user_id: str = "u", **members: object) -> Any:
    """A user with 1000 credits and a breaker of 10 an hour."""
    shop.add(user_id, 1000)
    told = shop.set(user_id, velocity={"limit": 10, "per_seconds": HOUR, **members})
    return told["velocity"]


def test_it_warns_once_until_what_was_charged_has_drained(shop: Shop) -> None:
    assert breaker(shop, action="warn") == {
        "limit": 10,
        "per_seconds": HOUR,
        "action": "warn",
        "tripped_until": None,
    }
    assert [shop.deduct(5).status for _ in range(4)] == [200] * 4
    assert trips(shop) == [("u", "w", 15_000_000)], "10 are the limit, which the third charge went beyond"
    assert shop.user()["velocity"]["tripped_until"] == "2030-01-01T14:00:00.000Z", "20 take two hours"
    shop.advance(2 * HOUR)
    assert [shop.deduct(5).status for _ in range(3)] == [200] * 3
    assert [action for _, action, _ in trips(shop)] == ["w", "w"]


def test_spending_at_the_limit_never_trips_it(shop: Shop) -> None:
    breaker(shop, action="refuse")
    for _ in range(30):
        assert shop.deduct(1).status == 200
        shop.advance(HOUR / 10)
    assert trips(shop) == []


def test_it_refuses_what_is_new_until_all_has_drained(shop: Shop) -> None:
    breaker(shop, action="refuse")
    hold = shop.reserve(50, ttl_seconds=HOUR)
    assert shop.deduct(11).status == 200, "what was served is never refused"
    refused = shop.deduct(1)
    assert (refused.status, refused.body["type"]) == (429, "/problems/rate-limited")
    assert refused.body["violations"] == [
        {
            "rule": "velocity",
            "user_id": "u",
            "id": None,
            "limit": 10,
            "used": 11,
            "resets_at": "2030-01-01T13:06:00.000Z",
            "per_seconds": HOUR,
            "retry_after_ms": 3_960_000,
        }
    ]
    assert refused.headers["retry-after"] == "3960"
    assert shop.ask("/reservations", user_id="u", amount=1).status == 429
    explained = shop.get("/explain/u?amount=1")
    assert (explained["would"], explained["violations"][0]["rule"]) == ("rate_limited", "velocity")
    assert shop.ask("/quote", user_id="u", amount=1).body["would"] == "rate_limited"
    assert shop.ask(f"/reservations/{hold}/extend", add_amount=1).status == 200
    assert shop.commit(hold, 5).status == 200, "which adds to what has to drain"
    shop.advance(3960)
    assert shop.deduct(1).status == 429
    shop.advance(1800)
    assert shop.deduct(1).status == 200
    assert len(trips(shop)) == 1


def test_it_suspends_for_its_time_whatever_is_charged_meanwhile(shop: Shop) -> None:
    told = breaker(shop, "acme", action="suspend", pause_seconds=60)
    assert told["pause_seconds"] == 60
    shop.set("acme", pool=True)
    hold = shop.reserve(100, "acme/a", ttl_seconds=HOUR)
    assert shop.deduct(11, "acme/b").status == 200
    refused = shop.deduct(1, "acme/c")
    assert (refused.status, refused.body["type"]) == (403, "/problems/account-suspended")
    [violation] = refused.body["violations"]
    assert (violation["rule"], violation["user_id"], violation["retry_after_ms"]) == ("velocity", "acme", 60_000)
    assert shop.ask("/reservations", user_id="acme/c", amount=1).status == 403
    assert shop.commit(hold, 100).status == 200
    assert trips(shop) == [("acme", "s", 11_000_000)]
    shop.advance(60)
    assert shop.deduct(1, "acme/c").status == 200, "which trips it again, for the bucket is still full"
    assert shop.deduct(1, "acme/c").status == 403
    assert len(trips(shop)) == 2


def test_it_never_lifts_the_suspension_of_an_operator(shop: Shop) -> None:
    breaker(shop, action="suspend", pause_seconds=60)
    shop.deduct(11)
    shop.set("u", suspended=True)
    shop.advance(61)
    assert [one["rule"] for one in shop.deduct(1).body["violations"]] == ["suspended"]
    shop.set("u", suspended=False)
    assert shop.deduct(1).status == 200


@pytest.mark.parametrize("action", ["refuse", "suspend"])
def test_setting_it_arms_it_and_null_takes_it_away(shop: Shop, action: str) -> None:
    breaker(shop, action=action)
    shop.deduct(500)
    assert shop.deduct(1).status in (403, 429)
    shop.set("u", budgets={"daily": {"limit": 900, "window": "day"}})
    assert shop.deduct(1).status in (403, 429), "another change is none of its business"
    assert (
        shop.set("u", velocity={"limit": 10, "per_seconds": HOUR, "action": action})["velocity"]["tripped_until"]
        is None
    )
    assert shop.deduct(11).status == 200
    assert shop.deduct(1).status in (403, 429)
    assert shop.set("u", velocity=None)["velocity"] is None
    assert [shop.deduct(50).status for _ in range(3)] == [200] * 3


def test_one_huge_charge_closes_nothing_for_years(shop: Shop) -> None:
    breaker(shop, action="refuse")
    shop.deduct(900)
    assert shop.deduct(1).body["violations"][0]["retry_after_ms"] == 2 * HOUR * 1000
    shop.advance(2 * HOUR)
    assert shop.deduct(1).status == 200


def test_what_it_may_be(shop: Shop) -> None:
    for members in ({"limit": 0}, {"per_seconds": 0}, {"action": "stop"}, {"action": None}, {"pause_seconds": 0}):
        velocity = {"limit": 1, "per_seconds": 1, "action": "warn", **members}
        assert shop.call("PATCH", "/credits/users/u", {"velocity": velocity}).status == 422, members
    assert shop.call("PATCH", "/credits/users/a/b/c/d/e/f/g", {"velocity": None}).status == 200
    deep = {"velocity": {"limit": 1, "per_seconds": 1, "action": "warn"}}
    assert shop.call("PATCH", "/credits/users/a/b/c/d/e/f/g", deep).status == 422
