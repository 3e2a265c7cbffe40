"""Stripe as a provider: PaymentIntents that are confirmed at once, off session, by the card that a payer has saved.

Plain HTTPS of a pinned version of its API. A payment's key is the Idempotency-Key and stands in the metadata, by which
it is found again in the list of the customer's PaymentIntents, which is consistent (the search is not).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import NamedTuple, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from meter.errors import ConfigError
from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent, State

STRIPE_URL = "https://api.stripe.com"
VERSION = "2024-06-20"
KEY = "meter_payment"
"""The member of metadata that has a payment's key."""
TOLERANCE_SECONDS = 300
"""How old a signature may be: what Stripe's own libraries take."""
PAGES_MAX = 5
_PER_PAGE = 100
_OPEN = frozenset({"requires_payment_method", "requires_action", "requires_confirmation", "requires_capture"})
"""Nobody is there to act: cancelled, and declined."""
_DEFINITE = frozenset({400, 402, 404})
"""Nothing was made, or the card was declined; of any other status nobody knows."""
_OF_INTENTS: Mapping[str, State] = {"payment_intent.succeeded": "paid", "payment_intent.canceled": "declined"}
_OF_CHARGES = frozenset({"charge.refunded", "charge.dispute.created"})


class Price(NamedTuple):
    """Of one credit, in the smallest unit of a currency: 0.5 usd is half a cent."""

    amount: Decimal
    currency: str


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


M = TypeVar("M", bound=_Lenient)


class _Intent(_Lenient):
    id: str
    status: str
    metadata: dict[str, str] = {}
    last_payment_error: dict[str, object] | None = None


class _List(_Lenient):
    data: list[_Intent]
    has_more: bool = False


class _Error(_Lenient):
    message: str = ""
    code: str | None = None
    decline_code: str | None = None
    payment_intent: _Intent | None = None


class _Failed(_Lenient):
    error: _Error


class _Object(_Lenient):
    id: str
    status: str = ""
    metadata: dict[str, str] = {}
    payment_intent: str | None = None
    refunded: bool = False
    reason: str | None = None


class _Data(_Lenient):
    object: _Object


class _Event(_Lenient):
    type: str
    data: _Data


def read_price(text: str) -> Price:
    """Raises `ConfigError`."""
    amount, _, currency = text.partition(" ")
    try:
        price = Price(Decimal(amount), currency.lower())
    except InvalidOperation:
        price = Price(Decimal(0), "")
    if not (price.amount.is_finite() and price.amount > 0 and len(price.currency) == 3 and price.currency.isalpha()):
        raise ConfigError(f"METER_CREDIT_PRICE={text!r}: wants the price of a credit in the smallest unit: 0.5 usd")
    return price


