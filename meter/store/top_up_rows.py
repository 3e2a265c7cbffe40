"""The rows of auto top-up: each request to buy credits, from the transaction that asked to its end."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meter.store.row import Milliseconds, ObjectId, Units, UserId, VersionedRow, Word

TopUpWord = Annotated[str, Field(max_length=400)]
PayerReference = Annotated[str, Field(max_length=200)]
PaymentId = Annotated[str, Field(max_length=200)]


class TopUpRow(VersionedRow):
    """A request to buy credits; its id names the transaction that asked, so a replay never adds one. The grant that it
    becomes has the same id.
    """

    TABLE = "top_ups"
    KEY = ("top_up_id",)
    INDEXES = (("state", "next_attempt_at_ms"), ("user_id", "created_at_ms"), ("created_at_ms", "top_up_id"))

    top_up_id: ObjectId
    user_id: UserId
    below: Units
    amount: Units
    most: Units | None = None
    """Bought within a period of the calendar at most; null: no bound."""
    period: Word
    """day, week or month, in UTC."""
    reference: PayerReference
    """What the provider of payments knows the payer by."""
    created_at_ms: Milliseconds
    state: Word = "open"
    """open or ended."""
    step: Word = "due"
    """What comes next: due (the provider is to be asked), asking (it is being asked), pending (it will tell), settling
    (how it came out is known, and the account is to have it).
    """
    outcome: Word | None = None
    """paid, declined or cancelled; null while nobody knows."""
    declines: int = 0
    """How often the provider has declined. Each time it is asked anew the payment has another key."""
    looks: int = 0
    """How often it was looked up since it was asked."""
    next_attempt_at_ms: Milliseconds = 0
    asked_at_ms: Milliseconds | None = None
    """When the provider was asked for what may have been paid."""
    payment_id: PaymentId | None = None
    """What the provider calls the payment."""
    reversed_at_ms: Milliseconds | None = None
    """When the provider told that the money went back: what is left of the grant is voided."""
    error: Annotated[str, Field(max_length=500)] | None = None
    """Why it was declined, cancelled or reversed, or not answered the last time."""
    ended_at_ms: Milliseconds | None = None
