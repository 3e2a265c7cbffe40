"""The provider that everybody has: an endpoint of the owner's is asked, by signed requests, and tells by signed events.

Both ways are Standard Webhooks with one secret (docs/top-up.md has what is said). Nothing but an answer that says so is
an outcome: whatever else comes, and nothing, is looked up later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from meter.alerts.signing import signed_headers
from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent

ANSWER_MAX_BYTES = 64 * 1024
_STATES: Mapping[str, Literal["paid", "declined", "pending", "reversed"]] = {
    "payment.paid": "paid",
    "payment.declined": "declined",
    "payment.refunded": "reversed",
    "payment.disputed": "reversed",
}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)

    state: Literal["paid", "declined", "pending", "unknown"]
    provider_id: str | None = Field(default=None, max_length=200)
    reason: str = Field(default="", max_length=2000)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)

    payment_id: str = Field(max_length=128)
    provider_id: str | None = Field(default=None, max_length=200)
    reason: str = Field(default="", max_length=2000)


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: str
    data: _Told


class WebhookProvider:
    """Asks one URL. `secret` signs both ways, as `whsec_…`."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret
        self._session: aiohttp.ClientSession | None = None

    async def pay(self, payment: Payment) -> Outcome:
        found = await self._asked("payment.requested", payment.key, payment)
        if found is None:
            raise NoAnswer("the endpoint answers a request to pay with unknown")
        return found

    async def look_up(self, payment: Payment) -> Outcome | None:
        return await self._asked("payment.lookup", f"{payment.key}.look-{time.time_ns()}", payment)

    async def event(self, headers: Mapping[str, str], body: bytes) -> PaymentEvent | None:
        try:
            Webhook(self._secret).verify(body, dict(headers))
            told = _Event.model_validate_json(body)
        except WebhookVerificationError as error:
            raise EventRefused(f"the signature is wrong: {error}") from None
        except (ValidationError, ValueError):
            raise EventRefused("the event cannot be read") from None
        state = _STATES.get(told.type)
        if state is None:
            return None
        return PaymentEvent(told.data.payment_id, state, told.data.provider_id, told.data.reason)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _asked(self, kind: str, message_id: str, payment: Payment) -> Outcome | None:
        """What the endpoint answers; None for unknown. Raises `NoAnswer`."""
        status, body = await self._post(kind, message_id, payment)
        if status != 200:
            raise NoAnswer(f"the endpoint answered {status}")
        try:
            answer = _Answer.model_validate_json(body)
        except ValidationError:
            raise NoAnswer("the endpoint's answer cannot be read") from None
        if answer.state == "unknown":
            return None
        return Outcome(answer.state, answer.provider_id, answer.reason)

    async def _post(self, kind: str, message_id: str, payment: Payment) -> tuple[int, bytes]:
        body = _body(kind, payment)
        headers = {
            **signed_headers(message_id, int(time.time()), body, [self._secret]),
            "content-type": "application/json",
            "idempotency-key": payment.key,
            "user-agent": "meter-payments/1",
        }
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status, await response.content.read(ANSWER_MAX_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from error


def _body(kind: str, payment: Payment) -> bytes:
    data = {
        "payment_id": payment.key,
        "top_up_id": payment.top_up_id,
        "user_id": payment.user_id,
        "credits": orjson.Fragment(str(payment.credits)),
        "payment_reference": payment.reference,
        "attempt": payment.attempt,
    }
    return orjson.dumps({"type": kind, "data": data})
