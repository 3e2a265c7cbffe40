"""Grants that are for some things only, from outside: what they pay for, in which order, and what is told of them."""

from __future__ import annotations

from typing import Any

from tests.limits.conftest import Shop

IMAGES = ["feature:images"]
CARD = {"models": {"gpt-4o": {"input": 2, "aliases": ["gpt-4o-2024"]}, "mini": {"input": 1}}}


def give(shop: Shop, amount: float, *only: str, user_id: str = "u", **members: object) -> None:
    wanted: dict[str, object] = {"only": list(only)} if only else {}
    shop.post("/add", {"user_id": user_id, "amount": amount, **wanted, **members})


def balance(shop: Shop, user_id: str = "u") -> Any:
    return shop.get(f"/balance/{user_id}")


def remaining(shop: Shop) -> dict[str, Any]:
    return {one["grant_id"]: one["remaining"] for one in shop.get("/grants/u")["items"]}


def test_a_restricted_grant_pays_for_what_it_is_for_alone(shop: Shop) -> None:
    give(shop, 5, *IMAGES, expires_at="2030-02-01T00:00:00Z")
    refused = shop.deduct(1)
    assert (refused.status, refused.body["available"], refused.body["restricted"]) == (402, 0, 5)
    assert (refused.body["usable"], refused.body["violations"][0]["limit"]) == (0, 0)
    assert shop.deduct(1, tags=["feature:text"]).status == 402
    paid = shop.deduct(2, tags=["other", *IMAGES])
    assert (paid.status, paid.body["available"], paid.body["balance"]) == (200, 0, 3)
    assert (paid.body["restricted"], paid.body["usable"]) == (3, 3)
    told = balance(shop)
    assert (told["credits"], told["balance"], told["restricted"]) == (0, 3, 3)
    assert told["restricted_by"] == [{"only": IMAGES, "available": 3, "next_expires_at": "2030-02-01T00:00:00.000Z"}]
    assert shop.get("/grants/u")["items"][0]["only"] == IMAGES


def test_without_restricted_grants_no_answer_says_anything_of_them(shop: Shop) -> None:
    give(shop, 5)
    paid = shop.deduct(1, tags=IMAGES)
    assert not {"restricted", "usable"} & paid.body.keys()
    assert not {"restricted", "restricted_by"} & balance(shop).keys()


def test_a_priority_beats_a_restriction_which_comes_first_among_equals(shop: Shop) -> None:
    ends = "2030-02-01T00:00:00Z"
    give(shop, 3, grant_id="first", priority=1)
    give(shop, 3, grant_id="anything", expires_at=ends)
    give(shop, 3, *IMAGES, grant_id="images", expires_at=ends)
    give(shop, 3, *IMAGES, grant_id="later")
    assert shop.deduct(4, tags=IMAGES).status == 200
    assert remaining(shop) == {"images": 2, "anything": 3, "later": 3}
    assert shop.get("/explain/u?amount=7&tags=feature:images")["burns"] == [
        {"grant_id": "images", "amount": 2},
        {"grant_id": "anything", "amount": 3},
        {"grant_id": "later", "amount": 2},
    ]
    assert shop.get("/explain/u?amount=7")["would"] == "insufficient"


def test_a_refund_gives_back_to_the_newest_draw_first(shop: Shop) -> None:
    give(shop, 3, *IMAGES, grant_id="images")
    give(shop, 3, grant_id="anything")
    charge = shop.deduct(5, tags=IMAGES).body["transaction_id"]
    asked = {"user_id": "u", "transaction_id": charge, "amount": 3}
    assert shop.ask("/refund", **asked).body["restricted"] == 1
    assert remaining(shop) == {"images": 1, "anything": 3}


def test_what_a_hold_draws_later_is_for_the_same(shop: Shop) -> None:
    give(shop, 10, *IMAGES)
    give(shop, 1)
    hold = shop.reserve(4, tags=IMAGES)
    assert shop.ask(f"/reservations/{hold}/extend", add_amount=3).body["restricted"] == 3
    done = shop.commit(hold, 9)
    assert (done.body["charged"], done.body["restricted"], done.body["available"]) == (9, 1, 1)
    late = shop.reserve(1, tags=IMAGES, ttl_seconds=1)
    shop.at("2030-01-01T12:00:05Z")
    told = shop.commit(late, 2).body
    assert (told["late"], told["charged"], told["available"]) == (True, 2, 0)


