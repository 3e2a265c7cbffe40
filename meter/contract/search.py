"""What goes over the wire where somebody looks for something among all users: ids, transactions, refusals."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer, Kind, Transaction
from meter.contract.fields import Credits, Json, MemberOf, ObjectId, Reference, Time, UserId
from meter.contract.requests import Format, Query
from meter.contract.rules import Violation

FOUND_MAX = 20
KINDS: tuple[str, ...] = get_args(Kind)
_ONE = "|".join(KINDS)
_KINDS_PATTERN = rf"^({_ONE})(,({_ONE})){{0,{len(KINDS) - 1}}}$"

FoundKind = Literal["user", "request", "transaction", "reservation", "grant", "key", "delivery", "refusal"]


def _kinds(value: object) -> object:
    """Words as a tuple, from a text with commas."""
    if not isinstance(value, str):
        return value
    words = value.split(",")
    if not re.fullmatch(_KINDS_PATTERN, value) or len(set(words)) < len(words):
        raise PydanticCustomError("kinds", "must be kinds of transactions with commas, none twice")
    return tuple(words)


_GROUPS_PATTERN = r"^(user|reason|hour)(,(user|reason|hour)){0,2}$"


def _groups(value: object) -> object:
    """Words as a tuple, from a text with commas."""
    if not isinstance(value, str):
        return value
    words = value.split(",")
    if not re.fullmatch(_GROUPS_PATTERN, value) or len(set(words)) < len(words):
        raise PydanticCustomError("group_by", "must be some of user, reason, hour with commas, none twice")
    return tuple(words)


RefusalGroups = Annotated[
    tuple[str, ...],
    BeforeValidator(_groups),
    Field(strict=False),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _GROUPS_PATTERN,
            "description": "Words with commas, none twice; `reason` when it is not given.",
        }
    ),
]

KindList = Annotated[
    tuple[str, ...],
    BeforeValidator(_kinds),
    Field(strict=False),
    WithJsonSchema({"type": "string", "pattern": _KINDS_PATTERN, "description": "Kinds with commas, none twice."}),
]


class FindQuery(BaseModel):
    """What to look for: an id of anything, or how user_ids begin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Reference


class Found(BaseModel):
    """Whose an id is. `at`: when it was made; of a user, when the account last changed."""

    kind: FoundKind
    id: str
    user_id: str | None
    at: datetime | None


class FoundAnswer(Answer):
    """What has that id, exactly; behind it users whose ids begin so. 20 at the most."""

    items: list[Found]


class TransactionsQuery(Query):
    """Which transactions: of a user, a reservation or a reference (of at most one of these), by kinds, by who asked, by
    a member of their metadata; `from` inclusive, `to` exclusive. `include=refusals`: with what was refused.
    """

    user_id: UserId | None = None
    reservation_id: ObjectId | None = None
    reference: Reference | None = None
    kind: KindList | None = None
    actor: Reference | None = None
    metadata: MemberOf | None = None
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    include: Literal["refusals"] | None = None
    format: Format | None = None


class LedgerRow(Transaction):
    """A transaction. `changes` of an account: what it changed, as [before, since]."""

    changes: dict[str, list[Json]] | None


class Refused(BaseModel):
    """What was refused, with the figures of that moment. `violations`: each rule that refused it, the tightest first;
    what was available is in that of `credits`.
    """

    kind: Literal["refusal"] = "refusal"
    refusal_id: str
    user_id: str | None
    operation: str
    reason: str
    amount: Credits | None
    available: Credits | None
    violations: list[Violation]
    reservation_id: str | None
    reference: str | None
    actor: str | None
    key_id: str | None
    created_at: datetime


class RefusalsQuery(Query):
    """In which hours, from the one of `from` (a day ago) to that of `to` (now), and counted by what."""

    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    group_by: RefusalGroups = Field(default_factory=lambda: ("reason",))


class RefusalCount(BaseModel):
    """How often was refused, by the members that were asked for."""

    user: str | None = None
    reason: str | None = None
    hour: datetime | None = None
    refusals: int


class RefusalCountPage(Answer):
    """How often was refused, the most first. Counted is every refusal, whatever is kept of each."""

    items: list[RefusalCount]
    next_cursor: str | None


class RefusedPage(Answer):
    """The last refusals of a user, newest first: 100 at the most, for METER_REFUSALS_KEEP_DAYS."""

    items: list[Refused]
    next_cursor: str | None


class EndingGrant(BaseModel):
    """A grant that ends soon, and what is left of it."""

    user_id: str
    grant_id: str
    remaining: Credits
    expires_at: datetime


class EndingPage(Answer):
    """What ends soon, of everybody, the soonest first. `credits` of how many `users` that is altogether; null where it
    is more than can be added up at once.
    """

    credits: Credits | None
    users: int | None
    items: list[EndingGrant]
    next_cursor: str | None


class LedgerPage(Answer):
    """Transactions of everybody, newest first. What no index is kept for (an actor, metadata) is looked for among some
    thousand rows at a time: a page may have fewer items than asked for, or none, and yet a `next_cursor`.
    """

    items: list[LedgerRow | Refused]
    next_cursor: str | None


class TransactionStory(Answer):
    """A transaction with all that belongs to it, oldest first: of a charge its hold, extensions and refunds.
    `refundable`: how much of the charge can still be refunded; null for what is no charge.
    """

    transaction: LedgerRow
    chain: list[LedgerRow]
    refundable: Credits | None
