"""What goes over the wire about the rules of an account: budgets, and what refused an operation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from meter.contract.fields import AS_WHOLE, Amount, Credits, PositiveAmount, TimeZone

RULE_ID = r"^[A-Za-z0-9_.:-]{1,64}$"
RULES_MAX = 8
"""Budgets of an account; rate limits likewise."""
ALERTS_MAX = 8
"""Parts of a budget's limit that are told."""
LIMIT_MAX = 10**9
PER_SECONDS_MAX = 86_400
PAUSE_SECONDS_MAX = 366 * 86_400

Window = Literal["hour", "day", "week", "month", "period", "total"]
RuleId = Annotated[str, Field(pattern=RULE_ID)]


def names_of_rules(most: int) -> JsonDict:
    """What the document says of a map of rules: their names, and how many."""
    return {"propertyNames": {"pattern": RULE_ID}, "maxProperties": most}


class Rule(BaseModel):
    """A change of a rule: a member that is left out stays as it is, null has its default again."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BudgetChange(Rule):
    """How much the account, and all below it, may be charged per window. A new one needs a limit and a window; with the
    same window and zone it goes on with what it has used, else it begins anew.
    """

    limit: Amount | None = None
    window: Window | None = None
    """Of the calendar: a week begins on Monday. `period` is that of the account's subscription; `total` never ends."""
    time_zone: TimeZone | None = None
    """Of the window; UTC."""
    unit: Literal["credits", "requests"] | None = None
    """What it bounds: what is charged, or how many reserves and deducts there are (a whole limit)."""
    mode: Literal["enforce", "observe"] | None = None
    """`observe` refuses nothing and only alerts."""
    alert_at: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(max_length=ALERTS_MAX)] | None = None
    """Parts of the limit: `budget_warning` is told once a window when as much is used, `budget_reached` at all."""


class RateLimitChange(Rule):
    """How fast the account, and all below it, may ask. A new one needs a kind and a limit."""

    kind: Literal["requests", "concurrent"] | None = None
    """`requests`: reserves and deducts; `concurrent`: open reservations."""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX), AS_WHOLE] | None = None
    """Of requests: as many per `per_seconds`."""
    per_seconds: Annotated[int, Field(ge=1, le=PER_SECONDS_MAX), AS_WHOLE] | None = None
    """Of requests; 60."""
    burst: Annotated[int, Field(ge=1, le=LIMIT_MAX), AS_WHOLE] | None = None
    """How many pass at once after a rest; as many as `limit`. With 1 they are spaced evenly."""


class NewBudget(BudgetChange):
    """A budget of a plan, which has all that it needs."""

    limit: Amount
    window: Window


class NewRateLimit(RateLimitChange):
    """A rate limit of a plan, which has all that it needs."""

    kind: Literal["requests", "concurrent"]
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX), AS_WHOLE]


Action = Literal["warn", "refuse", "suspend"]


class VelocityChange(Rule):
    """A breaker: what the account, and all below it, are charged faster than this trips it. Setting it, unchanged too,
    arms it again.
    """

    limit: PositiveAmount
    per_seconds: Annotated[int, Field(ge=1, le=PER_SECONDS_MAX), AS_WHOLE]
    action: Action
    """`warn` alerts; `refuse` also refuses new reserves and deducts (429) until what was charged has drained; `suspend`
    refuses them (403) for `pause_seconds`.
    """
    pause_seconds: Annotated[int, Field(ge=1, le=PAUSE_SECONDS_MAX), AS_WHOLE] | None = None
    """Of `suspend`; as long as `per_seconds`."""


class Velocity(BaseModel):
    """The breaker of an account. `tripped_until`: what it does lasts until then; null while it is armed."""

    limit: Credits
    per_seconds: int
    action: Action
    pause_seconds: int | None = None
    tripped_until: datetime | None


class RateLimit(BaseModel):
    """A rate limit. One of `concurrent` has neither `per_seconds` nor `burst`."""

    kind: Literal["requests", "concurrent"]
    limit: int
    per_seconds: int | None = None
    burst: int | None = None


class OwnRateLimit(RateLimit):
    """A rate limit that an account has."""

    source: Literal["user", "plan"] = "user"
    """`plan`: it is that of its plan; one of its own by the same id takes the place."""


class PlanBudget(BaseModel):
    """A budget that those who have the plan get."""

    limit: Credits
    window: Window
    time_zone: str
    unit: Literal["credits", "requests"]
    mode: Literal["enforce", "observe"]
    alert_at: list[float]


class Rate(BaseModel):
    """Where the tightest rate limit stands behind what it let through: `remaining` more pass now, and all of it in
    `resets_in` seconds.
    """

    id: str
    kind: Literal["requests", "concurrent"]
    limit: int
    remaining: int
    per_seconds: int | None = None
    resets_in: float | None = None


class Budget(BaseModel):
    """A budget, and where its window stands: what is left of it is free to be charged or reserved."""

    limit: Credits
    window: Window
    time_zone: str
    unit: Literal["credits", "requests"]
    """What all amounts of it are."""
    mode: Literal["enforce", "observe"]
    alert_at: list[float]
    used: Credits
    """Charged in this window, less what was refunded of that."""
    reserved: Credits
    """Held by open reservations now."""
    remaining: Credits
    resets_at: datetime | None
    """When the window ends; null: never."""
    source: Literal["user", "plan"] = "user"
    """`plan`: it is that of its plan; one of its own by the same id takes the place."""


class StandingLimit(OwnRateLimit):
    """A rate limit, and where it stands: `remaining` more pass now, and all of it in `resets_in` seconds."""

    remaining: int
    resets_in: float | None = None


class Level(BaseModel):
    """A level that has rules, and what these stand at."""

    user_id: str
    suspended: bool
    pool: bool
    budgets: dict[str, Budget]
    rate_limits: dict[str, StandingLimit]


class Violation(BaseModel):
    """A rule that refused: the `credits` of the account; a `budget`, a `rate_limit`, a limit of `concurrency`, a
    breaker (`velocity`) or a suspension (`suspended`) of it or of a level above it, `user_id`.
    """

    model_config = ConfigDict(extra="allow")

    rule: Literal["suspended", "credits", "budget", "rate_limit", "concurrency", "velocity"]
    user_id: str
    id: str | None
    window: Window | None = None
    limit: Credits | None = None
    used: Credits | None = None
    reserved: Credits | None = None
    required: Credits | None = None
    resets_at: datetime | None = None
    per_seconds: float | None = None
    retry_after_ms: int | None = None
