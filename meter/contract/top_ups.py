"""What goes over the wire about auto top-up: what is bought for an account, and each request for it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer
from meter.contract.fields import Amount, Credits, Description, PositiveAmount, UserId
from meter.contract.requests import Body, Query

PAYER = r"^[A-Za-z0-9_.:@/|+=-]{1,200}$"
"""What a provider of payments knows a payer by."""

Period = Literal["day", "week", "month"]
Outcome = Literal["paid", "declined", "cancelled"]


class TopUpRequest(Body):
    """What is bought when no more than `below` is available; `most` within a day, a week from Monday or a month in UTC.
    One that is off stays off.
    """

    below: Amount
    amount: PositiveAmount
    payment_reference: Annotated[str, Field(pattern=PAYER)]
    most: PositiveAmount | None = None
    period: Period = "month"

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.most is not None and self.most < self.amount:
            raise PydanticCustomError("most", "must be at least amount")
        return self


class TopUpSwitchRequest(Body):
    """Whether it is on from now on. One that is turned on with no more than `below` left buys at once."""

    enabled: bool
    description: Description | None = None


class TopUpsQuery(Query):
    """Which requests to list."""

    user_id: UserId | None = None
    state: Literal["open", "ended"] | None = None


class TopUp(Answer):
    """What is bought for an account. `waiting`: the request of that id is open, and no other is made meanwhile; `none`:
    nothing is set, and the other members are null.
    """

    user_id: str
    state: Literal["none", "on", "off", "waiting"]
    below: Credits | None
    amount: Credits | None
    most: Credits | None
    period: Period | None
    payment_reference: str | None
    top_up_id: str | None


class ListedTopUp(Answer):
    """A request. `step` says what comes next: `due`, `asking`, `pending` or `settling`; null once it has ended. The
    grant of one that was paid has the same id. `reversed_at`: when the money went back, and the rest of the grant was
    voided.
    """

    top_up_id: str
    user_id: str
    amount: Credits
    state: Literal["open", "ended"]
    step: Literal["due", "asking", "pending", "settling"] | None
    outcome: Outcome | None
    declines: int
    payment_reference: str
    payment_id: str | None
    reason: str | None
    created_at: datetime
    asked_at: datetime | None
    next_attempt_at: datetime | None
    ended_at: datetime | None
    reversed_at: datetime | None


class TopUpPage(Answer):
    """Requests, newest first."""

    items: list[ListedTopUp]
    next_cursor: str | None
