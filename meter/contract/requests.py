"""What comes in over the wire: request bodies and queries, one class each; the words they share are in `model`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from meter.contract.answers import Kind
from meter.contract.fields import (
    AS_WHOLE,
    BATCH_MAX,
    FROM_QUERY,
    LIST_LIMIT_MAX,
    PRIORITY_MAX,
    THRESHOLDS_MAX,
    Amount,
    ApiKeyText,
    Description,
    Metadata,
    Multiplier,
    ObjectId,
    Only,
    PositiveAmount,
    Reference,
    Seconds,
    SignedAmount,
    Tags,
    Time,
    TtlSeconds,
    UserId,
)
from meter.contract.rules import RULES_MAX, BudgetChange, RateLimitChange, RuleId, VelocityChange, names_of_rules
from meter.contract.usage import CommittedUsage, Usage
from meter.keys import TAG, TAGS_MAX

Over = Literal["cap", "reject", "overdraft", "hold_only"]
CommitShortfall = Literal["partial", "reject"]

_FIRST_START = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
_LAST_START = datetime(2286, 11, 20, 17, 46, 39, 998000, tzinfo=UTC)
"""A millisecond before NEVER_MS."""


class Body(BaseModel):
    """A request body: strict types, unknown members refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Described(Body):
    """A body whose operation can carry a text, a reference and members of the caller's own into the ledger."""

    description: Description | None = None
    reference: Reference | None = None
    metadata: Metadata | None = None


_AMOUNT_OR_USAGE: JsonDict = {
    "oneOf": [
        {
            "required": ["amount"],
            "properties": {
                "amount": {"not": {"type": "null"}},
                "usage": {"type": "null"},
                "amount_without_price": {"type": "null"},
            },
        },
        {"required": ["usage"], "properties": {"usage": {"not": {"type": "null"}}, "amount": {"type": "null"}}},
    ]
}
_A_MODEL_OR_AN_AMOUNT: JsonDict = {
    "if": {
        "required": ["usage"],
        "properties": {"usage": {"type": "object", "properties": {"model": {"type": "null"}}}},
    },
    "then": {
        "required": ["amount_without_price"],
        "properties": {"amount_without_price": {"not": {"type": "null"}}},
    },
}


_NOT_BOTH: JsonDict = {
    "not": {"required": ["amount", "usage"], "properties": {n: {"not": {"type": "null"}} for n in ("amount", "usage")}}
}


class Costing(Described):
    """A body that says an amount, or a usage that a rate card prices: one of them."""

    model_config = ConfigDict(json_schema_extra=_AMOUNT_OR_USAGE)

    usage: CommittedUsage | None = None
    amount: Annotated[Amount | None, Field(validate_default=True)] = None
    amount_without_price: Amount | None = None
    """Beside a usage: what it comes to where the user has no rate card, or where it names no model that one could
    price.
    """

    @field_validator("amount", mode="after")
    @classmethod
    def _one_of_them(cls, amount: int | None, info: ValidationInfo) -> int | None:
        """A fault of the amount, told beside those of other members; of a usage that is wrong only that is told."""
        if "usage" in info.data and (amount is None) == (info.data["usage"] is None):
            raise PydanticCustomError("amount", "name either amount or usage")
        return amount

    @model_validator(mode="after")
    def _beside_usage(self) -> Self:
        if self.amount_without_price is not None and self.usage is None:
            raise PydanticCustomError("amount_without_price", "is of use beside a usage only")
        return self


_USER_OR_KEY: JsonDict = {
    "oneOf": [
        {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}
        for one, other in (("user_id", "api_key"), ("api_key", "user_id"))
    ]
}


