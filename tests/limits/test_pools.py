"""Pools, from outside: who pays, in which order, and what becomes of what a pool holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.sidecar import Answer
from tests.limits.conftest import Shop, reached


def paid(answer: Answer) -> list[tuple[str, Any]]:
    """Who paid how much."""
    assert answer.status in (200, 201), answer.raw
    return [(one["user_id"], one["amount"]) for one in answer.body.get("payers", [])]


def have(shop: Shop, *users: str) -> list[Any]:
    return [shop.available(user) for user in users]


@pytest.fixture
def acme(shop: Shop) -> Shop:
    """A pool of 100, and a member with 10 of its own."""
    shop.add("acme", 100)
    shop.add("acme/a", 10)
    shop.set("acme", pool=True)
    return shop


def refund(shop: Shop, user: str, charge: str, amount: object = None) -> Answer:
    more = {} if amount is None else {"amount": amount}
    return shop.ask("/refund", user_id=user, transaction_id=charge, **more)


def test_h32_pool(acme: Shop) -> None:
    """Own grants first, then the pool; a refund goes back the other way."""
    charge = acme.deduct(15, "acme/a")
    assert paid(charge) == [("acme/a", 10), ("acme", 5)]
    assert have(acme, "acme/a", "acme") == [0, 95]
    assert refund(acme, "acme/a", charge.body["transaction_id"], 7).body["left"] == 8
    assert have(acme, "acme/a", "acme") == [2, 100]
    assert refund(acme, "acme/a", charge.body["transaction_id"], 8).body["left"] == 0
    assert have(acme, "acme/a", "acme") == [10, 100]
    assert refund(acme, "acme/a", charge.body["transaction_id"]).status == 409
    refused = acme.deduct(101, "acme/b")
    assert (refused.status, refused.body["type"]) == (402, "/problems/insufficient-credits")
    assert paid(acme.deduct(1, "acme/b")) == [("acme", 1)]
    assert have(acme, "acme/a", "acme", "acme/b") == [10, 99, 0]


def test_any_row_of_a_charge_refunds_all_of_it(acme: Shop) -> None:
    """By the pool's row, asked for by the path or by the pool."""
    acme.deduct(15, "acme/a")
    [row] = [one for one in acme.get("/history/acme")["items"] if one["kind"] == "deduct"]
    assert (row["amount"], row["path"], row["user_id"]) == (5, "acme/a", "acme")
    assert refund(acme, "acme/x", row["transaction_id"]).status == 404
    assert refund(acme, "acme", row["transaction_id"], 6).body["amount"] == 6
    assert refund(acme, "acme/a", row["group"], 9).body["left"] == 0
    assert have(acme, "acme/a", "acme") == [10, 100]


def test_the_nearest_pool_pays_first_and_who_stays_apart_uses_none(acme: Shop) -> None:
    acme.add("acme/r", 5)
    acme.set("acme/r", pool=True)
    assert paid(acme.deduct(7, "acme/r/x")) == [("acme/r", 5), ("acme", 2)]
    acme.add("acme/r", 5)
    acme.set("acme/r", use_pools=False)
    assert acme.deduct(6, "acme/r/x").status == 402
    assert paid(acme.deduct(5, "acme/r/x")) == [("acme/r", 5)]
    acme.set("acme/a", use_pools=False)
    assert acme.deduct(11, "acme/a").status == 402
    told = acme.deduct(10, "acme/a").body
    assert "payers" not in told and "spendable" not in told, "nobody else could pay"
    settings = acme.user("acme/a")
    assert (settings["use_pools"], settings["pool"]) == (False, False)
    acme.set("acme/a", use_pools=True)
    assert paid(acme.deduct(1, "acme/a")) == [("acme", 1)]


def test_a_hold_keeps_what_it_took_of_each(acme: Shop) -> None:
    """Commit of less: what the pool held returns first; the rest is charged to the path's own."""
    hold = acme.reserve(15, "acme/a")
    assert have(acme, "acme/a", "acme") == [0, 95]
    assert acme.get(f"/reservations/{hold}")["amount"] == 15
    told = acme.commit(hold, 12)
    assert paid(told) == [("acme/a", 10), ("acme", 2)]
    assert (told.body["charged"], told.body["released"]) == (12, 3)
    assert have(acme, "acme/a", "acme") == [0, 98]
    assert acme.commit(hold, 12).replayed
    charge = told.body["transaction_id"]
    assert refund(acme, "acme/a", charge, 12).body["left"] == 0
    assert have(acme, "acme/a", "acme") == [10, 100]


def test_a_release_and_an_end_give_each_its_own_back(acme: Shop) -> None:
    hold = acme.reserve(15, "acme/a")
    assert acme.release(hold).body["released"] == 15
    assert have(acme, "acme/a", "acme") == [10, 100]
    acme.reserve(15, "acme/a", ttl_seconds=60)
    acme.advance(60)
    assert have(acme, "acme") == [100], "the pool's account is settled by itself"
    assert have(acme, "acme/a") == [10]


def test_the_hold_is_the_paths_and_the_pool_lists_none(acme: Shop) -> None:
    hold = acme.reserve(15, "acme/a")
    [item] = acme.get("/reservations?user_id=acme%2Fa")["items"]
    assert (item["reservation_id"], item["amount"]) == (hold, 15)
    assert acme.get("/reservations?user_id=acme")["items"] == []
    assert acme.get("/balance/acme")["reserved"] == 5
    assert acme.call("POST", f"/credits/reservations/{hold}~1/release", {}).status in (404, 422)


