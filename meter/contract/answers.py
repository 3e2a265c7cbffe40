"""What goes over the wire: request bodies, answers and refusals, one class each.

The only source for validation, OpenAPI, the Python API and the HTTP client. Amounts of a request become integer
units while they are read (the validation context is the deployment's `AmountScale`); amounts of an answer are exact
decimals of credits. Times are RFC 3339 in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from meter.contract.fields import Credits, Members
from meter.contract.rules import Budget, Level, OwnRateLimit, Rate, Velocity, Violation

Kind = Literal[
    "grant",
    "grant_started",
    "adjust",
    "deduct",
    "reserve",
    "commit",
    "release",
    "extend",
    "refund",
    "void",
    "grant_expired",
    "grant_rolled_over",
    "reservation_expired",
    "account",
    "key",
]
"""What a transaction is. `grant_started`: a scheduled grant began; `adjust`: somebody set right what a user has, by an
amount above zero or below it; `grant_rolled_over`: the rest of a grant that ended
lives on as a grant of its own; `account`: its settings changed, or what was to be told had waited for a renewal;
`key`: an API key was issued, changed, rotated or revoked.
"""


Would = Literal["ok", "insufficient", "budget_reached", "suspended", "rate_limited"]
"""What would become of an operation."""


class Answer(BaseModel):
    """An answer. `replayed`: it is the stored answer of an earlier call with the same key."""

    model_config = ConfigDict(frozen=True)

    replayed: Annotated[bool, Field(exclude=True)] = False

    def __bool__(self) -> bool:
        """True: the operation was done."""
        return True


class Balances(Answer):
    """The account after the operation. `credits` is the seed's word for `available`, which may be spent on anything;
    `restricted` is what is free of grants that are for some things only, where there are such; balance = available +
    restricted + reserved.
    """

    credits: Credits
    balance: Credits
    reserved: Credits
    available: Credits
    debt: Credits
    restricted: Credits | None = None
    usable: Credits | None = None
    """Where there are restricted grants, what the account has for what the operation is for."""


class Payer(BaseModel):
    """An account that pays for a path: how much of it, and what is available there then."""

    user_id: str
    amount: Credits
    available: Credits


class Effect(BaseModel):
    """What a dry run would come to. `burns_at`: the place in burn order, from 1, of what would come in;
    `next_grant_id`: what would burn next. Of a refund, whose credits return to where they came from, both are null.
    """

    available_before: Credits
    available_after: Credits
    burns_at: int | None
    next_grant_id: str | None


class Paid(Balances):
    """The balances are those of the account alone. Where pools pay, or could, `spendable` is what all of them have
    together, and `payers` are those who do; of a reading, those who could.
    """

    spendable: Credits | None = None
    payers: list[Payer] | None = None


class PricePart(BaseModel):
    """What one dimension of a usage adds, rounded down."""

    quantity: int
    amount: Credits


class Price(BaseModel):
    """How an amount came about: the version of a rate card that was active, the multiplier, and what each dimension
    costs. `rounding` is what the amount is more: it is rounded once, as a whole, and at least the card's minimum.
    `unpriced` names dimensions that have no rate of their own and cost as their parent.
    """

    rate_card_id: str
    version: int
    model: str
    multiplier: Credits
    breakdown: dict[str, PricePart]
    rounding: Credits
    unpriced: list[str]


class Added(Balances):
    """Credits came in."""

    user_id: str
    grant_id: str
    transaction_id: str | None
    amount: Credits
    effect: Effect | None = None
    """Of a dry run, which has no transaction."""


class Pending(Answer):
    """Credits that are durable, and that the balance will show as soon as Redis is back."""

    user_id: str
    grant_id: str
    amount: Credits
    state: Literal["pending"]


class Anonymised(Answer):
    """Nothing here names the user any more; what moved stays in the ledger under a name that nobody can trace."""

    user_id: str
    state: Literal["anonymised"]


class Anonymising(Answer):
    """The name is being taken out, which takes longer than a call may; the same call goes on with it."""

    user_id: str
    state: Literal["pending"]


class Deducted(Paid):
    """Credits were spent. `transaction_id` is null for an amount of zero, which writes nothing."""

    user_id: str
    transaction_id: str | None
    amount: Credits
    taken: Credits
    uncovered: Credits
    limited_by: str | None = None
    """The id of the budget that left less than there were credits."""
    price: Price | None = None
    rate_limit: Rate | None = None
    """The tightest of those that it counts for."""


class Reserved(Paid):
    """An amount is held until `expires_at`."""

    user_id: str
    reservation_id: str
    amount: Credits
    expires_at: datetime
    expires_in: float
    price: Price | None = None
    rate_limit: Rate | None = None
    """The tightest of those that it counts for."""


class Committed(Paid):
    """A reservation was settled."""

    user_id: str
    reservation_id: str
    transaction_id: str
    charged: Credits
    released: Credits
    forfeited: Credits
    uncovered: Credits
    late: bool
    limited_by: str | None = None
    """The id of the budget that left less than there were credits."""
    price: Price | None = None


class Released(Paid):
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
    price: Price | None = None
    """What priced its hold."""


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
    transaction_id: str | None
    amount: Credits
    forfeited: Credits
    left: Credits
    effect: Effect | None = None
    """Of a dry run, which has no transaction."""


class Adjusted(Balances):
    """What a user has was set right by `amount`, below zero where credits were taken. `grant_id`: what was made."""

    user_id: str
    transaction_id: str | None
    amount: Credits
    grant_id: str | None = None
    effect: Effect | None = None
    """Of a dry run, which has no transaction."""


class Voided(Balances):
    """A grant was ended early."""

    user_id: str
    grant_id: str
    transaction_id: str | None
    voided: Credits
    effect: Effect | None = None
    """Of a dry run, which has no transaction."""


class Restriction(BaseModel):
    """What is free of grants that are for the same things, and when the first of them ends."""

    only: list[str]
    available: Credits
    next_expires_at: datetime | None


class Balance(Paid):
    """The balance of a user; zeros for one that was never heard of."""

    user_id: str
    restricted_by: list[Restriction] | None = None
    """Where there are restricted grants: what `restricted` is for."""


class User(Paid):
    """What an account may do, and its balance."""

    user_id: str
    overdraft_limit: Credits
    suspended: bool
    low_credit_thresholds: list[Credits]
    rate_card: str | None
    price_multiplier: Credits | None
    """What it says itself of prices."""
    budgets: dict[str, Budget]
    """By their ids: of the account and all below it."""
    rate_limits: dict[str, OwnRateLimit]
    """Likewise."""
    velocity: Velocity | None
    """Its breaker."""
    pool: bool
    """Whether all below it draw on it."""
    use_pools: bool
    """Whether it, and all below it, draw on pools above it."""
    metadata: Members | None = None


class GrantRollover(BaseModel):
    """What lives on when the grant expires: up to `max_amount` of what is left, until `expires_at`."""

    max_amount: Credits
    expires_at: datetime | None


class Grant(BaseModel):
    """A grant. `remaining` is its free part, `reserved` the part in open reservations. `pending`: it is durable, but
    Redis, which was away, does not have it yet.
    """

    grant_id: str
    amount: Credits
    remaining: Credits
    reserved: Credits
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    created_at: datetime
    source: str
    state: Literal["pending", "scheduled", "active", "exhausted", "expired", "voided"]
    rollover: GrantRollover | None
    only: list[str] | None = None
    """What it may be spent on; missing where that is anything."""


class GrantPage(Answer):
    """Grants in burn order (behind the first come the restricted ones, those for the same things together), then the
    scheduled ones, then those with nothing free; with `state=all` and a store all that ever were, in the order of their
    making.
    """

    items: list[Grant]
    next_cursor: str | None


class ReservationPage(Answer):
    """Open reservations, those that end first, first; with another `state` in the order of their making."""

    items: list[ListedReservation]
    next_cursor: str | None


class Draw(BaseModel):
    """What a transaction took from a grant, or gave to it."""

    grant_id: str
    amount: Credits


class Transaction(BaseModel):
    """One immutable row of the ledger. `reference` is what the caller calls the operation: its own word, else that of
    the reservation or charge that it belongs to, else its idempotency key. `refund_of` is the charge that a refund is
    of, `actor` who asked for it (the header `X-Actor`).
    """

    transaction_id: str
    seq: int
    kind: Kind | str
    """One that is not listed is of a newer version."""
    user_id: str
    amount: Credits
    draws: list[Draw]
    available_after: Credits
    reserved_after: Credits
    debt_after: Credits
    created_at: datetime
    reservation_id: str | None
    refund_of: str | None
    reference: str | None
    actor: str | None
    key_id: str | None
    """The API key that it was asked for by, or that it is about."""
    description: str | None
    metadata: Members | None
    price: Price | None = None
    """What priced it; a commit of an amount has none (`priced` is false where its hold had one)."""
    priced: bool | None = None
    path: str | None = None
    """Where several pay for one request: whose it is, whoever paid this row."""
    group: str | None = None
    """Likewise the transaction_id of the first of its rows, which is the path's."""
    restricted_after: Credits | None = None
    """What was free of restricted grants then; missing where that was nothing."""
    tags: list[str] | None = None
    """What its caller said that it is for."""
    only: list[str] | None = None
    """Of a grant: what it may be spent on."""


class TransactionPage(Answer):
    """Transactions, newest first."""

    items: list[Transaction]
    next_cursor: str | None


class Burn(BaseModel):
    """A part that a deduct would take from a grant."""

    grant_id: str
    amount: Credits


class Explanation(Paid):
    """What a deduct would do now; nothing was changed."""

    user_id: str
    amount: Credits
    would: Would
    violations: list[Violation]
    """What would refuse it: each rule of the account and of the levels above it."""
    short: Credits
    burns: list[Burn]
    overdraft_limit: Credits
    next_credits_at: datetime | None
    next_credits_amount: Credits
    levels: list[Level] = []
    """The account, and each level above it, that has rules, and what these stand at now."""


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