class Spending(Costing):
    """A body that says who pays: a path, or an API key that names one."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_AMOUNT_OR_USAGE, _USER_OR_KEY]})

    api_key: ApiKeyText | None = None
    user_id: Annotated[UserId | None, Field(validate_default=True)] = None
    tags: Tags | None = None
    """What it is for, so that grants which are for that alone pay for it. A usage is for its model besides."""

    @field_validator("user_id", mode="after")
    @classmethod
    def _one_payer(cls, user_id: str | None, info: ValidationInfo) -> str | None:
        if "api_key" in info.data and (user_id is None) == (info.data["api_key"] is None):
            raise PydanticCustomError("user_id", "name either user_id or api_key")
        return user_id


class AddRequest(Described):
    """Credits in."""

    user_id: UserId
    amount: PositiveAmount
    grant_id: ObjectId | None = None
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX), AS_WHOLE] = 10
    effective_at: Annotated[Time, Field(ge=_FIRST_START, le=_LAST_START)] | None = None
    expires_at: Time | None = None
    only: Only | None = None
    """What it may be spent on; anything where it is left out."""
    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class DeductRequest(Spending):
    """Spend in one step: an amount, or what a usage costs."""

    usage: Usage | None = None
    shortfall: Literal["reject", "partial", "overdraft"] = "reject"


class ReserveRequest(Spending):
    """Hold an amount, or what a usage costs at most."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_AMOUNT_OR_USAGE, _USER_OR_KEY, _A_MODEL_OR_AN_AMOUNT]})

    ttl_seconds: TtlSeconds | None = None
    reservation_id: ObjectId | None = None

    @model_validator(mode="after")
    def _priced_somehow(self) -> Self:
        if self.usage is not None and self.usage.model is None and self.amount_without_price is None:
            raise PydanticCustomError("model", "a usage without a model needs amount_without_price beside it")
        return self


class QuoteRequest(ReserveRequest):
    """What is to be held."""


class CommitRequest(Described):
    """Settle a reservation: for an amount, for what a usage costs by the price of its hold, or for all of it."""

    model_config = ConfigDict(json_schema_extra=_NOT_BOTH)

    amount: Amount | None = None
    usage: CommittedUsage | None = None
    over: Over = "cap"
    """What is charged beyond what is held: `cap` what is free, `reject` that too if it covers all, `overdraft` what is
    free and then debt up to the limit, `hold_only` nothing: more than is held is refused.
    """
    shortfall: CommitShortfall = "partial"
    """What is not covered then: `partial` is told as `uncovered`, `reject` refuses the whole."""

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.amount is not None and self.usage is not None:
            raise PydanticCustomError("amount", "name amount or usage, not both")
        return self


class ReleaseRequest(Described):
    """Give a reservation back."""


class ExtendRequest(Described):
    """Give a reservation more time or more credits."""

    ttl_seconds: TtlSeconds | None = None
    add_amount: Amount = 0


class RefundRequest(Described):
    """Give back part of a charge."""

    user_id: UserId
    transaction_id: ObjectId
    amount: PositiveAmount | None = None
    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class AdjustRequest(Body):
    """Set right what a user has: above zero credits come in, below it free ones are taken."""

    user_id: UserId
    amount: SignedAmount
    reason: Annotated[Description, Field(min_length=1)]
    """Why; it is the description of the transaction."""
    grant_id: ObjectId | None = None
    """Above zero the id of the grant that is made; below it that of the one from which is taken, else in burn order."""
    reference: Reference | None = None
    metadata: Metadata | None = None
    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class VoidRequest(Described):
    """End a grant early."""

    dry_run: bool = False
    """Whether nothing is to be written: the answer says what would be, a key is neither looked at nor used up."""