def test_a_priced_operation_is_for_its_model_by_both_names(shop: Shop) -> None:
    assert shop.call("PUT", "/credits/rate-cards/default", CARD).status == 200
    give(shop, 5, "model:gpt-4*")
    give(shop, 5, "model:mini", grant_id="mini")
    asked: dict[str, object] = {"user_id": "u", "usage": {"model": "gpt-4o-2024", "input": 1_000_000}}
    assert shop.ask("/quote", **asked).body["usable"] == 5
    hold = shop.post("/reservations", asked, status=201)["reservation_id"]
    done = shop.ask(f"/reservations/{hold}/commit", usage={"input": 2_000_000})
    assert (done.status, done.body["charged"], done.body["restricted"]) == (200, 4, 6)
    assert remaining(shop)["mini"] == 5
    assert shop.ask("/deduct", user_id="u", usage={"model": "gpt-4o", "input": 1_000_000}).status == 402
    give(shop, 9, "model:gpt-4o")
    assert shop.ask("/deduct", user_id="u", usage={"model": "gpt-4o-2024", "input": 4_000_000}).status == 200


def test_debt_is_paid_by_unrestricted_credits_alone(shop: Shop) -> None:
    shop.set("u", overdraft_limit=5)
    assert shop.deduct(3, shortfall="overdraft").body["debt"] == 3
    give(shop, 4, *IMAGES)
    assert (balance(shop)["debt"], balance(shop)["restricted"]) == (3, 4)
    give(shop, 4)
    assert (balance(shop)["debt"], balance(shop)["available"], balance(shop)["restricted"]) == (0, 1, 4)


def test_a_batch_takes_tags(shop: Shop) -> None:
    give(shop, 4, *IMAGES)
    one = {"op": "deduct", "user_id": "u", "amount": 3, "tags": IMAGES}
    results = shop.ask("/batch", operations=[one, one, {**one, "amount": 1, "tags": None}]).body["results"]
    assert [result["status"] for result in results] == [200, 402, 402]


def test_the_same_key_for_other_tags_is_another_body(shop: Shop) -> None:
    give(shop, 4, *IMAGES)
    body = {"user_id": "u", "amount": 1, "tags": IMAGES}
    key = {"Idempotency-Key": "k"}
    first, again = (shop.call("POST", "/credits/deduct", body, headers=key) for _ in range(2))
    assert (first.status, again.body) == (200, first.body)
    assert shop.call("POST", "/credits/deduct", {**body, "tags": ["x"]}, headers=key).status == 422


def test_restricted_grants_of_a_pool_pay_for_all_below(shop: Shop) -> None:
    give(shop, 5, *IMAGES, user_id="acme")
    give(shop, 1, user_id="acme/a")
    shop.set("acme", pool=True)
    paid = shop.deduct(4, user_id="acme/a", tags=IMAGES)
    assert [(one["user_id"], one["amount"]) for one in paid.body["payers"]] == [("acme/a", 1), ("acme", 3)]
    assert paid.body["spendable"] == 2
    assert shop.deduct(1, user_id="acme/a").status == 402


def test_the_history_tells_what_it_was_for(shop: Shop) -> None:
    give(shop, 5, *IMAGES)
    shop.deduct(1, tags=IMAGES)
    deducted, added = shop.get("/history/u")["items"]
    assert (deducted["tags"], deducted["restricted_after"], added["only"]) == (IMAGES, 4, IMAGES)


def test_what_is_no_tag_is_refused(shop: Shop) -> None:
    for only in ([], ["a b"], ["*"], ["a*b"], ["x"] * 9, ["a,b"]):
        assert shop.ask("/add", user_id="u", amount=1, only=only).status == 422, only
    for tags in (["a*"], ["a b"], ['a"b'], ["x"] * 9):
        assert shop.deduct(1, tags=tags).status == 422, tags
    for n in range(8):
        give(shop, 1, f"f:{n}")
    more = shop.ask("/add", user_id="u", amount=1, only=["f:8"])
    assert (more.status, more.body["errors"][0]["pointer"]) == (422, "/only")
