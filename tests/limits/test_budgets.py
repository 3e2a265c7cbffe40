"""Budgets of an account, from outside: each case by its id (docs/limits.md has the rules)."""

from __future__ import annotations

from decimal import Decimal

from tests.limits.conftest import DAY10, Shop, reached


def test_h13_refuse_at_the_limit(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)

    assert shop.deduct(6).status == 200
    refused = shop.deduct(5)
    assert reached(refused) == [("u", "daily")]
    assert refused.body["violations"] == [
        {
            "rule": "budget",
            "user_id": "u",
            "id": "daily",
            "window": "day",
            "limit": 10,
            "used": 6,
            "reserved": 0,
            "resets_at": "2030-01-02T00:00:00.000Z",
            "retry_after_ms": 43_200_000,
        }
    ]
    assert refused.headers["retry-after"] == "43200"
    assert shop.deduct(4).status == 200
    assert reached(shop.deduct("0.000001")) == [("u", "daily")]
    assert shop.deduct(0).status == 200
    assert shop.available("u") == 90
    assert shop.budget() == {
        "limit": 10,
        "window": "day",
        "time_zone": "UTC",
        "unit": "credits",
        "mode": "enforce",
        "alert_at": [],
        "used": 10,
        "reserved": 0,
        "remaining": 0,
        "resets_at": "2030-01-02T00:00:00.000Z",
        "source": "user",
    }


def test_waiting_helps_only_what_could_ever_pass(shop: Shop) -> None:
    """Retry-After is there where the next window lets it through: not for more than the limit, nor in a window that
    never ends, nor where credits lack too.
    """
    shop.add("u", 100)
    shop.budgets(**DAY10)
    assert "retry-after" not in shop.deduct(11).headers
    both = shop.deduct(101)
    assert (both.status, both.body["type"]) == (402, "/problems/insufficient-credits")
    assert [one["rule"] for one in both.body["violations"]] == ["budget", "credits"]
    assert "retry-after" not in both.headers
    shop.budgets(daily=None, all={"limit": 3, "window": "total"})
    refused = shop.deduct(4)
    assert reached(refused) == [("u", "all")] and refused.body["violations"][0]["resets_at"] is None
    assert "retry-after" not in refused.headers


def test_h14_window_end(shop: Shop) -> None:
    shop.at("2030-01-01T23:59:59.999Z")
    shop.add("u", 100)
    shop.budgets(**DAY10)
    for _ in range(2):
        assert shop.deduct(10).status == 200
        assert reached(shop.deduct(1)) == [("u", "daily")]
        shop.advance(0.001)


def test_h15_hold_over_midnight(shop: Shop) -> None:
    shop.at("2030-01-01T23:59:00Z")
    shop.add("u", 100)
    shop.budgets(**DAY10)
    hold = shop.reserve(6, ttl_seconds=3600)
    refused = shop.deduct(5)
    assert reached(refused) == [("u", "daily")] and refused.body["violations"][0]["reserved"] == 6
    shop.advance(60)
    assert reached(shop.deduct(5)) == [("u", "daily")]
    assert shop.deduct(4).status == 200
    assert shop.commit(hold, 6).status == 200
    assert shop.used() == (10, 0)
    before = shop.get("/history/u?to=2030-01-02T00:00:00Z")["items"]
    assert {row["kind"] for row in before} == {"grant", "account", "reserve"}


def test_h19_commit_above_the_hold(shop: Shop) -> None:
    for user, over in (("u", "cap"), ("v", "reject")):
        shop.add(user, 100)
        shop.budgets(user, **DAY10)
        hold = shop.reserve(6, user)
        assert shop.deduct(3, user).status == 200
        answer = shop.commit(hold, 9, over=over)
        if over == "cap":
            assert (answer.body["charged"], answer.body["uncovered"], answer.body["limited_by"]) == (7, 2, "daily")
            assert shop.used(user) == (10, 0) and shop.available(user) == 90
            again = shop.commit(hold, 9, over=over)
            assert again.replayed and again.body == answer.body
        else:
            assert reached(answer) == [("v", "daily")]
            assert shop.get(f"/reservations/{hold}")["state"] == "open"
            assert shop.used(user) == (3, 6)
            done = shop.commit(hold, 6, over=over)
            assert done.status == 200 and "limited_by" not in done.body


