"""The rows of the durable ledger, as Pydantic models: the one source of tables, validators and generated schemas.

Amounts are integer units, times are milliseconds since 1970 in UTC. A field added here appears in every schema.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from meter.store.code_rows import CodeRow, CodeTextRow, RedemptionRow
from meter.store.key_rows import ApiKeyRow
from meter.store.plan_rows import ErrandRow, PastPlanRow, PlanRow, PlanTermsRow, SubscriptionRow
from meter.store.row import (
    AnswerLine,
    CountersText,
    Feature,
    KeyMark,
    Millionths,
    Milliseconds,
    ObjectId,
    PriceText,
    Reference,
    Row,
    TagsText,
    TermsText,
    TransactionId,
    Units,
    UserId,
    VersionedRow,
    Word,
)
from meter.store.top_up_rows import TopUpRow, TopUpWord
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow


class TransactionRow(Row):
    """One immutable transaction. `seq` never repeats within a partition, not even across epochs."""

    TABLE = "transactions"
    KEY = ("transaction_id",)
    UNIQUE = (("partition", "seq"),)
    INDEXES = (("user_id", "seq"), ("refund_of",), ("reference", "created_at_ms"), ("kind", "created_at_ms"))

    transaction_id: TransactionId
    partition: int
    epoch: int
    seq: int
    kind: Word
    user_id: UserId
    amount: Units
    available_after: Units
    reserved_after: Units
    debt_after: Units
    created_at_ms: Milliseconds
    operation_id: Annotated[str, Field(max_length=400)] | None = None
    reservation_id: ObjectId | None = None
    refund_of: TransactionId | None = None
    reference: Reference | None = None
    """What the caller calls the operation: its own word, else that of the reservation or charge it belongs to, else its
    idempotency key.
    """
    draws: JsonValue = None
    """[[grant_id, amount], …]: what the transaction took from or gave to each grant."""
    detail: JsonValue = None
    """The members of the outbox entry by kind, without those that have a column."""
    description: Annotated[str, Field(max_length=500)] | None = None
    metadata: JsonValue = None


class AccountRow(Row):
    """An account as of `last_seq`."""

    TABLE = "accounts"
    KEY = ("user_id",)
    INDEXES = (("partition", "user_id"),)

    user_id: UserId
    partition: int
    available: Units = 0
    reserved: Units = 0
    debt: Units = 0
    granted: Units = 0
    spent: Units = 0
    expired: Units = 0
    voided: Units = 0
    overdraft_limit: Units = 0
    suspended: bool = False
    low_credit_thresholds: Annotated[str, Field(max_length=200)] = "-"
    rate_card: ObjectId | None = None
    price_multiplier: Millionths | None = None
    rules: TermsText | None = None  # of budgets and rate limits, as lua/state/level.lua has them
    counters: CountersText | None = None  # what it and all below it have moved since they count
    top_up: TopUpWord | None = None  # what is bought when few are left, as lua/state/top_up.lua has it
    profile: JsonValue = None
    last_seq: int = 0
    updated_at_ms: Milliseconds = 0
    last_spent_at_ms: Milliseconds | None = None
    """When it was last charged something; null also where that was before there was this column."""
    restricted: Units | None = None
    """What is free of grants that are for some things only, which `available` is without; null: nothing."""


class GrantRow(Row):
    """A grant as of `last_seq`; `pending` until its first transaction was flushed."""

    TABLE = "grants"
    KEY = ("user_id", "grant_id")
    UNIQUE = (("partition", "operation_id"),)
    INDEXES = (("pending", "created_at_ms"), ("user_id", "expires_at_ms"), ("state", "expires_at_ms"), ("grant_id",))

    user_id: UserId
    grant_id: ObjectId
    partition: int
    amount: Units
    remaining: Units
    reserved: Units = 0
    priority: int = 10
    effective_at_ms: Milliseconds
    expires_at_ms: Milliseconds
    created_at_ms: Milliseconds
    source: Word = "api"
    state: Word = "active"
    """scheduled, active, exhausted, expired or voided."""
    at_end: Annotated[str, Field(max_length=80)] | None = None
    """What becomes of it when it expires, as lua/state/grant.lua has it; null: nothing."""
    pending: bool = False
    transaction_id: TransactionId | None = None
    operation_id: Annotated[str, Field(max_length=400)] | None = None
    fingerprint: Annotated[str, Field(max_length=64)] | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    metadata: JsonValue = None
    reference: Reference | None = None
    """What the caller called the operation that made it."""
    only: TagsText | None = None
    """Tags of what it may be spent on, as lua/state/restriction.lua has them; null: anything."""
    last_seq: int = 0


class ReservationRow(Row):
    """A reservation as of `last_seq`."""

    TABLE = "reservations"
    KEY = ("reservation_id",)
    INDEXES = (
        ("user_id", "state"),
        ("user_id", "created_at_ms", "reservation_id"),
        ("partition", "ended_at_ms", "reservation_id"),
    )

    reservation_id: ObjectId
    user_id: UserId
    partition: int
    amount: Units
    charged: Units = 0
    state: Word = "open"
    """open, committed, released or expired."""
    draws: JsonValue = None
    """[[grant_id, amount], …] that it holds (open) or held."""
    expires_at_ms: Milliseconds
    created_at_ms: Milliseconds
    at_end: Word = "release"
    """What becomes of it when nobody settles it: release or charge."""
    ended_at_ms: Milliseconds | None = None
    requested: Units = 0
    """What the commit asked for; it may be more than was charged."""
    answer: AnswerLine | None = None
    """The line that the script answered when it ended."""
    reference: Reference | None = None
    """What the caller called the operation that made it; what settles it is found by it too."""
    price: PriceText | None = None
    """Of its reserve, as lua/state/price.lua has it."""
    feature: Feature | None = None
    """Of its reserve: what its charges count for in the usage figures."""
    api_key: KeyMark | None = None
    """What it keeps of the API key that it was asked for by, as lua/state/hold.lua has it."""
    counted_seq: int | None = None
    """Of its reserve, where a level counts it."""
    tags: TagsText | None = None
    """What it is for, as its caller told."""
    last_seq: int = 0


class WatermarkRow(Row):
    """How far a partition's outbox has been flushed: the cursor, moved by compare-and-set."""

    TABLE = "watermarks"
    KEY = ("partition",)

    partition: int
    epoch: int
    seq: int
    head: TransactionId
    updated_at_ms: Milliseconds = 0
    counted_seq: int | None = None
    """Up to which seq the usage figures have its transactions, apart from those of a usage gap; null: none of them."""
    bucket_minutes: int | None = None
    """How long the buckets of its usage figures are. A flush that counts by others is fenced, too."""


