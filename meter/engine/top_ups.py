"""What is bought for an account when few credits are left: its word in Redis (lua/state/top_up.lua), and the operation
that changes it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from meter.engine.answers import NO_TOP_UP, NOTHING, TOO_MANY, Declared, Operation, Subject, names
from meter.engine.asked import UNKEYED, Asked, keyed
from meter.engine.outbox import Kind

ARMED, OFF, WAITING = "a", "o", "w"
Period = Literal["day", "week", "month"]
Change = Literal["", "set", "on", "off", "remove", "again", "failed"]

TOP_UP = Declared(
    "top_up",
    Subject.USER,
    names("user_id change value"),
    names("user_id top_up"),
    refusals=(TOO_MANY, NO_TOP_UP),
    books=(Kind.ACCOUNT,),
    upkeep=True,
)

DECLARED = (TOP_UP,)


class Terms(NamedTuple):
    """What is bought, when and by whom: units; `most` within a `period` of the calendar in UTC, None for no bound;
    `reference` is what the provider of payments knows the payer by.
    """

    below: int
    amount: int
    most: int | None
    period: Period
    reference: str

    @property
    def text(self) -> str:
        """As it stands in the word."""
        most = NOTHING if self.most is None else str(self.most)
        return f"{self.below},{self.amount},{most},{self.period},{self.reference}"


class Word(NamedTuple):
    """The word of an account: its state, its terms, and the id of the request that is waited for."""

    state: str
    terms: Terms
    top_up_id: str | None


def read_word(text: str) -> Word | None:
    """The word as an answer or an entry has it; None where there is none. Raises `ValueError` for one that is none."""
    if text in ("", NOTHING):
        return None
    state, below, amount, most, period, reference, *rest = text.split(",")
    if state not in (ARMED, OFF, WAITING) or period not in ("day", "week", "month") or bool(rest) != (state == WAITING):
        raise ValueError(f"no top-up: {text[:200]!r}")
    bound = None if most == NOTHING else int(most)
    terms = Terms(int(below), int(amount), bound, cast("Period", period), reference)
    return Word(state, terms, rest[0] if rest else None)


def top_up(user_id: str, change: Change = "", value: str = "", asked: Asked = UNKEYED) -> Operation:
    """Changes or reads it; `value` is the text of terms (set) or the id of a request (again, failed)."""
    return keyed("top_up", asked, (user_id, change, value))