def test_h20_partial_and_overdraft(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    assert shop.deduct(6).status == 200
    cut = shop.deduct(20, shortfall="partial").body
    assert (cut["taken"], cut["uncovered"], cut["limited_by"]) == (4, 16, "daily")
    assert reached(shop.deduct(20, shortfall="partial")) == [("u", "daily")]
    shop.add("v", 5)
    shop.set("v", overdraft_limit=100, budgets=DAY10)
    assert reached(shop.deduct(20, "v", shortfall="overdraft")) == [("v", "daily")]
    taken = shop.deduct(10, "v", shortfall="overdraft").body
    assert (taken["taken"], taken["debt"]) == (10, 5)


def test_h21_lowering(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    assert shop.deduct(4).status == 200
    hold, other = shop.reserve(5), shop.reserve(1)
    shop.budgets(daily={"limit": 5})
    refused = shop.deduct(1)
    [violation] = refused.body["violations"]
    assert (violation["limit"], violation["used"], violation["reserved"]) == (5, 4, 6)
    assert shop.budget()["remaining"] == 0
    assert shop.commit(hold, 5).status == 200
    assert shop.used() == (9, 1)
    assert shop.release(other).status == 200
    assert shop.used() == (9, 0)
    assert shop.deduct(0).status == 402, "even nothing is judged"


def test_h22_edit_keeps_new_window_begins(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    assert shop.deduct(6).status == 200
    edited = shop.budgets(daily={"limit": 20, "window": "day"})
    assert edited["budgets"]["daily"]["used"] == 6
    assert shop.deduct(14).status == 200
    assert shop.deduct(1).status == 402
    weekly = shop.budgets(daily={"limit": 20, "window": "week"})["budgets"]["daily"]
    assert (weekly["used"], weekly["resets_at"]) == (0, "2030-01-07T00:00:00.000Z")
    assert shop.budgets(daily=None)["budgets"] == {}
    assert shop.deduct(30).status == 200


def test_h23_refund_in_and_after_its_window(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    first = shop.deduct(6).body["transaction_id"]
    shop.post("/refund", {"user_id": "u", "transaction_id": first})
    assert shop.used() == (0, 0)
    second = shop.deduct(10).body["transaction_id"]
    shop.advance(86_400)
    assert shop.deduct(3).status == 200
    shop.post("/refund", {"user_id": "u", "transaction_id": second, "amount": 10})
    assert shop.used() == (3, 0)
    assert shop.deduct(7).status == 200
    assert shop.deduct("0.000001").status == 402


def test_h24_first_budget_under_an_open_hold(shop: Shop) -> None:
    shop.add("u", 100)
    hold = shop.reserve(8, ttl_seconds=86_400)
    shop.budgets(**DAY10)
    assert shop.used() == (0, 0)
    assert shop.deduct(10).status == 200
    assert shop.commit(hold, 8).status == 200
    assert shop.used() == (18, 0)
    assert shop.deduct(1).status == 402
    shop.advance(86_400)
    assert shop.used() == (0, 0)


def test_h25_second_budget_under_an_open_hold(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    shop.reserve(8)
    shop.budgets(hourly={"limit": 9, "window": "hour"})
    assert shop.used(name="hourly") == (0, 8)
    assert reached(shop.deduct(2)) == [("u", "hourly"), ("u", "daily")][:1]
    assert shop.deduct(1).status == 200


def test_h26_late_commit_is_bound(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    hold = shop.reserve(8, ttl_seconds=60)
    shop.advance(61)
    assert shop.deduct(7).status == 200
    late = shop.commit(hold, 8).body
    assert (late["late"], late["charged"], late["uncovered"], late["limited_by"]) == (True, 3, 5, "daily")
    assert shop.used() == (10, 0)


def test_h29_batch(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    batch = [{"op": "deduct", "user_id": "u", "amount": 6}] * 2
    results = shop.post("/batch", {"operations": batch})["results"]
    assert [one["status"] for one in results] == [200, 402]
    assert shop.used() == (6, 0)
    shop.advance(86_400)
    results = shop.post("/batch", {"operations": batch, "atomic": True})["results"]
    assert [one["status"] for one in results] == [424, 402]
    assert (shop.used(), shop.available("u")) == ((0, 0), Decimal(94))


def test_a_removed_and_set_again_budget_counts_anew(shop: Shop) -> None:
    """A hold that is older than what the level counts is never in `reserved`, and its charge is in `used`."""
    shop.add("u", 100)
    shop.budgets(**DAY10)
    hold = shop.reserve(8)
    shop.budgets(daily=None)
    shop.budgets(**DAY10)
    assert shop.used() == (0, 0)
    assert shop.commit(hold, 8).status == 200
    assert shop.used() == (8, 0)


def test_an_extension_is_bound_and_a_longer_life_is_not(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    hold = shop.reserve(8)
    assert reached(shop.ask(f"/reservations/{hold}/extend", add_amount=3)) == [("u", "daily")]
    assert shop.ask(f"/reservations/{hold}/extend", add_amount=2).status == 200
    assert shop.used() == (0, 10)
    assert shop.ask(f"/reservations/{hold}/extend", ttl_seconds=900).status == 200
    assert shop.commit(hold, 10).status == 200
    assert shop.used() == (10, 0)


def test_a_replay_counts_once(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(**DAY10)
    body = {"user_id": "u", "amount": 6}
    first, again = (shop.call("POST", "/credits/deduct", body, key="k") for _ in range(2))
    assert (first.status, again.status, again.replayed) == (200, 200, True)
    assert shop.used() == (6, 0)
    shop.budgets(daily={"limit": 1})
    assert shop.call("POST", "/credits/deduct", body, key="k").replayed, "what was done stays done"


def test_rules_that_are_not_whole_or_too_many_change_nothing(shop: Shop) -> None:
    faults = [
        ({"daily": {"limit": 5}}, "/budgets/daily"),
        ({"daily": {"window": "day"}}, "/budgets/daily"),
        ({"daily": {"limit": 5, "window": "year"}}, "/budgets/daily/window"),
        ({"daily": {"limit": 5, "window": "day", "time_zone": "Mars/Base"}}, "/budgets/daily/time_zone"),
        ({"daily": {"limit": -1, "window": "day"}}, "/budgets/daily/limit"),
        ({"daily": {"limit": 5, "window": "day", "colour": "red"}}, "/budgets/daily/colour"),
        ({"a b": {"limit": 5, "window": "day"}}, None),
        ({f"b{n}": {"limit": 5, "window": "day"} for n in range(9)}, "/budgets"),
    ]
    for budgets, pointer in faults:
        members = shop.refused(422, "validation-error", "PATCH", "/users/u", {"budgets": budgets})
        assert pointer is None or members["errors"][0]["pointer"] == pointer, members
    assert shop.user()["budgets"] == {}
    eight = {f"b{n}": {"limit": 5, "window": "day"} for n in range(8)}
    assert set(shop.budgets(**eight)["budgets"]) == set(eight)
    assert set(shop.budgets(b0=None, b8={"limit": 1, "window": "hour"})["budgets"]) == {f"b{n}" for n in range(1, 9)}
