"""What goes over the wire about usage figures: how often, how much of what, and what it came to."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from meter.contract.fields import Credits

WORDS = (
    *("user", "path", "level_1", "level_2", "level_3", "level_4", "level_5", "level_6"),
    *("model", "feature", "key", "rate_card_version", "plan", "day", "hour"),
)
"""What figures can be grouped by."""
WORDS_MAX = 4

_PATTERN = rf"^({'|'.join(WORDS)})(,({'|'.join(WORDS)})){{0,{WORDS_MAX - 1}}}$"


def _words(value: object) -> object:
    """Words as a tuple, from a text with commas."""
    if not isinstance(value, str):
        return value
    words = value.split(",")
    if not re.fullmatch(_PATTERN, value):
        raise PydanticCustomError("group_by", f"must be up to {WORDS_MAX} of {', '.join(WORDS)}, with commas")
    if len(set(words)) < len(words):
        raise PydanticCustomError("group_by", "names a word twice")
    return tuple(words)


GroupBy = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    Field(strict=False),
    WithJsonSchema({"type": "string", "pattern": _PATTERN, "description": "Words with commas, none twice."}),
]


class UsageFigures(BaseModel):
    """The figures of one group, which the members of `group_by` tell: "" where charges did not say. `spent` is
    `charged` less `refunded`; `quantities` by dimension are those that charges were priced by. Days are of the zone
    that was asked for (2030-01-31), hours are when they begin.
    """

    user: str | None = None
    path: str | None = None
    level_1: str | None = None
    level_2: str | None = None
    level_3: str | None = None
    level_4: str | None = None
    level_5: str | None = None
    level_6: str | None = None
    model: str | None = None
    feature: str | None = None
    key: str | None = None
    rate_card_version: str | None = None
    plan: str | None = None
    day: str | None = None
    hour: str | None = None
    requests: int
    charged: Credits
    refunded: Credits
    spent: Credits
    quantities: dict[str, int]
