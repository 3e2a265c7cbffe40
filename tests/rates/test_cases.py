"""What a usage costs, from outside: each case by its id (docs/rate-cards.md has the rules)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.rates.conftest import CARD, DEAR, Shop


def usage(model: str, **quantities: object) -> dict[str, object]:
    return {"model": model, **quantities}


def deduct(shop: Shop, used: object, user_id: str = "u") -> Any:
    return shop.post("/deduct", {"user_id": user_id, "usage": used})


def reserve(shop: Shop, used: object, **members: object) -> Any:
    return shop.post("/reservations", {"user_id": "u", "usage": used, **members}, status=201)


def commit(shop: Shop, hold: str, used: object) -> Any:
    return shop.post(f"/reservations/{hold}/commit", {"usage": used})


ASKED = usage("gpt-4o", input=1000, max_output=500)
USED = {"input": 1000, "output": 320}


def test_h1_price_of_a_deduct(shop: Shop) -> None:
    answer = deduct(shop, usage("gpt-4o", input=1000, output=320))

    assert (answer["amount"], answer["available"]) == (Decimal("0.0057"), Decimal("4.9943"))
    assert answer["price"] == {
        "rate_card_id": "default",
        "version": 1,
        "model": "gpt-4o",
        "multiplier": 1,
        "breakdown": {
            "input": {"quantity": 1000, "amount": Decimal("0.0025")},
            "output": {"quantity": 320, "amount": Decimal("0.0032")},
        },
        "rounding": 0,
        "unpriced": [],
    }
    [charge] = shop.get("/history/u?kind=deduct")["items"]
    assert charge["price"] == answer["price"]
    assert deduct(shop, usage("gpt-4o-2024-08-06", input=1000))["amount"] == Decimal("0.0025")


def test_h2_one_rounding(shop: Shop) -> None:
    cases = [({"input": 1}, "0.000003"), ({"input": 1, "cache_read": 1}, "0.000004"), ({"output": 1}, "0.00001")]
    for quantities, amount in cases:
        assert deduct(shop, usage("gpt-4o", **quantities))["amount"] == Decimal(amount)


def test_h3_multiplier_before_the_rounding(shop: Shop) -> None:
    assert shop.patch("/users/u", {"price_multiplier": 1.2})["price_multiplier"] == Decimal("1.2")

    assert deduct(shop, usage("gpt-4o", input=1))["amount"] == Decimal("0.000003")
    assert shop.get("/users/u")["price_multiplier"] == Decimal("1.2")
    assert shop.patch("/users/u", {"price_multiplier": None})["price_multiplier"] is None
    assert deduct(shop, usage("gpt-4o", input=2))["amount"] == Decimal("0.000005")


def test_h4_hold_and_settle(shop: Shop) -> None:
    held = reserve(shop, ASKED)
    assert (held["amount"], held["price"]["breakdown"]["output"]["quantity"]) == (Decimal("0.0075"), 500)

    path, body = f"/credits/reservations/{held['reservation_id']}/commit", {"usage": USED}
    first, second = shop.call("POST", path, body), shop.call("POST", path, body)
    assert (first.body["charged"], first.body["released"]) == (Decimal("0.0057"), Decimal("0.0018"))
    assert first.body["available"] == Decimal("4.9943")
    assert (second.raw, second.replayed, first.replayed) == (first.raw, True, False)
    assert shop.available("u") == Decimal("4.9943")


def test_h5_price_change_in_between(shop: Shop) -> None:
    held = reserve(shop, ASKED)
    assert shop.put(DEAR)["version"] == 2  # type: ignore[index]

    answer = commit(shop, held["reservation_id"], USED)
    assert (answer["charged"], answer["price"]["version"]) == (Decimal("0.0057"), 1)
    anew = reserve(shop, ASKED)
    assert (anew["amount"], anew["price"]["version"]) == (Decimal("0.0125"), 2)


def test_h6_late_commit_keeps_the_price(shop: Shop) -> None:
    held = reserve(shop, ASKED, ttl_seconds=60)
    shop.advance(61)
    shop.put(DEAR)

    answer = commit(shop, held["reservation_id"], USED)
    assert (answer["late"], answer["charged"]) == (True, Decimal("0.0057"))


def test_h7_unknown_model(shop: Shop) -> None:
    nope = {"user_id": "u", "usage": usage("nope", input=10, max_output=10)}
    shop.refused(422, "unknown-model", "POST", "/reservations", nope)
    assert shop.available("u") == 5
    assert [item["kind"] for item in shop.get("/history/u")["items"]] == ["grant"]

    shop.put({**CARD, "*": {"input": 4, "output": 8}})
    assert reserve(shop, nope["usage"])["amount"] == Decimal("0.00012")
    assert deduct(shop, usage("gift", input=1_000_000))["amount"] == 0


@pytest.mark.parametrize("model", ["a;b", ";", "$a", "!a", "%a", "a=b;c"])
def test_h7_a_model_may_be_called_by_any_sign(shop: Shop, model: str) -> None:
    """Also by those that stand between the parts of other answers of the scripts."""
    asked = {"user_id": "u", "usage": usage(model, input=10, max_output=10)}
    for path in ("/reservations", "/deduct", "/quote"):
        shop.refused(422, "unknown-model", "POST", path, asked)
    shop.put({**CARD, model: {"input": 4, "output": 8}})
    held = reserve(shop, asked["usage"])
    assert (held["amount"], held["price"]["model"]) == (Decimal("0.00012"), model)
    assert commit(shop, held["reservation_id"], usage(model, input=10, output=10))["charged"] == Decimal("0.00012")


MALFORMED: list[dict[str, Any]] = [
    {"amount": 1, "usage": usage("gpt-4o", input=1)},
    {},
    {"usage": usage("gpt-4o", input=-1)},
    {"usage": usage("gpt-4o", input=1.5)},
    {"usage": usage("gpt-4o", input="10")},
    {"usage": usage("gpt-4o", input=True)},
    {"usage": usage("gpt-4o", input=10**12 + 1)},
    {"usage": usage("gpt-4o", images=1)},
    {"usage": usage("gpt-4o", Input=1)},
    {"usage": usage("gpt-4o", input=None)},
    {"usage": {"input": 1}},
    {"usage": usage("a,b", input=1)},
    {"usage": usage("-", input=1)},
    {"usage": usage("gpt-4o", **{f"d{chr(97 + n)}": 1 for n in range(17)})},
    {"usage": []},
]


def test_h8_shape(shop: Shop) -> None:
    """Of a deduct, a reserve, a quote and an item of a batch."""
    for members in MALFORMED:
        body = {"user_id": "u", **members}
        for path in ("/deduct", "/reservations", "/quote"):
            assert shop.refused(422, "validation-error", "POST", path, body)["errors"], members
        batch = shop.call("POST", "/credits/batch", {"operations": [{"op": "deduct", **body}]})
        assert 422 in (batch.status, *(item["status"] for item in batch.body.get("results", []))), members
    assert shop.available("u") == 5


def test_h8_a_commit_takes_one_of_them_or_none(shop: Shop) -> None:
    hold = reserve(shop, ASKED)["reservation_id"]
    both = {"amount": 1, "usage": USED}
    shop.refused(422, "validation-error", "POST", f"/reservations/{hold}/commit", both)
    shop.refused(422, "validation-error", "POST", f"/reservations/{hold}/commit", {"usage": {"input": -1}})

    answer = shop.post(f"/reservations/{hold}/commit")
    assert (answer["charged"], answer["price"]["version"]) == (Decimal("0.0075"), 1)
    plain = shop.post("/reservations", {"user_id": "u", "amount": 1}, status=201)["reservation_id"]
    shop.refused(422, "reservation-not-priced", "POST", f"/reservations/{plain}/commit", {"usage": USED})


def test_h9_fallback_model(shop: Shop) -> None:
    hold, other = reserve(shop, ASKED)["reservation_id"], reserve(shop, ASKED)["reservation_id"]

    answer = commit(shop, hold, {**USED, "model": "mini"})
    assert (answer["charged"], answer["released"]) == (Decimal("0.000342"), Decimal("0.007158"))
    path = f"/reservations/{other}/commit"
    shop.refused(422, "unknown-model", "POST", path, {"usage": {**USED, "model": "nope"}})
    assert shop.get(f"/reservations/{other}")["state"] == "open"


def test_h10_tier(shop: Shop) -> None:
    assert deduct(shop, usage("gem", input=200_000))["amount"] == Decimal("0.25")
    assert deduct(shop, usage("gem", input=200_001))["amount"] == Decimal("0.500003")
    answer = deduct(shop, usage("gem", input=200_000, cache_read=1))
    assert (answer["amount"], answer["price"]["unpriced"]) == (Decimal("0.500003"), ["cache_read"])


def test_h11_activation_instant(shop: Shop) -> None:
    shop.put(DEAR, effective_at="2030-01-01T12:01:00Z")
    assert shop.get("/rate-cards/default")["version"] == 1
    output = usage("gpt-4o", output=1000)

    shop.advance(59.999)
    assert deduct(shop, output)["amount"] == Decimal("0.01")
    shop.advance(0.001)
    assert deduct(shop, output)["amount"] == Decimal("0.02")
    assert shop.get("/rate-cards/default")["version"] == 2
    assert shop.post("/rate-cards/default/activate", {"version": 1})["active_version"] == 1
    assert deduct(shop, output)["amount"] == Decimal("0.01")


def test_h12_quote_changes_nothing(shop: Shop) -> None:
    shop.add("v", 0.001)
    answer = shop.post("/quote", {"user_id": "v", "usage": ASKED})

    assert (answer["amount"], answer["would"], answer["price"]["version"]) == (Decimal("0.0075"), "insufficient", 1)
    assert [item["rule"] for item in answer["violations"]] == ["credits"]
    assert [item["kind"] for item in shop.get("/history/v")["items"]] == ["grant"]
    assert shop.post("/quote", {"user_id": "v", "amount": 0.001})["would"] == "ok"


def test_items_of_a_batch_take_a_usage(shop: Shop) -> None:
    hold = reserve(shop, ASKED)["reservation_id"]
    results = shop.post(
        "/batch",
        {
            "operations": [
                {"op": "deduct", "user_id": "u", "usage": usage("mini", input=1000)},
                {"op": "deduct", "user_id": "u", "amount": 1},
                {"op": "reserve", "user_id": "u", "usage": ASKED},
                {"op": "commit", "reservation_id": hold, "usage": USED},
                {"op": "deduct", "user_id": "u", "usage": usage("nope")},
            ]
        },
    )["results"]

    assert [item["status"] for item in results] == [200, 200, 201, 200, 422]
    assert [item.get("price", {}).get("version") for item in results] == [1, None, 1, 1, None]
    assert results[3]["charged"] == Decimal("0.0057")


def test_a_commit_of_an_amount_says_so(shop: Shop) -> None:
    hold = reserve(shop, ASKED)["reservation_id"]
    assert "price" not in shop.post(f"/reservations/{hold}/commit", {"amount": 0.001})

    [row] = shop.get("/history/u?kind=commit")["items"]
    assert (row["priced"], "price" in row) == (False, False)


def test_a_repeated_call_is_answered_byte_for_byte(shop: Shop) -> None:
    """By its key or its own reservation_id, though the card is another one by now."""
    calls = [
        ("/credits/deduct", {"user_id": "u", "usage": usage("gpt-4o", input=1, output=1)}, "k1"),
        ("/credits/reservations", {"user_id": "u", "usage": ASKED}, "k2"),
        ("/credits/reservations", {"user_id": "u", "usage": ASKED, "reservation_id": "mine"}, None),
        ("/credits/reservations/mine/commit", {"usage": USED}, "k3"),
    ]
    first = [shop.call("POST", path, body, key=key) for path, body, key in calls]
    shop.put({"other": {"input": 1}})

    again = [shop.call("POST", path, body, key=key) for path, body, key in calls]
    assert [answer.raw for answer in again] == [answer.raw for answer in first]
    assert all(answer.replayed for answer in again)


def test_an_active_version_without_its_rates_is_503(shop: Shop) -> None:
    shop.put({**CARD, "*": {"input": 1, "output": 1}})
    shop.client.hdel(shop.keys.rates, "default@2 gpt-4o")

    body = {"user_id": "u", "usage": usage("gpt-4o", input=1)}
    assert shop.refused(503, "metering-unavailable", "POST", "/deduct", body)["reason"] == "rates"
    assert shop.available("u") == 5
