"""What a gateway tells as used, charged by the rate card that its hold froze."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fakeredis import FakeServer
from starlette.testclient import TestClient

from meter.testing import app_in_step
from tests.gateway.caller import PATIENT_MS, Caller, refusal

RATES = {"input": 2, "cache_read": 1, "output": 10}
CARD = {"gpt-4o": RATES, "mini": {"input": 1, "output": 1}}
PRICE = Decimal("0.000138")  # 19 in, 10 out


@pytest.fixture
def shop() -> Iterator[Caller]:
    """A sidecar with a store; `u` has 1000 credits."""
    yield from opened()


def opened(**settings: Any) -> Iterator[Caller]:
    """A sidecar with these settings."""
    server = FakeServer()
    app = app_in_step(server, **{"partitions": 1, "gateway_timeout_ms": PATIENT_MS, "test_clock": True, **settings})
    with TestClient(app) as http:
        caller = Caller(http, server)
        caller.add("u", 1000)
        yield caller


def put(caller: Caller, models: dict[str, Any] = CARD) -> None:
    """A version of the card of everybody."""
    assert caller.http.put("/credits/rate-cards/default", json={"models": models}).status_code == 200


def chat(model: str = "gpt-4o-2024-08-06") -> dict[str, object]:
    """An answer of OpenAI's."""
    return {"model": model, "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}}


SUMS = {"prompt_tokens": 19, "completion_tokens": "10"}
TOLD = [
    ("meter", {"body": json.dumps(chat())}),
    ("meter", {"usage": {"model": "gpt-4o", "input": 19, "output": 10}}),
    ("meter", {"usage": {"prompt_tokens": 19, "completion_tokens": 10}, "model": "openai/gpt-4o"}),
    ("litellm", {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29, "model": "azure/gpt-4o"}),
    ("litellm", {"metadata": {"usage_object": {"prompt_tokens": 19, "completion_tokens": 10}}, "model": "gpt-4o"}),
    ("apisix", {"llm_summary": {**SUMS, "total_tokens": 29, "model": "gpt-4o"}}),
    ("kong", {"ai": {"proxy": {"usage": SUMS, "meta": {"response_model": "gpt-4o"}}}}),
]  # fmt: skip


def entry(source: str, reservation_id: str, told: dict[str, Any]) -> dict[str, Any]:
    """A line of one kind of log about a reservation."""
    if source == "litellm":
        metadata = {**told.get("metadata", {}), "requester_metadata": {"reservation_id": reservation_id}}
        return {"status": "success", **told, "metadata": metadata}
    if source == "kong":
        return {"request": {"headers": {"x-reservation-id": reservation_id}}, "response": {"status": 200}, **told}
    return {"reservation_id": reservation_id, "status": 200, **told}


@pytest.mark.parametrize(("source", "told"), TOLD)
@pytest.mark.parametrize("has_card", [True, False])
def test_a_log_is_charged_by_the_card_where_there_is_one(
    shop: Caller, source: str, told: dict[str, Any], has_card: bool
) -> None:
    """The hold knows no model, and freezes the version; without a card the tokens are the credits."""
    if has_card:
        put(shop)
    held = shop.held(amount=50)
    put(shop, {"gpt-4o": {"input": 999, "output": 999}})
    assert shop.balance() == (950, 50)
    assert shop.logs(entry(source, held, told), source=source)["accepted"] == 1
    assert shop.balance() == (1000 - PRICE if has_card else 971, 0)
    assert shop.logs(entry(source, held, told), source=source)["accepted"] == 1  # told again


@pytest.mark.parametrize(
    ("headers", "charged"),
    [
        ({"x_usage": '{"model":"gpt-4o","input":19,"output":10}'}, PRICE),
        ({"x_usage": json.dumps({"prompt_tokens": 19, "completion_tokens": 10, "model": "mini"})}, Decimal("0.000029")),
        ({"x_credits_actual": "7"}, 7),
        ({"x_credits_actual": "0", "x_usage": '{"model":"gpt-4o","input":19,"output":10}'}, PRICE),
        ({"x_usage": '{"model":"nobody-knows","input":19}'}, 50),
        ({"x_usage": '{"model":"gpt-4o","images":1}'}, 50),
        ({"x_usage": '{"input":19}'}, 50),
        ({"x_usage": '{"model":"gpt-4o","input":19}', "x_upstream_status": "500"}, 0),
    ],
)
def test_a_commit_tells_usage_in_a_header(shop: Caller, headers: dict[str, str], charged: object) -> None:
    """What the card has no price for costs all that is held, and never nothing."""
    put(shop)
    answer = shop.commit(x_reservation_id=shop.held(amount=50), **headers)
    assert (answer.status_code, Decimal(answer.headers["x-credits-charged"])) == (200, charged)
    assert shop.balance() == (1000 - Decimal(str(charged)), 0)


def test_a_usage_that_is_none_is_refused(shop: Caller) -> None:
    held = shop.held()
    for wrong in ("7", "{", '{"input":-1}', '{"input":"x"}', "[]"):
        refusal(shop.commit(x_reservation_id=held, x_usage=wrong), 400, "invalid-usage")


def test_the_price_of_a_model_that_is_known_is_held(shop: Caller) -> None:
    """As many tokens in and out as are estimated; an unknown model is refused, and asking again is answered alike."""
    put(shop)
    asked = {"x_user_id": "u", "x_estimated_tokens": "1000", "x_model": "openai/gpt-4o", "x_request_id": "r"}
    first = shop.authorize(**asked)
    assert (first.status_code, first.headers["x-credits-reserved"]) == (200, "0.012")
    put(shop, {"gpt-4o": {"input": 999, "output": 999}})
    again = shop.authorize(**asked)
    assert (again.headers["x-credits-reserved"], again.headers["x-reservation-id"]) == (
        "0.012",
        first.headers["x-reservation-id"],
    )
    refusal(shop.authorize(**{**asked, "x_model": "nope", "x_request_id": "s"}), 422, "unknown-model")
    entry = {"user_id": "u", "request_id": "r", "status": 200, "usage": {"input": 19, "output": 10}}
    assert shop.logs(entry)["accepted"] == 1
    assert shop.balance() == (1000 - PRICE, 0)


def test_k10_a_success_after_a_failure_is_priced(shop: Caller) -> None:
    put(shop)
    held = shop.held(amount=50)
    told = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29, "model": "gpt-4o"}
    shop.logs({**entry("litellm", held, {}), "status": "failure"}, source="litellm")
    assert shop.balance() == (1000, 0)
    for _ in range(2):
        assert shop.logs(entry("litellm", held, told), source="litellm")["accepted"] == 1
    assert shop.balance() == (1000 - PRICE, 0)


def test_the_owner_may_charge_tokens_whatever_cards_there_are() -> None:
    for shop in opened(gateway_charge_by="amount"):
        put(shop)
        shop.logs(entry("meter", shop.held(amount=50), {"body": json.dumps(chat())}))
        assert shop.balance() == (971, 0)