class OperationRow(Row):
    """An idempotency key beyond the Redis window: which transaction it made."""

    TABLE = "operations"
    KEY = ("partition", "operation_id")
    INDEXES = (("partition", "created_at_ms", "operation_id"),)

    partition: int
    operation_id: Annotated[str, Field(max_length=400)]
    transaction_id: TransactionId
    fingerprint: Annotated[str, Field(max_length=64)] | None = None
    answer: AnswerLine | None = None
    """The line that the script answered, so that a rebuilt Redis answers a repeated call as before."""
    created_at_ms: Milliseconds


class AnswerRow(Row):
    """What a call with an Idempotency-Key that changed rows here answered first; written with what it changed."""

    TABLE = "answers"
    KEY = ("operation_id",)

    operation_id: Annotated[str, Field(max_length=128)]
    """The caller's key."""
    fingerprint: Annotated[str, Field(max_length=64)]
    """Of what was asked, so that a repeated call is told from another one."""
    status: int
    body: str
    created_at_ms: Milliseconds


class EventRow(Row):
    """A ledger event for people: transaction, error or system."""

    TABLE = "ledger_events"
    KEY = ("event_id",)
    INDEXES = (
        ("user_id", "created_at_ms"),
        ("kind", "created_at_ms"),
        ("created_at_ms", "event_id"),
        ("reference", "created_at_ms"),
    )

    event_id: Annotated[str, Field(max_length=64)]
    kind: Word
    user_id: UserId | None = None
    message: Annotated[str, Field(max_length=500)]
    detail: JsonValue = None
    created_at_ms: Milliseconds
    reference: Reference | None = None
    """What the caller called the operation that was refused."""


class AlertRow(VersionedRow):
    """An alert that is to be delivered; its id names the transaction that caused it, so a replay never adds one."""

    TABLE = "alerts"
    KEY = ("alert_id",)
    INDEXES = (("state", "next_attempt_at_ms"), ("user_id", "created_at_ms"))

    alert_id: Annotated[str, Field(max_length=128)]
    kind: Word
    user_id: UserId
    payload: JsonValue = None
    created_at_ms: Milliseconds
    state: Word = "due"
    """due, or passed on: a delivery row for each of those who want it."""
    next_attempt_at_ms: Milliseconds = 0


class WebhookRow(VersionedRow):
    """An endpoint that is told of alerts. Its id comes from its URL, so that there is one per URL."""

    TABLE = "webhooks"
    KEY = ("webhook_id",)

    webhook_id: ObjectId
    url: Annotated[str, Field(max_length=2000)]
    description: Annotated[str, Field(max_length=500)] | None = None
    kinds: JsonValue = None
    """Which alerts it wants; null: all."""
    secret: Annotated[str, Field(max_length=200)]
    old_secrets: JsonValue = None
    """[[secret, until_ms], …]: those that were rotated and sign as well until then, the newest first."""
    state: Word = "enabled"
    """enabled, disabled (it answered 410, or somebody asked for it) or deleted."""
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds


