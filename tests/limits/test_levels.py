"""Rules of the levels above an account, from outside: each case by its id."""

from __future__ import annotations

import pytest

from tests.limits.conftest import Shop, reached


def day(limit: float) -> dict[str, object]:
    return {"daily": {"limit": limit, "window": "day"}}


@pytest.fixture
def acme(shop: Shop) -> Shop:
    """Three levels with budgets: acme 10, acme/r 6, acme/r/a 5."""
    for user in ("acme/r/a", "acme/r/b", "acme/s/c"):
        shop.add(user, 100)
    for level, limit in (("acme", 10), ("acme/r", 6), ("acme/r/a", 5)):
        shop.budgets(level, **day(limit))
    return shop


def test_h16_three_levels(acme: Shop) -> None:
    assert acme.deduct(5, "acme/r/a").status == 200
    assert reached(acme.deduct(0.5, "acme/r/a")) == [("acme/r/a", "daily")]
    assert reached(acme.deduct(2, "acme/r/b")) == [("acme/r", "daily")]
    assert acme.deduct(1, "acme/r/b").status == 200
    assert reached(acme.deduct(5, "acme/s/c")) == [("acme", "daily")]
    assert acme.deduct(4, "acme/s/c").status == 200
    assert [acme.used(level)[0] for level in ("acme", "acme/r", "acme/r/a")] == [10, 6, 5]


def test_h17_several_refuse(acme: Shop) -> None:
    assert acme.deduct(5, "acme/r/a").status == 200
    assert reached(acme.deduct(6, "acme/r/a")) == [("acme/r/a", "daily"), ("acme/r", "daily"), ("acme", "daily")]


def test_of_equal_room_the_leaf_comes_first(shop: Shop) -> None:
    shop.add("acme/a", 100)
    for level in ("acme", "acme/a"):
        shop.budgets(level, **day(3))
    assert reached(shop.deduct(4, "acme/a")) == [("acme/a", "daily"), ("acme", "daily")]


def test_h18_a_leaf_never_seen_is_bound(shop: Shop) -> None:
    shop.budgets("acme", **day(3))
    shop.add("acme/new/x", 100)
    assert reached(shop.deduct(4, "acme/new/x")) == [("acme", "daily")]
    assert shop.deduct(3, "acme/new/x").status == 200
    refused = shop.deduct(4, "acme/never")
    assert (refused.status, refused.body["type"]) == (402, "/problems/insufficient-credits")
    assert sorted(one["rule"] for one in refused.body["violations"]) == ["budget", "credits"]


def test_h27_a_siblings_ended_hold(shop: Shop) -> None:
    for user in ("acme/a", "acme/b"):
        shop.add(user, 100)
    shop.budgets("acme", **day(10))
    shop.reserve(10, "acme/a", ttl_seconds=60)
    assert reached(shop.deduct(10, "acme/b")) == [("acme", "daily")]
    shop.advance(60)
    assert shop.deduct(10, "acme/b").status == 200


def test_an_ended_hold_elsewhere_makes_room_for_a_cut(shop: Shop) -> None:
    """Before a budget cuts, too: of a partial deduct, of a commit beyond its hold, and what a read shows."""
    for user in ("acme/a", "acme/b"):
        shop.add(user, 100)
    shop.budgets("acme", **day(10))
    shop.reserve(9, "acme/a", ttl_seconds=60)
    shop.advance(60)
    assert shop.used("acme") == (0, 0)
    shop.reserve(8, "acme/a", ttl_seconds=60)
    shop.advance(60)
    assert shop.deduct(5, "acme/b", shortfall="partial").body["taken"] == 5
    hold = shop.reserve(1, "acme/b")
    shop.reserve(4, "acme/a", ttl_seconds=60)
    shop.advance(60)
    assert shop.commit(hold, 5).body["charged"] == 5
    assert shop.used("acme") == (10, 0)


def test_h31_suspended_level(shop: Shop) -> None:
    shop.add("acme/a", 10)
    hold, other = shop.reserve(2, "acme/a"), shop.reserve(1, "acme/a")
    shop.set("acme", suspended=True)
    for refused in (
        shop.deduct(1, "acme/a"),
        shop.ask("/reservations", user_id="acme/a", amount=1),
        shop.ask(f"/reservations/{other}/extend", add_amount=1),
    ):
        assert (refused.status, refused.body["type"]) == (403, "/problems/account-suspended")
        assert refused.body["violations"] == [{"rule": "suspended", "user_id": "acme", "id": None}]
    assert shop.get("/explain/acme%2Fa?amount=1")["would"] == "suspended"
    assert shop.commit(hold, 2).status == 200
    assert shop.release(other).status == 200
    shop.set("acme", suspended=False)
    assert shop.deduct(1, "acme/a").status == 200


def test_a_path_of_more_than_six_levels(shop: Shop) -> None:
    """It is metered under its first six, and can have no rules of its own."""
    deep = "a/b/c/d/e/f/g/h"
    shop.add(deep, 100)
    shop.budgets("a/b/c/d/e/f", **day(5))
    shop.budgets("a", **day(6))
    assert reached(shop.deduct(7, deep)) == [("a/b/c/d/e/f", "daily"), ("a", "daily")]
    assert shop.deduct(5, deep).status == 200
    assert shop.used("a") == (5, 0)
    members = shop.refused(422, "validation-error", "PATCH", "/users/a%2Fb%2Fc%2Fd%2Fe%2Ff%2Fg", {"budgets": day(1)})
    assert members["errors"][0]["pointer"] == "/budgets"


def test_reserves_commits_refunds_and_late_ones_count_at_each_level(acme: Shop) -> None:
    hold = acme.reserve(4, "acme/r/a", ttl_seconds=60)
    assert [acme.used(level) for level in ("acme", "acme/r", "acme/r/a")] == [(0, 4)] * 3
    assert reached(acme.ask("/reservations", user_id="acme/r/b", amount=3)) == [("acme/r", "daily")]
    charge = acme.commit(hold, 3).body["transaction_id"]
    assert [acme.used(level) for level in ("acme", "acme/r", "acme/r/a")] == [(3, 0)] * 3
    acme.post("/refund", {"user_id": "acme/r/a", "transaction_id": charge, "amount": 1})
    assert [acme.used(level) for level in ("acme", "acme/r", "acme/r/a")] == [(2, 0)] * 3
    late = acme.reserve(3, "acme/r/a", ttl_seconds=60)
    acme.advance(60)
    assert acme.commit(late, 3).body["late"] is True
    assert [acme.used(level) for level in ("acme", "acme/r", "acme/r/a")] == [(5, 0)] * 3


def test_explain_and_quote_show_every_level(acme: Shop) -> None:
    assert acme.deduct(5, "acme/r/a").status == 200
    told = acme.get("/explain/acme%2Fr%2Fa?amount=6")
    assert (told["would"], [one["user_id"] for one in told["violations"]]) == (
        "budget_reached",
        ["acme/r/a", "acme/r", "acme"],
    )
    quoted = acme.post("/quote", {"user_id": "acme/r/b", "amount": 2})
    assert (quoted["would"], [one["user_id"] for one in quoted["violations"]]) == ("budget_reached", ["acme/r"])
    assert acme.post("/quote", {"user_id": "acme/r/b", "amount": 1})["violations"] == []
