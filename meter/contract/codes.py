"""What goes over the wire about promo codes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer
from meter.contract.fields import (
    AS_WHOLE,
    PRIORITY_MAX,
    Credits,
    Description,
    Metadata,
    Only,
    PositiveAmount,
    Reference,
    Text,
    Time,
    UserId,
)
from meter.contract.requests import Body
from meter.promo_code import TEXT_PATTERN

TOTAL_MAX = 10**9
PER_USER_MAX = 100
DAYS_MAX = 36_500

CodeText = Annotated[str, Field(pattern=TEXT_PATTERN)]
"""What people type in; capitals or not."""


class CodeRequest(Body):
    """A new promo code. Its text is drawn by lot where none is chosen. `valid_days`: for how long its credits
    last, from when it is redeemed.
    """

    code: CodeText | None = None
    amount: PositiveAmount
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX), AS_WHOLE] = 10
    valid_days: Annotated[int, Field(ge=1, le=DAYS_MAX), AS_WHOLE] | None = None
    max_total: Annotated[int, Field(ge=1, le=TOTAL_MAX), AS_WHOLE]
    max_per_user: Annotated[int, Field(ge=1, le=PER_USER_MAX), AS_WHOLE] = 1
    only: Only | None = None
    starts_at: Time | None = None
    ends_at: Time | None = None
    description: Description | None = None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise PydanticCustomError("ends_at", "must be later than starts_at")
        return self


class StopCodeRequest(Body):
    """Why a code is stopped, for the log of changes."""

    reason: Annotated[Text, Field(max_length=500)] | None = None


class RedeemRequest(Body):
    """Who redeems what."""

    user_id: UserId
    code: Annotated[Text, Field(min_length=1, max_length=200)]
    reference: Reference | None = None
    metadata: Metadata | None = None


class ListedCode(Answer):
    """What is known of a code: all but its text. `ends_at` is the first moment at which it is not taken any more."""

    code_id: str
    amount: Credits
    priority: int
    valid_days: int | None
    only: list[str] | None
    """What its credits may be spent on; null: anything."""
    max_total: int
    max_per_user: int
    redeemed: int
    starts_at: datetime
    ends_at: datetime | None
    state: Literal["scheduled", "active", "used_up", "ended", "stopped"]
    description: str | None
    created_at: datetime
    updated_at: datetime


class CreatedCode(ListedCode):
    """A code that was made. `code` is its text in capitals, told this once: a repeated call finds null there."""

    code: str | None


class CodePage(Answer):
    """Codes in the order of their making."""

    items: list[ListedCode]
    next_cursor: str | None
