"""P17: a repeated call is told what the first one was, also of rules, whatever has become of them since."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.sidecar import Answer
from tests.limits.conftest import Shop

BUDGETS: dict[str, Any] = {"daily": {"limit": 10, "window": "day"}, "all": {"limit": 80, "window": "total"}}
SETTINGS: dict[str, Any] = {
    "budgets": BUDGETS,
    "rate_limits": {"open": {"kind": "concurrent", "limit": 3}, "rpm": {"kind": "requests", "limit": 60}},
    "price_multiplier": "1.25",
    "metadata": {"a \\ b": 'says "x | y; z" & more', "n": [1, 1.5, None, "é"]},
    "low_credit_thresholds": [5, 3],
}


def configure(shop: Shop, key: str, **settings: Any) -> Answer:
    return shop.call("PATCH", "/credits/users/acme", settings, key=key)


def test_p17_what_an_account_may_do_is_told_as_it_was(shop: Shop) -> None:
    first = configure(shop, "k", **SETTINGS)
    assert (first.status, first.body["metadata"]["n"][1]) == (200, 1.5)
    assert first.body == shop.user("acme")
    shop.add("acme/bot", 20)
    shop.reserve(2, "acme/bot")
    assert shop.deduct(3, "acme/bot").status == 200
    other = configure(shop, "l", budgets={"all": None}, rate_limits={"rpm": None}, metadata={}, suspended=True)
    assert (list(other.body["budgets"]), other.body["budgets"]["daily"]["used"]) == (["daily"], 3)

    again = configure(shop, "k", **SETTINGS)

    assert (again.raw, again.headers["idempotency-replayed"]) == (first.raw, "true")
    assert (
        configure(shop, "l", budgets={"all": None}, rate_limits={"rpm": None}, metadata={}, suspended=True).raw
        == other.raw
    )
    assert shop.user("acme") == other.body


def test_p17_a_path_without_rules_of_its_own_is_told_as_it_was(shop: Shop) -> None:
    deep = "/credits/users/a%2Fb%2Fc%2Fd%2Fe%2Ff%2Fg"
    first = shop.call("PATCH", deep, {"overdraft_limit": 3}, key="k")
    shop.call("PATCH", deep, {"overdraft_limit": 4, "metadata": {"n": 1}}, key="l")

    assert (first.status, first.body["budgets"], first.body["metadata"]) == (200, {}, None)
    assert shop.call("PATCH", deep, {"overdraft_limit": 3}, key="k").raw == first.raw


@pytest.mark.parametrize("asked", ["deduct, by a key", "reserve, by a key", "reserve, by its own id"])
def test_p17_where_a_limit_stood_is_told_as_it_was(shop: Shop, asked: str) -> None:
    shop.add("u", 10)
    shop.limits(rpm={"kind": "requests", "limit": 60}, open={"kind": "concurrent", "limit": 9})
    path = "/credits/deduct" if asked.startswith("deduct") else "/credits/reservations"
    body = {"user_id": "u", "amount": 1, **({"reservation_id": "h"} if "own" in asked else {})}
    key = "k" if "key" in asked else None

    first = shop.call("POST", path, body, key=key)
    shop.deduct(1)

    assert "rate_limit" in first.body
    assert shop.call("POST", path, body, key=key).raw == first.raw
