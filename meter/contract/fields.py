"""The fields that bodies and answers are made of, with their bounds."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from meter.amount import AmountScale
from meter.errors import InvalidAmount
from meter.keys import OBJECT_ID, USER_ID

DESCRIPTION_MAX_CHARS = 500


METADATA_MAX_BYTES = 1024


PRIORITY_MAX = 999_999


LIST_LIMIT_MAX = 500


BATCH_MAX = 500


THRESHOLDS_MAX = 8


_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]")


_AMOUNT_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}],
    "description": "Credits, an exact decimal; write it as a string where your language would round a number.",
}


def _units(value: object, info: ValidationInfo) -> int:
    scale = info.context
    if not isinstance(scale, AmountScale):
        raise PydanticCustomError("amount_scale", "amounts can only be read with an amount scale")
    if isinstance(value, float) and isfinite(value) and not scale.is_exact(value):
        raise PydanticCustomError("amount_inexact", "is too large to be read exactly from a JSON float")
    try:
        return scale.units(value)
    except InvalidAmount as error:
        raise PydanticCustomError("amount", "{reason}", {"reason": str(error)}) from None


def _plain(value: object) -> object:
    """The floats of exactly read numbers. Refuses numbers that JSON does not have or that its readers round."""
    if isinstance(value, Decimal):
        return float(value)
    if (isinstance(value, float) and not isfinite(value)) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        raise PydanticCustomError("number", "has a number that JSON does not have or that its readers round")
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _bounded(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(orjson.dumps(value)) > METADATA_MAX_BYTES:
        raise PydanticCustomError("metadata", f"is larger than {METADATA_MAX_BYTES} bytes")
    return value


def _rfc3339(value: object) -> object:
    """Only texts with a date: a number would be taken for a Unix time."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        return value
    raise PydanticCustomError("time", "must be an RFC 3339 time with an offset, such as 2030-01-01T00:00:00Z")


Amount = Annotated[int, BeforeValidator(_units), Field(ge=0), WithJsonSchema(_AMOUNT_SCHEMA)]
"""Units; zero is allowed."""


PositiveAmount = Annotated[int, BeforeValidator(_units), Field(gt=0), WithJsonSchema(_AMOUNT_SCHEMA)]
"""Units; zero is refused."""


UserId = Annotated[str, Field(pattern=f"^(?:{USER_ID.pattern})$")]


ObjectId = Annotated[str, Field(pattern=f"^(?:{OBJECT_ID.pattern})$")]


Description = Annotated[str, Field(max_length=DESCRIPTION_MAX_CHARS)]


Members = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]
"""JSON members of the caller's own."""


Metadata = Annotated[Members, AfterValidator(_bounded)]


TtlSeconds = Annotated[float, BeforeValidator(_plain), Field(gt=0, allow_inf_nan=False)]


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
"""A point in time: any offset, but one there must be."""


Credits = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""An amount of an answer: credits as an exact decimal."""


Kind = Literal[
    "grant",
    "grant_started",
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
]
"""What a transaction is. `grant_started`: a scheduled grant began; `grant_rolled_over`: the rest of a grant that ended
lives on as a grant of its own; `account`: its settings changed, or what was to be told had waited for a renewal.
"""
