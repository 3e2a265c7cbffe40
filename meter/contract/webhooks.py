"""What goes over the wire about alerts: endpoints, and the log of deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema
from pydantic.config import JsonDict

from meter.contract.answers import Answer
from meter.contract.fields import Description, Json
from meter.contract.requests import Body, Query
from meter.keys import USER_ID

AlertKind = Literal[
    "low_credits",
    "credits_exhausted",
    "credits_expired",
    "expiring_credits",
    "budget_warning",
    "budget_reached",
    "velocity_tripped",
    "runs_out_soon",
    "subscription_renewed",
    "subscription_ended",
    "transaction_error",
    "top_up_paid",
    "top_up_failed",
    "top_up_limited",
    "top_up_stuck",
    "top_up_reversed",
]


_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL}){{0,60}}|\[[0-9A-Fa-f:.]{{2,45}}\])"
_REST = r"(?:[/?](?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%(?:[2-689A-Fa-f][0-9A-Fa-f]|7[0-9A-Ea-e]))*)?"
_URL_SCHEMA: JsonDict = {
    "type": "string",
    "minLength": 1,
    "maxLength": 2000,
    "pattern": f"^[Hh][Tt][Tt][Pp][Ss]?://{_HOST}(?::[1-9][0-9]{{0,4}})?{_REST}$",
    "description": "Public, and https://; METER_WEBHOOK_ALLOW_PRIVATE=1 allows http:// and private addresses.",
}


class WebhookRequest(Body):
    """An endpoint that is to be told of alerts; of all kinds when it names none."""

    url: Annotated[str, Field(min_length=1, max_length=2000), WithJsonSchema(_URL_SCHEMA)]
    description: Description | None = None
    kinds: Annotated[list[AlertKind], Field(min_length=1, max_length=20)] | None = None


class WebhookChangeRequest(Body):
    """What an endpoint is to be from now on. `enabled` false: told of nothing until it is true again; true takes back
    that it answered 410.
    """

    description: Description | None = None
    kinds: Annotated[list[AlertKind], Field(min_length=1, max_length=20)] | None = None
    enabled: bool = True


class DeliveriesQuery(Query):
    """Which deliveries to list."""

    user_id: Annotated[str, Field(pattern=f"^(?:{USER_ID.pattern})$")] | None = None
    state: Literal["due", "delivered", "failed"] | None = None


class Webhook(Answer):
    """An endpoint. `disabled`: it answered 410, or was told to rest."""

    webhook_id: str
    url: str
    description: str | None
    kinds: list[str] | None
    state: Literal["enabled", "disabled", "deleted"]
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(Webhook):
    """An endpoint with its secret, which no other answer shows. It is null in the answer to a repeated call with an
    Idempotency-Key once the endpoint signs with that secret no more.
    """

    secret: str | None


class WebhookPage(Answer):
    """Endpoints, by id."""

    items: list[Webhook]
    next_cursor: str | None


class Delivery(Answer):
    """An alert on its way to one target: a webhook_id, or a channel of `METER_NOTIFY`."""

    notification_id: str
    kind: str
    user_id: str
    target: str
    state: Literal["due", "delivered", "failed"]
    attempts: int
    status: int | None
    error: str | None
    data: Json
    created_at: datetime
    attempted_at: datetime | None
    next_attempt_at: datetime | None


class DeliveryPage(Answer):
    """Deliveries, newest first."""

    items: list[Delivery]
    next_cursor: str | None
