"""What goes over the wire: request bodies, answers and refusals, one class each.

The only source for validation, OpenAPI, the Python API and the HTTP client. Amounts of a request become integer
units while they are read (the validation context is the deployment's `AmountScale`); amounts of an answer are exact
decimals of credits. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from meter.amount import AmountScale
from meter.errors import InvalidAmount
from meter.keys import OBJECT_ID, USER_ID

DESCRIPTION_MAX_CHARS = 500
METADATA_MAX_BYTES = 1024
PRIORITY_MAX = 999_999
LIST_LIMIT_MAX = 500
BATCH_MAX = 500
THRESHOLDS_MAX = 8

_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]")
_FIRST_START = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
_LAST_START = datetime(2286, 11, 20, 17, 46, 39, 998000, tzinfo=UTC)
"""A millisecond before NEVER_MS."""

_AMOUNT_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}],
    "description": "Credits, an exact decimal; write it as a string where your language would round a number.",
}


def _units(value: object, info: ValidationInfo) -> int:
    scale = info.context
    if not isinstance(scale, AmountScale):
        raise PydanticCustomError("amount_scale", "amounts can only be read with an amount scale")
    if isinstance(value, float) and isfinite(value) and not scale.is_exact(value):
        raise PydanticCustomError("amount_inexact", "is too large to be read exactly from a JSON float")
    try:
        return scale.units(value)
    except InvalidAmount as error:
        raise PydanticCustomError("amount", "{reason}", {"reason": str(error)}) from None


def _plain(value: object) -> object:
    """The floats of exactly read numbers. Refuses numbers that JSON does not have or that its readers round."""
    if isinstance(value, Decimal):
        return float(value)
    if (isinstance(value, float) and not isfinite(value)) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        raise PydanticCustomError("number", "has a number that JSON does not have or that its readers round")
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _bounded(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(orjson.dumps(value)) > METADATA_MAX_BYTES:
        raise PydanticCustomError("metadata", f"is larger than {METADATA_MAX_BYTES} bytes")
    return value


def _rfc3339(value: object) -> object:
    """Only texts with a date: a number would be taken for a Unix time."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        return value
    raise PydanticCustomError("time", "must be an RFC 3339 time with an offset, such as 2030-01-01T00:00:00Z")


Amount = Annotated[int, BeforeValidator(_units), Field(ge=0), WithJsonSchema(_AMOUNT_SCHEMA)]
"""Units; zero is allowed."""
PositiveAmount = Annotated[int, BeforeValidator(_units), Field(gt=0), WithJsonSchema(_AMOUNT_SCHEMA)]
"""Units; zero is refused."""
UserId = Annotated[str, Field(pattern=f"^(?:{USER_ID.pattern})$")]
ObjectId = Annotated[str, Field(pattern=f"^(?:{OBJECT_ID.pattern})$")]
Description = Annotated[str, Field(max_length=DESCRIPTION_MAX_CHARS)]
Members = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]
"""JSON members of the caller's own."""
Metadata = Annotated[Members, AfterValidator(_bounded)]
TtlSeconds = Annotated[float, BeforeValidator(_plain), Field(gt=0, allow_inf_nan=False)]
Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
"""A point in time: any offset, but one there must be."""
Credits = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""An amount of an answer: credits as an exact decimal."""


Kind = Literal[
    "grant",
    "grant_started",
    "deduct",
    "reserve",
    "commit",
    "release",
    "extend",
    "refund",
    "void",
    "grant_expired",
    "reservation_expired",
    "account",
]
"""What a transaction is. `grant_started`: a scheduled grant began; `account`: its settings changed."""


class Request(BaseModel):
    """A request body: strict types, unknown members refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Described(Request):
    """A body whose operation can carry a text and members of the caller's own into the ledger."""

    description: Description | None = None
    metadata: Metadata | None = None


class AddRequest(Described):
    """Credits in."""

    user_id: UserId
    amount: PositiveAmount
    grant_id: ObjectId | None = None
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] = 10
    effective_at: Annotated[Time, Field(ge=_FIRST_START, le=_LAST_START)] | None = None
    expires_at: Time | None = None


class DeductRequest(Described):
    """Spend in one step."""

    user_id: UserId
    amount: Amount
    shortfall: Literal["reject", "partial", "overdraft"] = "reject"


class ReserveRequest(Described):
    """Hold an amount."""

    user_id: UserId
    amount: Amount
    ttl_seconds: TtlSeconds | None = None
    reservation_id: ObjectId | None = None


class CommitRequest(Described):
    """Settle a reservation."""

    amount: Amount | None = None
    over: Literal["cap", "reject", "overdraft"] = "cap"


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


class VoidRequest(Described):
    """End a grant early."""


class UserRequest(Request):
    """What an account may do; a member that is left out stays as it is."""

    overdraft_limit: Amount | None = None
    low_credit_thresholds: Annotated[list[Amount], Field(max_length=THRESHOLDS_MAX)] | None = None
    suspended: bool | None = None
    metadata: Metadata | None = None


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


class BatchRequest(Request):
    """Several operations, answered one by one; `atomic`: all or nothing, within one partition."""

    operations: Annotated[list[BatchOperation], Field(min_length=1, max_length=BATCH_MAX)]
    atomic: bool = False