class DeliveryRow(VersionedRow):
    """One alert on its way to one target; the log of what was tried."""

    TABLE = "deliveries"
    KEY = ("delivery_id",)
    INDEXES = (
        ("state", "next_attempt_at_ms"),
        ("target", "state", "next_attempt_at_ms"),
        ("user_id", "created_at_ms"),
        ("created_at_ms", "delivery_id"),
    )

    delivery_id: ObjectId
    """The same for every attempt: what receivers tell a repetition by."""
    alert_id: Annotated[str, Field(max_length=128)]
    target: ObjectId
    """A webhook_id, or the name of a channel of `METER_NOTIFY`."""
    kind: Word
    user_id: UserId
    payload: JsonValue = None
    created_at_ms: Milliseconds
    state: Word = "due"
    """due, delivered or failed."""
    attempts: int = 0
    next_attempt_at_ms: Milliseconds = 0
    attempted_at_ms: Milliseconds | None = None
    status: int | None = None  # the HTTP status of the last attempt, if it came to one
    error: Annotated[str, Field(max_length=500)] | None = None


class AnonymisationRow(Row):
    """A user whose name is being taken out of the ledger (meter/ledger/anonymise.py); gone once nothing has it."""

    TABLE = "anonymisations"
    KEY = ("user_id",)

    user_id: UserId
    pseudonym: UserId
    """What the user's rows are called from then on, drawn by lot."""
    secret: Annotated[str, Field(max_length=64)]
    """What the new names of ids that have the name in them are made with."""
    created_at_ms: Milliseconds


class RateCardRow(VersionedRow):
    """A rate card; `version` counts its changes, each of which is an activation."""

    TABLE = "rate_cards"
    KEY = ("rate_card_id",)

    rate_card_id: ObjectId
    latest: int
    state: Word = "due"
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds


class RateCardVersionRow(Row):
    """An immutable version of a rate card."""

    TABLE = "rate_card_versions"
    KEY = ("rate_card_id", "number")

    rate_card_id: ObjectId
    number: int
    body: JsonValue = None
    """What was put, amounts in units."""
    created_at_ms: Milliseconds


class ActivationRow(Row):
    """From when on a version of a rate card prices. Of one moment, the one with the greater number does."""

    TABLE = "rate_card_activations"
    KEY = ("rate_card_id", "number")

    rate_card_id: ObjectId
    number: int
    rate_card_version: int
    effective_at_ms: Milliseconds
    created_at_ms: Milliseconds


class RunwayRow(VersionedRow):
    """A user of whom it was told that the credits run out within so many days; gone once they last longer again."""

    TABLE = "runways"
    KEY = ("user_id",)

    user_id: UserId
    days: int
    created_at_ms: Milliseconds


class RefusalCountRow(VersionedRow):
    """How often a user was refused for a reason within an hour; of user_id "" it is everybody."""

    TABLE = "refusal_counts"
    KEY = ("user_id", "hour_ms", "reason")
    INDEXES = (("hour_ms",),)

    user_id: UserId = ""
    hour_ms: Milliseconds
    reason: Word
    refusals: int


class QuarantineRow(Row):
    """An outbox entry that could not be read, kept verbatim as its seq."""

    TABLE = "quarantine"
    KEY = ("partition", "seq")

    partition: int
    seq: int
    text: str
    reason: Annotated[str, Field(max_length=500)]
    created_at_ms: Milliseconds


class DeploymentRow(Row):
    """What every process of a deployment must agree on: decimal_places, partitions."""

    TABLE = "deployment"
    KEY = ("name",)

    name: Word
    value: Annotated[str, Field(max_length=200)]


ROWS: tuple[type[Row], ...] = (
    TransactionRow,
    AccountRow,
    GrantRow,
    ReservationRow,
    WatermarkRow,
    OperationRow,
    AnswerRow,
    EventRow,
    AlertRow,
    PlanRow,
    PlanTermsRow,
    SubscriptionRow,
    PastPlanRow,
    ErrandRow,
    AnonymisationRow,
    RateCardRow,
    RateCardVersionRow,
    ActivationRow,
    ApiKeyRow,
    CodeRow,
    CodeTextRow,
    RedemptionRow,
    WebhookRow,
    DeliveryRow,
    QuarantineRow,
    DeploymentRow,
    UsageRow,
    UsageQuantityRow,
    UsageGapRow,
    RunwayRow,
    RefusalCountRow,
    TopUpRow,
)
