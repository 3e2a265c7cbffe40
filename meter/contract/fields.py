"""The fields that bodies and answers are made of, with their bounds."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, cast

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from meter.amount import AmountScale, plain_decimal
from meter.clock import UnknownTimeZone, time_zone, zone_names
from meter.errors import InvalidAmount
from meter.keys import ACTOR, OBJECT_ID, REQUEST_ID, TAG, TAG_OF_GRANT, TAGS_MAX, USER_ID

DESCRIPTION_MAX_CHARS = 500


METADATA_MAX_BYTES = 1024


PRIORITY_MAX = 999_999


LIST_LIMIT_MAX = 500


BATCH_MAX = 500


THRESHOLDS_MAX = 8


SECONDS_MAX = 10**10
"""More than 300 years."""


NUL_FREE = r"^[^\x00]*$"


NO_NUL = "must not contain U+0000"


_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


_DATE_AND_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]")


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


MARK = "x-meter-bound"
"""Stands in a schema for bounds that depend on settings; meter/openapi/bounds.py writes them in its place."""
AMOUNT, POSITIVE_AMOUNT, AMOUNT_TEXT, RATE, TTL = "amount", "positive amount", "amount text", "rate", "ttl"
SIGNED_AMOUNT = "signed amount"


def read_units(value: object, info: ValidationInfo) -> int:
    """Units of a wire value, by the deployment's scale."""
    scale = info.context
    if not isinstance(scale, AmountScale):
        raise PydanticCustomError("amount_scale", "amounts can only be read with an amount scale")
    try:
        return scale.units(value)
    except InvalidAmount as error:
        raise PydanticCustomError("amount", "{reason}", {"reason": str(error)}) from None


def _plain(value: object) -> object:
    """JSON of the caller's own, whose numbers are doubles as everywhere in JSON. Refuses what JSON does not have, and
    whole numbers that its readers round.
    """
    if isinstance(value, Decimal):
        value = float(value)
    if (isinstance(value, float) and not isfinite(value)) or (isinstance(value, int) and not -(2**63) <= value < 2**64):
        raise PydanticCustomError("number", "has a number that JSON does not have or that its readers round")
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _metadata(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise PydanticCustomError("metadata", "must be a JSON object")
    members = cast("dict[str, JsonValue]", _plain(value))
    text = orjson.dumps(members)
    if len(text) > METADATA_MAX_BYTES:
        raise PydanticCustomError("metadata", f"is larger than {METADATA_MAX_BYTES} bytes")
    if b"\\u0000" in text and _ESCAPED_NUL.search(text):  # a search by pattern costs as much as all the rest
        raise PydanticCustomError("nul", NO_NUL)
    return members


def _seconds(value: object) -> int | Decimal:
    """A duration from its digits: a number, not a text."""
    if type(value) is int:
        found: int | Decimal = value
    elif isinstance(value, float | Decimal) and isfinite(value):
        found = plain_decimal(value)
    else:
        raise PydanticCustomError("seconds", "must be a number of seconds")
    if not 0 <= found <= SECONDS_MAX:
        raise PydanticCustomError("seconds", f"must be from 0 to {SECONDS_MAX}")
    return found


def _some_seconds(value: object) -> int | Decimal:
    found = _seconds(value)
    if not found:
        raise PydanticCustomError("seconds", "must be more than 0")
    return found


def _rfc3339(value: object) -> object:
    """Only texts with a date: a number would be taken for a Unix time."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        return value
    raise PydanticCustomError("time", "must be an RFC 3339 time with an offset, such as 2030-01-01T00:00:00Z")


_WHOLE_MAX = 10**18
"""Above every bound of a whole number here; a number of 400 digits is not worth working out to refuse it."""


def _whole(value: object) -> object:
    """1.0 is a whole number in JSON, as JSON Schema has it."""
    if not isinstance(value, Decimal | float) or not isfinite(value) or not -_WHOLE_MAX <= value <= _WHOLE_MAX:
        return value
    return int(value) if value == int(value) else value


AS_WHOLE = BeforeValidator(_whole)
"""Of an `int`: a whole number, however it is written. Behind its bounds, or no schema has them."""


def _digits(value: object) -> object:
    """A number of a query as JSON would have it: `1_0` and ` 1` are numbers to Python alone."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticCustomError("number", "must be a number")
    return value


FROM_QUERY = BeforeValidator(_digits)
"""Of a number in a query, which comes as a text."""


Amount = Annotated[int, BeforeValidator(read_units), Field(ge=0), WithJsonSchema({MARK: AMOUNT})]
"""Units; zero is allowed."""


PositiveAmount = Annotated[int, BeforeValidator(read_units), Field(gt=0), WithJsonSchema({MARK: POSITIVE_AMOUNT})]
"""Units; zero is refused."""


def _not_zero(value: int) -> int:
    if value == 0:
        raise PydanticCustomError("amount", "must not be 0")
    return value


SignedAmount = Annotated[
    int, BeforeValidator(read_units), AfterValidator(_not_zero), WithJsonSchema({MARK: SIGNED_AMOUNT})
]
"""Units of either sign; zero is refused."""


MULTIPLIER_MAX = 10**6


def _multiplier(value: object) -> int:
    """Millionths of a multiplier."""
    try:
        found = Decimal(value) if type(value) is int else plain_decimal(value)
    except InvalidAmount as error:
        raise PydanticCustomError("multiplier", "{reason}", {"reason": str(error)}) from None
    if not (found.is_finite() and 0 < found <= MULTIPLIER_MAX) or found != round(found, 6):
        raise PydanticCustomError("multiplier", f"must be more than 0, at most {MULTIPLIER_MAX}, of 6 decimal places")
    return int(found * 10**6)


Multiplier = Annotated[
    int,
    PlainValidator(_multiplier),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MULTIPLIER_MAX, "multipleOf": 1e-6}),
]
"""What a price is multiplied by before it is rounded: millionths, at most six decimal places on the wire."""


