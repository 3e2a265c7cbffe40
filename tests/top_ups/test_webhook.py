"""The provider that is an endpoint of the owner's: what is said both ways, and what counts as an outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from meter.config import Settings
from meter.errors import ConfigError
from meter.testing import fake_app
from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent
from meter.top_ups.providers import provider_of
from meter.top_ups.webhook import WebhookProvider

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
PAYMENT = Payment("topup:0-1-a-1", "topup:0-1-a-1", "u", Decimal("2.50"), "cus_1", 1)


@dataclass
class Endpoint:
    """Answers with `answers` in order; every request must be signed."""

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.heard.append(Webhook(SECRET).verify(raw, {name.lower(): value for name, value in request.headers.items()}))
        status, body = self.answers.pop(0)
        return web.Response(status=status, body=body)


@asynccontextmanager
async def listening() -> AsyncIterator[Endpoint]:
    found = Endpoint()
    app = web.Application()
    app.router.add_post("/pay", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/pay"
    yield found
    await runner.cleanup()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening() as found:
        yield found


@pytest.fixture
async def provider(endpoint: Endpoint) -> AsyncIterator[WebhookProvider]:
    found = WebhookProvider(endpoint.url, SECRET)
    yield found
    await found.close()


async def test_it_is_asked_by_a_signed_request_with_all_that_it_needs(
    endpoint: Endpoint, provider: WebhookProvider
) -> None:
    endpoint.answers = [(200, b'{"state":"paid","provider_id":"p1"}'), (200, b'{"state":"unknown"}')]

    assert await provider.pay(PAYMENT) == Outcome("paid", "p1")
    assert await provider.look_up(PAYMENT) is None

    about = {
        "payment_id": "topup:0-1-a-1",
        "top_up_id": "topup:0-1-a-1",
        "user_id": "u",
        "credits": 2.5,
        "payment_reference": "cus_1",
        "attempt": 1,
    }
    assert endpoint.heard == [
        {"type": "payment.requested", "data": about},
        {"type": "payment.lookup", "data": about},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        *((500, b""), (404, b'{"state":"paid"}'), (302, b"")),
        *((200, b""), (200, b'{"state":"maybe"}'), (200, b'{"state":"unknown"}')),
    ],
)
async def test_anything_else_is_no_outcome(
    endpoint: Endpoint, provider: WebhookProvider, answer: tuple[int, bytes]
) -> None:
    endpoint.answers = [answer]

    with pytest.raises(NoAnswer):
        await provider.pay(PAYMENT)


async def test_nobody_there_is_no_outcome() -> None:
    provider = WebhookProvider("http://127.0.0.1:1/pay", SECRET)
    with pytest.raises(NoAnswer):
        await provider.pay(PAYMENT)
    await provider.close()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    at = datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", at, body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


async def test_events_are_the_provider_s_or_refused(provider: WebhookProvider) -> None:
    def event(kind: str) -> bytes:
        return orjson.dumps({"type": kind, "data": {"payment_id": "k", "reason": "why"}})

    for kind, state in {"paid": "paid", "declined": "declined", "refunded": "reversed", "disputed": "reversed"}.items():
        body = event(f"payment.{kind}")
        assert await provider.event(signed(body), body) == PaymentEvent("k", state, None, "why")  # type: ignore[arg-type]
    other = event("invoice.made")
    assert await provider.event(signed(other), other) is None
    for headers, body in (
        ({}, other),
        (signed(other, "whsec_b3RoZXJvdGhlcm90aGVy"), other),
        (signed(other), other + b" "),
        (signed(b"{}"), b"{}"),
    ):
        with pytest.raises(EventRefused):
            await provider.event(headers, body)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"payments": "cash"}, "none of webhook:URL"),
        ({"payments": "webhook:"}, "wants the URL"),
        ({"payments": "webhook:https://example.com", "payments_secret": "no secret!"}, "METER_PAYMENTS_SECRET"),
        ({"payments": "stripe"}, "METER_PAYMENTS_KEY"),
        ({"payments": "stripe", "payments_key": "k", "payments_secret": "s", "credit_price": "half"}, "CREDIT_PRICE"),
        ({"payments": "tests.top_ups.bank:Way"}, "no provider"),
    ],
)
def test_a_provider_that_cannot_be_is_refused(changed: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        provider_of(Settings(**changed))  # type: ignore[arg-type]


def test_none_or_one_of_ones_own() -> None:
    assert provider_of(Settings()) is None
    assert provider_of(Settings(payments="tests.top_ups.bank:Bank")) is not None


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(
        fake_app(store_url="memory://", payments="webhook:https://a.example", payments_secret=SECRET)
    ) as found:
        yield found


def test_the_path_of_events_wants_a_signature_and_no_key(http: TestClient) -> None:
    body = orjson.dumps({"type": "payment.paid", "data": {"payment_id": "topup:9"}})
    headers = {"content-type": "application/json"}

    known = http.post("/payments/events", content=body, headers={**headers, **signed(body)})
    refused = http.post("/payments/events", content=body, headers=headers)

    assert (known.status_code, known.json()) == (200, {"known": False})
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/payment-event-refused")


def test_without_a_provider_nothing_is_set(http: TestClient) -> None:
    terms = {"below": 1, "amount": 2, "payment_reference": "c", "most": 1}
    assert http.put("/credits/users/u/top-up", json=terms).status_code == 422
    assert http.put("/credits/users/u/top-up", json={**terms, "most": 3}).json()["state"] == "waiting"
    with TestClient(fake_app()) as other:
        refused = other.put("/credits/users/u/top-up", json={**terms, "most": 3})
        assert refused.status_code == 422
        assert "METER_PAYMENTS" in refused.text