def test_an_extension_and_more_than_is_held_go_on_with_the_pool(acme: Shop) -> None:
    hold = acme.reserve(8, "acme/a", ttl_seconds=60)
    told = acme.ask(f"/reservations/{hold}/extend", add_amount=4, ttl_seconds=120)
    assert (told.status, told.body["amount"], paid(told)) == (200, 12, [("acme/a", 2), ("acme", 2)])
    acme.advance(100)
    assert acme.get(f"/reservations/{hold}")["state"] == "open"
    told = acme.commit(hold, 20)
    assert (told.body["charged"], paid(told)) == (20, [("acme/a", 10), ("acme", 10)])
    assert have(acme, "acme/a", "acme") == [0, 90]


def test_a_late_commit_is_paid_anew(acme: Shop) -> None:
    hold = acme.reserve(15, "acme/a", ttl_seconds=60)
    acme.advance(61)
    told = acme.ask(f"/reservations/{hold}/commit")
    assert (told.body["late"], told.body["charged"]) == (True, 15)
    assert paid(told) == [("acme/a", 10), ("acme", 5)]
    assert refund(acme, "acme", told.body["transaction_id"]).status == 404, "the row is the path's"
    assert refund(acme, "acme/a", told.body["transaction_id"]).body["amount"] == 15
    assert have(acme, "acme/a", "acme") == [10, 100]


def test_what_is_held_settles_where_it_is(acme: Shop) -> None:
    """Whatever the pool is by then."""
    hold, other = acme.reserve(15, "acme/a"), acme.reserve(5, "acme/b")
    acme.set("acme", pool=False)
    assert acme.commit(hold, 14).body["charged"] == 14
    assert acme.release(other).body["released"] == 5
    assert have(acme, "acme/a", "acme", "acme/b") == [0, 96, 0]
    assert acme.deduct(1, "acme/a").status == 402


def test_debt_comes_last_in_the_same_order(acme: Shop) -> None:
    acme.set("acme/a", overdraft_limit=3)
    acme.set("acme", overdraft_limit=4)
    assert acme.deduct(118, "acme/a", shortfall="overdraft").status == 402
    told = acme.deduct(116, "acme/a", shortfall="overdraft")
    assert paid(told) == [("acme/a", 13), ("acme", 103)]
    assert (acme.get("/balance/acme%2Fa")["debt"], acme.get("/balance/acme")["debt"]) == (3, 3)
    assert refund(acme, "acme/a", told.body["transaction_id"], 4).status == 200
    assert (acme.get("/balance/acme%2Fa")["debt"], acme.get("/balance/acme")["debt"]) == (2, 0), (
        "debt first, newest first"
    )


def test_partial_takes_what_all_have(acme: Shop) -> None:
    told = acme.deduct(200, "acme/a", shortfall="partial")
    assert (told.body["taken"], told.body["uncovered"], paid(told)) == (110, 90, [("acme/a", 10), ("acme", 100)])
    assert acme.deduct(1, "acme/a", shortfall="partial").status == 402


def test_rules_count_the_levels_of_the_path_whoever_pays(acme: Shop) -> None:
    for level in ("acme", "acme/a"):
        acme.budgets(level, daily={"limit": 20, "window": "day"})
    acme.limits("acme", open={"kind": "concurrent", "limit": 1})
    hold = acme.reserve(15, "acme/a")
    assert [acme.used(level) for level in ("acme", "acme/a")] == [(0, 15)] * 2
    assert reached(acme.deduct(6, "acme/a")) == [("acme/a", "daily"), ("acme", "daily")]
    assert acme.ask("/reservations", user_id="acme/b", amount=1).status == 429, "a hold and its part are one"
    charge = acme.commit(hold, 12).body["transaction_id"]
    assert [acme.used(level) for level in ("acme", "acme/a")] == [(12, 0)] * 2
    refund(acme, "acme/a", charge, 2)
    assert [acme.used(level) for level in ("acme", "acme/a")] == [(10, 0)] * 2
    assert acme.deduct(3, "acme").status == 200
    assert [acme.used(level)[0] for level in ("acme", "acme/a")] == [13, 10]


def test_readings_tell_who_could_pay(acme: Shop) -> None:
    told = acme.get("/balance/acme%2Fa")
    assert (told["available"], told["spendable"]) == (10, 110)
    assert told["payers"] == [
        {"user_id": "acme/a", "amount": 0, "available": 10},
        {"user_id": "acme", "amount": 0, "available": 100},
    ]
    assert "spendable" not in acme.get("/balance/acme")
    for told in (
        acme.get("/explain/acme%2Fa?amount=15"),
        acme.post("/quote", {"user_id": "acme/a", "amount": 15}),
    ):
        assert (told["would"], told["spendable"]) == ("ok", 110)
        assert [(one["user_id"], one["amount"]) for one in told["payers"]] == [("acme/a", 10), ("acme", 5)]


def test_a_repeated_call_is_answered_as_the_first_time(acme: Shop) -> None:
    body = {"user_id": "acme/a", "amount": 15}
    first, again = (acme.call("POST", "/credits/deduct", body, key="k") for _ in range(2))
    assert again.replayed and first.body == again.body
    held = {**body, "amount": 5, "reservation_id": "r1"}
    first, again = (acme.call("POST", "/credits/reservations", held) for _ in range(2))
    assert again.replayed and first.body == again.body
    assert have(acme, "acme/a", "acme") == [0, 90]


def test_a_batch_is_paid_in_order_and_an_atomic_one_as_a_whole(acme: Shop) -> None:
    batch = [{"op": "deduct", "user_id": "acme/a", "amount": 60}] * 2
    results = acme.post("/batch", {"operations": batch, "atomic": True})["results"]
    assert [one["status"] for one in results] == [424, 402]
    assert have(acme, "acme/a", "acme") == [10, 100]
    assert [one["status"] for one in acme.post("/batch", {"operations": batch})["results"]] == [200, 402]
    assert have(acme, "acme/a", "acme") == [0, 50]