class ClockRequest(Request):
    """Freeze the test clock at a time, or move it forward."""

    now: Time | None = None
    advance_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class Query(BaseModel):
    """The query of a list; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=LIST_LIMIT_MAX)] = 50
    cursor: str = ""


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
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None


class ExpiringQuery(Query):
    """Within how many days."""

    days: Annotated[float, Field(gt=0, le=36525)] = 7


class ExplainQuery(BaseModel):
    """What to explain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Amount = 0


class Answer(BaseModel):
    """An answer. `replayed`: it is the stored answer of an earlier call with the same key."""

    model_config = ConfigDict(frozen=True)

    replayed: Annotated[bool, Field(exclude=True)] = False

    def __bool__(self) -> bool:
        """True: the operation was done."""
        return True


class Balances(Answer):
    """The account after the operation. `credits` is the seed's word for `available`; balance = available + reserved."""

    credits: Credits
    balance: Credits
    reserved: Credits
    available: Credits
    debt: Credits


class Added(Balances):
    """Credits came in."""

    user_id: str
    grant_id: str
    transaction_id: str
    amount: Credits


class Pending(Answer):
    """Credits that are durable, and that the balance will show as soon as Redis is back."""

    user_id: str
    grant_id: str
    amount: Credits
    state: Literal["pending"]


class Deducted(Balances):
    """Credits were spent. `transaction_id` is null for an amount of zero, which writes nothing."""

    user_id: str
    transaction_id: str | None
    amount: Credits
    taken: Credits
    uncovered: Credits


class Reserved(Balances):
    """An amount is held until `expires_at`."""

    user_id: str
    reservation_id: str
    amount: Credits
    expires_at: datetime
    expires_in: float


class Committed(Balances):
    """A reservation was settled."""

    user_id: str
    reservation_id: str
    transaction_id: str
    charged: Credits
    released: Credits
    forfeited: Credits
    uncovered: Credits
    late: bool


class Released(Balances):
    """A reservation was given back."""

    user_id: str
    reservation_id: str
    transaction_id: str
    released: Credits
    forfeited: Credits


class Extended(Reserved):
    """A reservation got more time or more credits."""


class Reservation(Balances):
    """A reservation: open, committed, released or expired."""

    user_id: str
    reservation_id: str
    state: Literal["open", "committed", "released", "expired"]
    amount: Credits
    charged: Credits
    expires_at: datetime


class ListedReservation(BaseModel):
    """An item of a list of reservations."""

    reservation_id: str
    user_id: str
    state: Literal["open", "committed", "released", "expired"]
    amount: Credits
    charged: Credits
    expires_at: datetime
    created_at: datetime


class Refunded(Balances):
    """Part of a charge was given back; `left` can still be refunded."""

    user_id: str
    transaction_id: str
    amount: Credits
    forfeited: Credits
    left: Credits


class Voided(Balances):
    """A grant was ended early."""

    user_id: str
    grant_id: str
    transaction_id: str
    voided: Credits


class Balance(Balances):
    """The balance of a user; zeros for one that was never heard of."""

    user_id: str


class User(Balances):
    """What an account may do, and its balance."""

    user_id: str
    overdraft_limit: Credits
    suspended: bool
    low_credit_thresholds: list[Credits]
    metadata: Members | None = None


class Grant(BaseModel):
    """A grant. `remaining` is its free part, `reserved` the part in open reservations."""

    grant_id: str
    amount: Credits
    remaining: Credits
    reserved: Credits
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    source: str
    state: Literal["scheduled", "active", "exhausted", "expired", "voided"]


class GrantPage(Answer):
    """Grants in burn order; then the scheduled ones, then those with nothing free."""

    items: list[Grant]
    next_cursor: str | None


class ReservationPage(Answer):
    """Open reservations, those that end first, first; others from the store, oldest first."""

    items: list[ListedReservation]
    next_cursor: str | None


class Draw(BaseModel):
    """What a transaction took from a grant, or gave to it."""

    grant_id: str
    amount: Credits


class Transaction(BaseModel):
    """One immutable row of the ledger."""

    transaction_id: str
    seq: int
    kind: Kind
    user_id: str
    amount: Credits
    draws: list[Draw]
    available_after: Credits
    reserved_after: Credits
    debt_after: Credits
    created_at: datetime
    reservation_id: str | None
    reference: str | None
    description: str | None
    metadata: Members | None


class TransactionPage(Answer):
    """Transactions, newest first."""

    items: list[Transaction]
    next_cursor: str | None


class Burn(BaseModel):
    """A part that a deduct would take from a grant."""

    grant_id: str
    amount: Credits


class Explanation(Balances):
    """What a deduct would do now; nothing was changed."""

    user_id: str
    amount: Credits
    would: Literal["ok", "insufficient", "suspended"]
    short: Credits
    burns: list[Burn]
    overdraft_limit: Credits
    next_credits_at: datetime | None
    next_credits_amount: Credits


class BatchAnswer(Answer):
    """One result per operation: `status` is the HTTP status that the operation would have got on its own."""

    results: list[dict[str, Any]]


class Clock(Answer):
    """The time that scripts and jobs see."""

    now: datetime
    frozen: bool


class Refusal(BaseModel):
    """A problem (RFC 9457): nothing was changed. False, so that `if not await meter.deduct(…)` reads right."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str

    def __bool__(self) -> bool:
        """False: the operation was refused."""
        return False
