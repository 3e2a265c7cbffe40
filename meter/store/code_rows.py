"""The rows of promo codes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from meter.store.row import Milliseconds, ObjectId, Row, Units, UserId, VersionedRow, Word

ACTIVE, STOPPED = "active", "stopped"


class CodeRow(VersionedRow):
    """A promo code: what it gives, to how many, and to how many it gave. Its text is nowhere."""

    TABLE = "codes"
    KEY = ("code_id",)
    INDEXES = (("created_at_ms", "code_id"),)

    code_id: Annotated[str, Field(max_length=32)]
    amount: Units
    priority: int = 10
    only: JsonValue = None
    """Tags of what its credits are for; null: everything."""
    valid_days: int | None = None
    """For how many days its credits last; null: for ever."""
    max_total: int
    max_per_user: int = 1
    redeemed: int = 0
    """How often it was; counted in the transaction of each redemption, never above `max_total`."""
    starts_at_ms: Milliseconds
    ends_at_ms: Milliseconds | None = None
    state: Word = ACTIVE
    """active or stopped."""
    description: Annotated[str, Field(max_length=500)] | None = None
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds


class CodeTextRow(Row):
    """Which code a text is. Texts are found by an HMAC and kept nowhere."""

    TABLE = "code_texts"
    KEY = ("hmac",)

    hmac: Annotated[str, Field(max_length=64)]
    """HMAC-SHA-256 of the text in capitals, in hex."""
    code_id: Annotated[str, Field(max_length=32)]


class RedemptionRow(Row):
    """The n-th time that a user redeemed a code: written together with the count and the pending grant."""

    TABLE = "redemptions"
    KEY = ("code_id", "user_id", "number")
    INDEXES = (("user_id", "created_at_ms"),)

    code_id: Annotated[str, Field(max_length=32)]
    user_id: UserId
    number: int
    grant_id: ObjectId
    created_at_ms: Milliseconds
