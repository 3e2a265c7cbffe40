"""What goes over the wire about how long credits last."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from meter.contract.answers import Answer
from meter.contract.fields import Credits


class Runway(Answer):
    """How long the available credits last at the pace of the last seven days (`burn_per_day`: charges less refunds).
    `runs_out_at`: null where nothing is known to end them within a year; `covered_until_next_credits`: whether
    something is left until a grant begins or a subscription renews (`next_credits_at`), null where none is known to.
    With less than a day of charges behind, there is no pace, and nothing is said but `available`.
    """

    user_id: str
    available: Credits
    burn_per_day: Credits | None
    runs_out_at: datetime | None
    next_credits_at: datetime | None
    covered_until_next_credits: bool | None
    confidence: Literal["low", "medium", "high"] | None
    is_complete: bool