class StripeProvider:
    """A payer's reference is `cus_…:pm_…`, the customer and the saved payment method."""

    def __init__(self, api_key: str, secret: str, price: Price, url: str = STRIPE_URL) -> None:
        self._headers = {"authorization": f"Bearer {api_key}", "stripe-version": VERSION}
        self._secret = secret
        self._price = price
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def pay(self, payment: Payment) -> Outcome:
        customer, _, method = payment.reference.partition(":")
        form = {
            "amount": str(self._money(payment.credits)),
            "currency": self._price.currency,
            "customer": customer,
            "payment_method": method,
            "off_session": "true",
            "confirm": "true",
            f"metadata[{KEY}]": payment.key,
            "metadata[user_id]": payment.user_id,
        }
        status, body = await self._call("POST", "/v1/payment_intents", form, payment.key)
        if status == 200:
            return await self._outcome(_read(_Intent, body))
        if status not in _DEFINITE:
            raise NoAnswer(f"Stripe answered {status}")
        error = _read(_Failed, body).error
        reason = error.decline_code or error.code or error.message
        if error.payment_intent is None:
            return Outcome("declined", reason=reason)
        found = await self._outcome(error.payment_intent)
        return found if found.state != "declined" else Outcome("declined", found.payment_id, reason)

    async def look_up(self, payment: Payment) -> Outcome | None:
        customer, after = payment.reference.partition(":")[0], ""
        for _ in range(PAGES_MAX):
            query = f"?customer={customer}&limit={_PER_PAGE}" + (f"&starting_after={after}" if after else "")
            status, body = await self._call("GET", f"/v1/payment_intents{query}")
            if status != 200:
                raise NoAnswer(f"Stripe answered {status}")
            page = _read(_List, body)
            for intent in page.data:
                if intent.metadata.get(KEY) == payment.key:
                    return await self._outcome(intent)
            if not page.has_more or not page.data:
                return None
            after = page.data[-1].id
        raise NoAnswer(f"the payment is not among the last {PAGES_MAX * _PER_PAGE} of the customer")

    async def event(self, headers: Mapping[str, str], body: bytes) -> PaymentEvent | None:
        self._verify(headers.get("stripe-signature", ""), body)
        try:
            told = _Event.model_validate_json(body)
        except ValidationError:
            raise EventRefused("the event cannot be read") from None
        about = told.data.object
        key = about.metadata.get(KEY)
        if (state := _OF_INTENTS.get(told.type)) is not None:
            return None if key is None else PaymentEvent(key, state, about.id, told.type)
        is_partial = told.type == "charge.refunded" and not about.refunded
        if told.type not in _OF_CHARGES or is_partial or about.payment_intent is None:
            return None
        key = key or (await self._intent(about.payment_intent)).metadata.get(KEY)
        return None if key is None else PaymentEvent(key, "reversed", about.payment_intent, about.reason or told.type)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _outcome(self, intent: _Intent) -> Outcome:
        """What a PaymentIntent means; one that waits for a person is cancelled, so that it is never paid later."""
        if intent.status == "succeeded":
            return Outcome("paid", intent.id)
        if intent.status == "processing":
            return Outcome("pending", intent.id)
        if intent.status in _OPEN:
            status, body = await self._call(
                "POST", f"/v1/payment_intents/{intent.id}/cancel", {}, f"{intent.id}-cancel"
            )
            if status != 200:
                now = await self._intent(intent.id)
                if now.status in _OPEN:
                    raise NoAnswer(f"Stripe answered {status} when the payment was to be cancelled")
                return await self._outcome(now)
            _read(_Intent, body)
        error = intent.last_payment_error or {}
        return Outcome("declined", intent.id, str(error.get("decline_code") or error.get("code") or intent.status))

    async def _intent(self, intent_id: str) -> _Intent:
        status, body = await self._call("GET", f"/v1/payment_intents/{intent_id}")
        if status != 200:
            raise NoAnswer(f"Stripe answered {status}")
        return _read(_Intent, body)

    async def _call(
        self, method: str, path: str, form: Mapping[str, str] | None = None, key: str = ""
    ) -> tuple[int, bytes]:
        """Raises `NoAnswer` where it is not known what became of it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        headers = {**self._headers, **({"idempotency-key": key} if key else {})}
        try:
            async with self._session.request(method, self._url + path, data=form, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error

    def _money(self, credits_: Decimal) -> int:
        return max(1, int((credits_ * self._price.amount).quantize(Decimal(1), ROUND_HALF_UP)))

    def _verify(self, header: str, body: bytes) -> None:
        """Raises `EventRefused`."""
        parts = [part.partition("=") for part in header.split(",")]
        at = next((value for name, _, value in parts if name == "t"), "")
        if not at.isdigit() or abs(time.time() - int(at)) > TOLERANCE_SECONDS:
            raise EventRefused("the signature is missing, or too old")
        wanted = hmac.new(self._secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not any(name == "v1" and hmac.compare_digest(value, wanted) for name, _, value in parts):
            raise EventRefused("the signature is wrong")


def _read(model: type[M], body: bytes) -> M:
    """Raises `NoAnswer`."""
    try:
        return model.model_validate_json(body)
    except ValidationError:
        raise NoAnswer("Stripe's answer cannot be read") from None