UserId = Annotated[str, Field(pattern=f"^(?:{USER_ID.pattern})$")]


ObjectId = Annotated[str, Field(pattern=f"^(?:{OBJECT_ID.pattern})$")]


ApiKeyText = Annotated[str, Field(min_length=1, max_length=200)]
"""The text of an API key. One that cannot be any is refused as one that there is not."""


Text = Annotated[str, Field(pattern=NUL_FREE)]
"""A text of the caller's own, without the one character that PostgreSQL cannot keep."""


Reference = Annotated[str, Field(pattern=f"^(?:{REQUEST_ID.pattern})$")]
"""What the caller's own systems call an operation: the id of a request, an order, a trace."""


Description = Annotated[Text, Field(max_length=DESCRIPTION_MAX_CHARS)]


Json = Annotated[JsonValue, BeforeValidator(_plain)]
"""Any JSON, as clients read it, whose numbers with a point are decimals at first."""

Tag = Annotated[str, Field(pattern=f"^(?:{TAG.pattern})$")]
"""A word that says what an operation is for, such as `feature:images`."""


Tags = Annotated[list[Tag], Field(max_length=TAGS_MAX)]
"""What an operation is for: grants that are for one of these pay for it, too."""


Only = Annotated[
    list[Annotated[str, Field(pattern=f"^(?:{TAG_OF_GRANT.pattern})$")]], Field(min_length=1, max_length=TAGS_MAX)
]
"""What credits may be spent on: operations with one of these tags, or of a model, `model:gpt-4o`; with a `*` at the end
all tags that begin so.
"""


Members = Annotated[dict[str, JsonValue], BeforeValidator(_plain)]
"""JSON members of the caller's own."""


Metadata = Annotated[
    dict[str, JsonValue],
    PlainValidator(_metadata),
    WithJsonSchema({"type": "object", "description": f"Any members, as JSON at most {METADATA_MAX_BYTES} bytes."}),
]


MemberOf = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}:[^\x00]{1,200}$")]
"""A member of metadata and its value, `team:red`; a number is as it is written."""


Seconds = Annotated[
    int | Decimal,
    PlainValidator(_seconds),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": SECONDS_MAX}),
]


TtlSeconds = Annotated[
    int | Decimal,
    PlainValidator(_some_seconds),
    WithJsonSchema({MARK: TTL}),
]


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
"""A point in time: any offset, but one there must be."""


Credits = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""An amount of an answer: credits as an exact decimal."""


def _zone(value: object) -> str:
    try:
        return time_zone(str(value)).key
    except UnknownTimeZone as error:
        raise PydanticCustomError("time_zone", "{reason}", {"reason": str(error)}) from None


TimeZone = Annotated[
    str,
    BeforeValidator(_zone),
    WithJsonSchema({"type": "string", "enum": cast("list[JsonValue]", sorted(zone_names()))}),
]


def is_actor(text: str) -> bool:
    """Whether X-Actor takes it."""
    return ACTOR.fullmatch(text) is not None
