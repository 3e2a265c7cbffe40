"""The calls about rate cards themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.rates.conftest import CARD, DEAR, Shop


def test_a_card_is_told_as_it_was_put(shop: Shop) -> None:
    answer: Any = shop.put(CARD, "own", minimum=0.01, per_request=0.5)

    assert (answer["version"], answer["active_version"]) == (1, 1)
    assert answer["models"] == {
        **CARD,
        "gpt-4o": {**CARD["gpt-4o"], "cache_read": Decimal("1.25"), "input": Decimal("2.5")},
        "mini": {"input": Decimal("0.15"), "output": Decimal("0.6")},
        "claude": {**CARD["claude"], "cache_read": Decimal("0.3"), "cache_write": Decimal("3.75")},
        "gem": {
            "input": Decimal("1.25"),
            "output": 10,
            "above_input": {"over": 200000, "rates": {"input": Decimal("2.5"), "output": 15}},
        },
    }
    assert shop.get("/rate-cards/own") == answer
    assert [item["rate_card_id"] for item in shop.get("/rate-cards")["items"]] == ["default", "own"]
    shop.patch("/users/u", {"rate_card": "own"})
    charged = shop.post("/deduct", {"user_id": "u", "usage": {"model": "gift"}})
    assert charged["amount"] == 0
    charged = shop.post("/deduct", {"user_id": "u", "usage": {"model": "mini", "input": 1}})
    assert charged["amount"] == Decimal("0.500001")
    assert charged["price"]["breakdown"]["per_request"] == {"quantity": 1, "amount": Decimal("0.5")}


def test_versions_are_kept_and_any_can_be_activated(shop: Shop) -> None:
    shop.put(DEAR)
    shop.put(CARD)

    listed = shop.get("/rate-cards/default/versions?limit=2")
    rest = shop.get(f"/rate-cards/default/versions?limit=2&cursor={listed['next_cursor']}")
    assert [item["version"] for item in (*listed["items"], *rest["items"])] == [1, 2, 3]
    assert {item["active_version"] for item in listed["items"]} == {3}
    assert shop.post("/rate-cards/default/activate", {"version": 2})["active_version"] == 2
    shop.refused(404, "rate-card-version-not-found", "POST", "/rate-cards/default/activate", {"version": 4})
    shop.refused(404, "rate-card-not-found", "POST", "/rate-cards/none/activate", {"version": 1})
    shop.refused(404, "rate-card-not-found", "GET", "/rate-cards/none")
    shop.refused(404, "rate-card-not-found", "GET", "/rate-cards/none/versions")


def test_a_repeated_key_makes_no_other_version(shop: Shop) -> None:
    first, again = shop.put(DEAR, key="k"), shop.put(DEAR, key="k")

    assert first == again
    assert shop.get("/rate-cards/default")["version"] == 2
    shop.refused(422, "idempotency-key-reused", "PUT", "/rate-cards/default", {"models": CARD}, key="k")


NO_CARDS: list[Any] = [
    {},
    {"models": {}},
    {"models": {"m": {}}},
    {"models": {"m": {"input": 0}}},
    {"models": {"m": {"input": -1}}},
    {"models": {"m": {"input": 1_000_000.000001}}},
    {"models": {"m": {"input": 0.0000001}}},
    {"models": {"m": {"Input": 1}}},
    {"models": {"m": {"model": 1}}},
    {"models": {"m": {"per_request": 1}}},
    {"models": {"m": {"free": True, "input": 1}}},
    {"models": {"m": {"input": 1, "max_output": 0}}},
    {"models": {"m": {"input": 1, "aliases": ["n", "n"]}}},
    {"models": {"m": {"input": 1, "aliases": ["n"]}, "n": {"input": 1}}},
    {"models": {"m": {"input": 1, "above_input": {"over": 5, "rates": {}}}}},
    {"models": {"m": {"input": 1, "above_input": {"rates": {"input": 1}}}}},
    {"models": {"m n": {"input": 1}}},
    {"models": {"m": {f"d{chr(97 + n)}": 1 for n in range(17)}}},
    {"models": {"m": {"input": 1}}, "minimum": -1},
    {"models": {"m": {"input": 1}}, "colour": 1},
    {"models": {"m": {"input": 1}}, "effective_at": 5},
]


def test_what_is_no_card_is_refused(shop: Shop) -> None:
    """A rate of zero too: what costs nothing says free."""
    for body in NO_CARDS:
        shop.refused(422, "validation-error", "PUT", "/rate-cards/default", body)
    assert shop.get("/rate-cards/default")["version"] == 1


def test_what_is_no_multiplier_is_refused(shop: Shop) -> None:
    for value in (0, -1, 1_000_001, 0.0000001, "x", True):
        shop.refused(422, "validation-error", "PATCH", "/users/u", {"price_multiplier": value})


def test_settings_of_a_level_hold_for_all_below(shop: Shop) -> None:
    shop.put(DEAR, "dear")
    shop.patch("/users/acme", {"rate_card": "dear", "price_multiplier": 2})
    shop.patch("/users/acme%2Fa", {"price_multiplier": 3})
    shop.add("acme/a/b", 5)

    asked = {"user_id": "acme/a/b", "usage": {"model": "gpt-4o", "output": 1000}}
    assert shop.post("/quote", asked)["amount"] == Decimal("0.06")
    shop.refused(422, "validation-error", "PATCH", "/users/acme", {"rate_card": "none"})
    deep = "%2F".join("abcdefg")
    shop.refused(422, "validation-error", "PATCH", f"/users/{deep}", {"price_multiplier": 2})


def test_of_two_versions_for_one_moment_the_later_call_wins(shop: Shop) -> None:
    shop.put(DEAR, effective_at="2030-01-01T12:01:00Z")
    shop.put(CARD, effective_at="2030-01-01T12:01:00+00:00")
    shop.advance(60)

    assert shop.get("/rate-cards/default")["active_version"] == 3
