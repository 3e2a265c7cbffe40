"""Stripe, by a stand-in that speaks its API over HTTP: repeats by key, declined cards, answers that are lost."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from aiohttp import web

from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent
from meter.top_ups.stripe import StripeProvider, read_price

PAYMENT = Payment("topup:0-1-a-1", "topup:0-1-a-1", "u", Decimal("2.5"), "cus_1:pm_ok", 1)
SECRET = "whsec_stripe"


@dataclass
class StandIn:
    """PaymentIntents of customers. The payment method says what becomes of one; `loses` answers of that many calls."""

    intents: list[dict[str, Any]] = field(default_factory=list)
    by_key: dict[str, dict[str, Any]] = field(default_factory=dict)
    loses: int = 0
    page: int = 100
    url: str = ""

    async def create(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer sk_test"
        form, key = await request.post(), request.headers["idempotency-key"]
        if key not in self.by_key:
            method = str(form["payment_method"])
            status = {"pm_ok": "succeeded", "pm_slow": "processing", "pm_asks": "requires_action"}.get(method)
            self.by_key[key] = {
                "id": f"pi_{len(self.intents)}",
                "status": status or "requires_payment_method",
                "amount": int(str(form["amount"])),
                "currency": form["currency"],
                "customer": form["customer"],
                "metadata": {"meter_payment": form["metadata[meter_payment]"]},
            }
            self.intents.insert(0, self.by_key[key])
        if self.loses:
            self.loses -= 1
            return web.Response(status=500)
        intent = self.by_key[key]
        if intent["status"] == "requires_payment_method":
            error = {"code": "card_declined", "decline_code": "insufficient_funds", "payment_intent": intent}
            return web.json_response({"error": error}, status=402)
        return web.json_response(intent)

    async def list(self, request: web.Request) -> web.Response:
        mine = [one for one in self.intents if one["customer"] == request.query["customer"]]
        after = request.query.get("starting_after")
        at = 1 + [one["id"] for one in mine].index(after) if after else 0
        found = mine[at : at + self.page]
        return web.json_response({"data": found, "has_more": at + self.page < len(mine)})

    async def read(self, request: web.Request) -> web.Response:
        return web.json_response(self._of(request))

    async def cancel(self, request: web.Request) -> web.Response:
        intent = self._of(request)
        if intent["status"] in ("succeeded", "canceled"):
            return web.json_response({"error": {"code": "payment_intent_unexpected_state"}}, status=400)
        intent["status"] = "canceled"
        return web.json_response(intent)

    def _of(self, request: web.Request) -> dict[str, Any]:
        return next(one for one in self.intents if one["id"] == request.match_info["id"])


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found, app = StandIn(), web.Application()
    app.router.add_post("/v1/payment_intents", found.create)
    app.router.add_get("/v1/payment_intents", found.list)
    app.router.add_get("/v1/payment_intents/{id}", found.read)
    app.router.add_post("/v1/payment_intents/{id}/cancel", found.cancel)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def stripe(stand_in: StandIn) -> AsyncIterator[StripeProvider]:
    found = StripeProvider("sk_test", SECRET, read_price("0.5 usd"), stand_in.url)
    yield found
    await found.close()


async def test_a_payment_is_one_intent_however_often_it_is_asked_for(stand_in: StandIn, stripe: StripeProvider) -> None:
    assert await stripe.pay(PAYMENT) == await stripe.pay(PAYMENT) == Outcome("paid", "pi_0")

    (intent,) = stand_in.intents
    assert (intent["amount"], intent["currency"], intent["customer"]) == (1, "usd", "cus_1")


async def test_an_answer_that_is_lost_is_found_by_the_key(stand_in: StandIn, stripe: StripeProvider) -> None:
    assert await stripe.look_up(PAYMENT) is None
    stand_in.loses, stand_in.page = 1, 2
    with pytest.raises(NoAnswer):
        await stripe.pay(PAYMENT)
    for number in range(2, 6):
        await stripe.pay(replace(PAYMENT, key=f"other.{number}"))

    assert await stripe.look_up(PAYMENT) == Outcome("paid", "pi_0")
    stand_in.page = 1
    for number in range(6, 8):
        await stripe.pay(replace(PAYMENT, key=f"other.{number}"))
    with pytest.raises(NoAnswer):  # further down than it is looked for: nobody knows
        await stripe.look_up(PAYMENT)


@pytest.mark.parametrize(("method", "reason"), [("pm_empty", "insufficient_funds"), ("pm_asks", "canceled")])
async def test_a_card_that_is_declined_can_never_be_charged_later(
    stand_in: StandIn, stripe: StripeProvider, method: str, reason: str
) -> None:
    asked = replace(PAYMENT, reference=f"cus_1:{method}")
    found = await stripe.pay(asked)

    assert (found.state, found.payment_id) == ("declined", "pi_0")
    assert stand_in.intents[0]["status"] == "canceled"
    assert reason in (found.reason, "canceled")
    again = await stripe.look_up(asked)
    assert again is not None
    assert again.state == "declined"


async def test_what_takes_its_time_is_pending(stand_in: StandIn, stripe: StripeProvider) -> None:
    slow = replace(PAYMENT, reference="cus_1:pm_slow")
    assert await stripe.pay(slow) == Outcome("pending", "pi_0")
    stand_in.intents[0]["status"] = "succeeded"
    assert await stripe.look_up(slow) == Outcome("paid", "pi_0")


def event(kind: str, about: dict[str, Any], secret: str = SECRET, age_seconds: int = 0) -> tuple[dict[str, str], bytes]:
    body, at = orjson.dumps({"type": kind, "data": {"object": about}}), int(time.time()) - age_seconds
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at},v1=00,v1={signature}"}, body


async def test_events_name_the_payment_by_the_intent(stripe: StripeProvider) -> None:
    await stripe.pay(PAYMENT)
    mine = {"metadata": {"meter_payment": PAYMENT.key}}

    async def told(kind: str, **about: Any) -> PaymentEvent | None:
        return await stripe.event(*event(kind, {"id": "x", **about}))

    paid = await told("payment_intent.succeeded", **{**mine, "id": "pi_0"})
    assert paid == PaymentEvent(PAYMENT.key, "paid", "pi_0", "payment_intent.succeeded")
    disputed = await told("charge.dispute.created", payment_intent="pi_0", reason="fraudulent")
    assert disputed == PaymentEvent(PAYMENT.key, "reversed", "pi_0", "fraudulent")
    refunded = await told("charge.refunded", payment_intent="pi_0", refunded=True)
    assert refunded is not None
    assert refunded.state == "reversed"
    assert await told("charge.refunded", payment_intent="pi_0", refunded=False) is None
    assert await told("payment_intent.succeeded") is None
    assert await told("invoice.paid", **mine) is None


@pytest.mark.parametrize("changed", [{"secret": "other"}, {"age_seconds": 400}])
async def test_events_of_others_are_refused(stripe: StripeProvider, changed: dict[str, Any]) -> None:
    for headers, body in (event("payment_intent.succeeded", {"id": "x"}, **changed), ({}, b"{}")):
        with pytest.raises(EventRefused):
            await stripe.event(headers, body)
