"""What goes over the wire about plans and subscriptions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from meter.amount import is_countable, plain_decimal
from meter.contract.answers import Answer, Effect
from meter.contract.fields import (
    AS_WHOLE,
    PRIORITY_MAX,
    Credits,
    Description,
    Members,
    Metadata,
    Multiplier,
    ObjectId,
    Only,
    PositiveAmount,
    Text,
    Time,
    TimeZone,
)
from meter.contract.requests import Body, Query
from meter.contract.rules import RULES_MAX, NewBudget, NewRateLimit, PlanBudget, RateLimit, RuleId, names_of_rules
from meter.errors import InvalidAmount

PRICE_MAX = Decimal(10) ** 12
_FIRST_ANCHOR = datetime(1970, 1, 1, tzinfo=UTC)
VALIDITY_DAYS_MAX = 36_525
_PRICE_SCHEMA: JsonDict = {
    "anyOf": [
        {"const": 0},
        {"type": "number", "minimum": 1e-21, "exclusiveMaximum": 1e12},
        {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,27})?$"},
    ],
    "description": "An exact decimal.",
}
_PRICE = re.compile(r"(?=.{1,40}$)(0|[1-9][0-9]*)(\.[0-9]+)?")  # what is a JSON number as it stands


def _price(value: object) -> str:
    """The decimal as it was sent: a price is kept and returned, never calculated with."""
    try:
        price = Decimal(value) if type(value) is int else plain_decimal(value)
    except InvalidAmount as error:
        raise PydanticCustomError("price", "{reason}", {"reason": str(error)}) from None
    if not (is_countable(price) and 0 <= price < PRICE_MAX):
        raise PydanticCustomError("price", "must be a decimal from 0 to below 1000000000000")
    text = value if isinstance(value, str) else f"{price:f}"
    if not _PRICE.fullmatch(text):
        raise PydanticCustomError("price", "must have no needless zeros in front and at most 40 characters")
    return text


Price = Annotated[
    str,
    BeforeValidator(_price),
    WithJsonSchema(_PRICE_SCHEMA),
]
PlanGroup = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
BillingPeriod = Literal["daily", "weekly", "monthly", "yearly"]
SubscriptionState = Literal["active", "ended", "set_aside"]
Unspent = Literal["stay", "void"]


_ONE_CAP: JsonDict = {
    "oneOf": [
        {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}
        for one, other in (("max_amount", "percent"), ("percent", "max_amount"))
    ]
}


class RolloverRequest(Body):
    """What is unspent when a period's credits expire lives on for `valid_days`, once: up to `max_amount`, or up to that
    percent of what the period granted. The rest above that expires.
    """

    model_config = ConfigDict(json_schema_extra=_ONE_CAP)

    max_amount: PositiveAmount | None = None
    percent: Annotated[int, Field(ge=0, le=100), AS_WHOLE] | None = None
    valid_days: Annotated[int, Field(ge=1, le=VALIDITY_DAYS_MAX), AS_WHOLE]

    @model_validator(mode="after")
    def _one_cap(self) -> RolloverRequest:
        if (self.max_amount is None) == (self.percent is None):
            raise PydanticCustomError("rollover", "must name either max_amount or percent")
        return self


class PlanRequest(Body):
    """A plan: what one period grants."""

    name: Annotated[Text, Field(min_length=1, max_length=200)]
    description: Description | None = None
    credit_limit: PositiveAmount
    price: Price
    billing_period: BillingPeriod
    validity_days: Annotated[int, Field(ge=1, le=VALIDITY_DAYS_MAX), AS_WHOLE] | None = None
    rollover: RolloverRequest | None = None
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX), AS_WHOLE] = 10
    only: Only | None = None
    rate_card: ObjectId | None = None
    """What usage of its holders, and of all below them, is priced by where no user or level of theirs says it."""
    price_multiplier: Multiplier | None = None
    """Likewise."""
    budgets: (
        Annotated[dict[RuleId, NewBudget], Field(json_schema_extra=names_of_rules(RULES_MAX), max_length=RULES_MAX)]
        | None
    ) = None
    """What its holders, and all below them, may be charged per window, where they have no budget of that id."""
    rate_limits: (
        Annotated[dict[RuleId, NewRateLimit], Field(json_schema_extra=names_of_rules(RULES_MAX), max_length=RULES_MAX)]
        | None
    ) = None
    """Likewise, how fast they may ask."""
    plan_group: PlanGroup = "default"
    active: bool = True


class CreatePlanRequest(PlanRequest):
    """A new plan. A plan_id of the caller's own makes the call repeatable, as an Idempotency-Key does."""

    plan_id: Annotated[ObjectId, Field(max_length=64)] | None = None


class PlansQuery(Query):
    """Which plans to list."""


class SubscribeRequest(Body):
    """Assign a plan. To one who has it: set the members that are sent; `time_zone` and `anchor_at` are fixed then."""

    plan_id: ObjectId
    auto_renew: bool = True
    time_zone: TimeZone = "UTC"
    anchor_at: Annotated[Time, Field(ge=_FIRST_ANCHOR)] | None = None
    metadata: Metadata | None = None
    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class UpgradeRequest(Body):
    """Change to another plan of the same group, up or down.

    `now` with proration `none` begins a period, and the rest of the old credits is void; with `difference` the period
    goes on and a larger limit is granted for its rest. To the plan that the user has: takes a coming change back.
    """

    plan_id: ObjectId
    when: Literal["now", "period_end"] = "now"
    proration: Literal["none", "difference"] = "none"
    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class UnsubscribeQuery(BaseModel):
    """How to end a subscription; unspent credits of its current period stay, or are void when it ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_group: PlanGroup = "default"
    when: Literal["now", "period_end"] = "now"
    unspent: Unspent = "stay"


class Rollover(BaseModel):
    """What lives on of a period's rest, and for how many days."""

    max_amount: Credits | None
    percent: int | None
    valid_days: int


class Plan(Answer):
    """A plan. `id` is the seed's word for `plan_id`."""

    id: str
    plan_id: str
    name: str
    description: str | None
    credit_limit: Credits
    price: Annotated[Decimal, WithJsonSchema({"type": "number", "description": "An exact decimal, as it was sent."})]
    billing_period: BillingPeriod
    validity_days: int | None
    rollover: Rollover | None
    priority: int
    only: list[str] | None
    """What its credits may be spent on; null: anything."""
    rate_card: str | None
    price_multiplier: Credits | None
    budgets: dict[str, PlanBudget]
    rate_limits: dict[str, RateLimit]
    plan_group: str
    active: bool
    created_at: datetime
    updated_at: datetime


class PlanPage(Answer):
    """Plans, by id."""

    items: list[Plan]
    next_cursor: str | None


class Subscription(Answer):
    """A user's subscription. `period` counts from 0 at `anchor_at`; `next_period_at` is when the current one ends.

    `next_plan_id` is the plan of the next period, when it is another one. `unspent` is what becomes of unspent credits
    when it ends. `set_aside`: its next period cannot be worked out, for the reason in `fault`; it is tried again.
    """

    subscription_id: str
    user_id: str
    plan_id: str
    plan_group: str
    state: SubscriptionState
    fault: str | None
    auto_renew: bool
    anchor_at: datetime
    time_zone: str
    period: int
    period_started_at: datetime
    next_period_at: datetime
    next_plan_id: str | None
    unspent: Unspent
    metadata: Members | None
    created_at: datetime
    updated_at: datetime
    effect: Effect | None = None


class SubscriptionPage(Answer):
    """A user's subscriptions, one per plan group."""

    items: list[Subscription]
    next_cursor: str | None
