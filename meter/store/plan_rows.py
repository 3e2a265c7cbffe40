"""The rows of plans: what they grant, who has which, and what is still to be done about that."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field, JsonValue

from meter.store.row import (
    Millionths,
    Milliseconds,
    ObjectId,
    PlanRulesText,
    Reference,
    Row,
    TagsText,
    Units,
    UserId,
    VersionedRow,
    Word,
)


class Prices(NamedTuple):
    """What a plan says of prices: a card ("": none), a multiplier in millionths (0: none), and until when, where that
    is known (else 0).
    """

    rate_card: str
    price_multiplier: int
    until_ms: int


NO_PRICES = Prices("", 0, 0)


class PlanRow(VersionedRow):
    """A plan. Deleted plans stay for the subscriptions that run on."""

    TABLE = "plans"
    KEY = ("plan_id",)

    plan_id: ObjectId
    name: Annotated[str, Field(max_length=200)]
    description: Annotated[str, Field(max_length=500)] | None = None
    credit_limit: Units
    price: Annotated[str, Field(max_length=40)]
    """The exact decimal, as sent."""
    billing_period: Word
    validity_days: int | None = None
    rollover_max: Units | None = None
    """How much of a period's rest lives on; or `rollover_percent`, of what the period granted."""
    rollover_percent: int | None = None
    rollover_days: int | None = None
    """How long it lives on; null: nothing does."""
    priority: int = 10
    only: TagsText | None = None
    """Tags of what its credits may be spent on; null: anything."""
    rate_card: ObjectId | None = None
    """What usage of its holders is priced by, where nothing nearer says it; likewise `price_multiplier`."""
    price_multiplier: Millionths | None = None
    plan_group: Word = "default"
    active: bool = True
    deleted: bool = False
    fingerprint: Annotated[str, Field(max_length=64)] | None = None
    """Of the body that made it, so that a repeated creation is told from another one."""
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds
    rules: PlanRulesText | None = None
    """Budgets and rate limits of its holders (meter/engine/rules.py)."""


class PlanTermsRow(Row):
    """What a plan grants from a time on. A change adds one, so that a period has those of its beginning."""

    TABLE = "plan_terms"
    KEY = ("plan_id", "version")

    plan_id: ObjectId
    version: int
    """Of the plan."""
    from_ms: Milliseconds
    credit_limit: Units
    billing_period: Word
    validity_days: int | None = None
    rollover_max: Units | None = None
    rollover_percent: int | None = None
    rollover_days: int | None = None
    priority: int = 10
    only: TagsText | None = None
    rate_card: ObjectId | None = None
    price_multiplier: Millionths | None = None
    rules: PlanRulesText | None = None


class SubscriptionRow(VersionedRow):
    """A user's subscription to a plan; one per user and plan group. `version` moves with each period."""

    TABLE = "subscriptions"
    KEY = ("user_id", "plan_group")
    INDEXES = (("state", "next_period_at_ms"),)

    user_id: UserId
    plan_group: Word = "default"
    subscription_id: ObjectId
    plan_id: ObjectId
    state: Word = "active"
    """active, ended, or set_aside: active, but its next period could not be worked out."""
    fault: Annotated[str, Field(max_length=500)] | None = None
    """Why it is set aside."""
    auto_renew: bool = True
    """Whether another period follows the current one."""
    anchor_at_ms: Milliseconds
    billing_period: Word | None = None
    """The unit that the period is counted in; null in a row of before there was one: the plan's."""
    time_zone: Annotated[str, Field(max_length=64)] = "UTC"
    period: int = 0
    """The number of the current period, counted from the anchor."""
    period_started_at_ms: Milliseconds
    next_period_at_ms: Milliseconds
    next_plan_id: ObjectId | None = None
    """The plan of the next period, when it is another one."""
    given: JsonValue = None
    """[[grant_id, amount, from_ms, until_ms], …]: what was given for the current period and for later ones; null in a
    row of before there was such a list: the plan's limit.
    """
    unspent: Word = "stay"
    """What becomes of unspent credits when the subscription ends: stay or void."""
    metadata: JsonValue = None
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds
    rate_card: ObjectId | None = None
    """What its plan said of prices when the period began; likewise `price_multiplier`."""
    price_multiplier: Millionths | None = None
    plan_since_ms: Milliseconds | None = None
    """Since when the user has the plan; null in a row of before there was such a time: since `created_at_ms`."""
    rules: PlanRulesText | None = None
    """What its plan said of rules when the period began."""

    @property
    def prices(self) -> Prices:
        """What its plan says of prices now: nothing behind its end."""
        if self.state == "ended" or (self.rate_card is None and self.price_multiplier is None):
            return NO_PRICES
        goes_on = self.auto_renew or self.next_plan_id is not None
        return Prices(self.rate_card or "", self.price_multiplier or 0, 0 if goes_on else self.next_period_at_ms)


class PastPlanRow(Row):
    """A plan that a user had, from `from_ms` until before `until_ms`. The one that lasts is in the subscription."""

    TABLE = "past_plans"
    KEY = ("user_id", "plan_group", "from_ms")

    user_id: UserId
    plan_group: Word
    from_ms: Milliseconds
    until_ms: Milliseconds
    plan_id: ObjectId


class ErrandRow(VersionedRow):
    """What is still to be done in Redis about the grants of a subscription that was changed; gone once it is done."""

    TABLE = "errands"
    KEY = ("errand_id",)
    INDEXES = (("state", "created_at_ms"),)

    errand_id: ObjectId
    """kind.subscription_id.version: one of each kind per change."""
    kind: Word
    """void: their rest and what rolled over of them; lapse: no renewal follows them; renew: one does; prices, rules:
    what the plan says of these.
    """
    user_id: UserId
    grants: JsonValue = None
    """[[grant_id, until_ms], …]: each with the end of the period that it was given for; of prices [[plan_group,
    version, rate_card, price_multiplier, until_ms]], of rules [[plan_group, version, rules, bounds]].
    """
    state: Word = "due"
    created_at_ms: Milliseconds
    reference: Reference | None = None
    """What the call is called that it comes from."""