class UserRequest(Body):
    """What an account may do; a member that is left out stays as it is."""

    overdraft_limit: Amount | None = None
    low_credit_thresholds: Annotated[list[Amount], Field(max_length=THRESHOLDS_MAX)] | None = None
    suspended: bool | None = None
    rate_card: ObjectId | None = None
    price_multiplier: Multiplier | None = None
    """What usage of the account, and of all below it, is priced by; null: what the levels above it say."""
    budgets: Annotated[
        dict[RuleId, BudgetChange | None] | None,
        Field(max_length=RULES_MAX * 2, json_schema_extra=names_of_rules(RULES_MAX * 2)),
    ] = None
    """By their ids; those that are not named stay, null takes one away."""
    rate_limits: Annotated[
        dict[RuleId, RateLimitChange | None] | None,
        Field(max_length=RULES_MAX * 2, json_schema_extra=names_of_rules(RULES_MAX * 2)),
    ] = None
    """Likewise."""
    velocity: VelocityChange | None = None
    """Its breaker; null takes it away."""
    pool: bool | None = None
    """Whether all below it draw on it when their own grants do not cover what they ask for."""
    use_pools: bool | None = None
    """Whether it, and all below it, draw on pools above it."""
    metadata: Metadata | None = None
    description: Description | None = None
    """Why it is changed, for the ledger."""


class BatchDeduct(DeductRequest):
    """A deduct in a batch."""

    op: Literal["deduct"]


class BatchReserve(ReserveRequest):
    """A reserve in a batch."""

    op: Literal["reserve"]


class BatchCommit(CommitRequest):
    """A commit in a batch."""

    op: Literal["commit"]
    reservation_id: ObjectId


class BatchRelease(ReleaseRequest):
    """A release in a batch."""

    op: Literal["release"]
    reservation_id: ObjectId


BatchOperation = Annotated[BatchDeduct | BatchReserve | BatchCommit | BatchRelease, Field(discriminator="op")]


class BatchRequest(Body):
    """Several operations, answered one by one; `atomic`: all or nothing, within one partition."""

    operations: Annotated[list[BatchOperation], Field(min_length=1, max_length=BATCH_MAX)]
    atomic: bool = False


class ClockRequest(Body):
    """Freeze the test clock at a time, or move it forward."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}
                for one, other in (("now", "advance_seconds"), ("advance_seconds", "now"))
            ]
        }
    )

    now: Time | None = None
    advance_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ClockRequest:
        if (self.now is None) == (self.advance_seconds is None):
            raise PydanticCustomError("clock", "name either now or advance_seconds")
        return self


_CURSOR_SCHEMA = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9_-]{0,2048}$",
    "description": "The `next_cursor` of the page before, as it is; another is refused.",
}


class Query(BaseModel):
    """The query of a list; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=LIST_LIMIT_MAX), FROM_QUERY] = 50
    cursor: Annotated[str, WithJsonSchema(_CURSOR_SCHEMA)] = ""


class NoQuery(BaseModel):
    """The query of a call that takes no parameters: one that it does not know is refused there, too, because an answer
    that says nothing of it would look as if it had been heard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


Format = Literal["json", "csv", "ndjson"]
"""json: a page; csv and ndjson: every item from the cursor on, or `limit` of them where that is sent."""


class GrantsQuery(Query):
    """Which grants to list."""

    state: Literal["live", "all"] = "live"


class ReservationsQuery(Query):
    """Which reservations to list."""

    user_id: UserId
    state: Literal["open", "committed", "released", "expired", "all"] = "open"


class BalanceQuery(BaseModel):
    """When: now, or a time in the past."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Time | None = None


class HistoryQuery(Query):
    """Which transactions: `from` inclusive, `to` exclusive."""

    kind: Kind | None = None
    reference: Reference | None = None
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    format: Format | None = None


class TraceQuery(Query):
    """Of which operation."""

    reference: Reference
    format: Format | None = None


class ExpiringQuery(Query):
    """Within how many days."""

    days: Annotated[float, Field(gt=0, le=36525), FROM_QUERY] = 7


_TAGS_IN_QUERY = rf"^(?:{TAG.pattern})(?:,(?:{TAG.pattern})){{0,{TAGS_MAX - 1}}}$"


class ExplainQuery(BaseModel):
    """What to explain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Amount = 0
    tags: Annotated[str, Field(pattern=_TAGS_IN_QUERY)] | None = None
    """What it is for: up to eight tags with commas between."""
