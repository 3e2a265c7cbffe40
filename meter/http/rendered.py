"""An answer as bytes: what every handler gives, and the shapes that no credit knows: problems and pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import orjson
from pydantic import BaseModel

from meter.contract.problems import CONTENT_TYPE, PROBLEMS, Problem

JSON_TYPE = b"application/json"


class Rendered(NamedTuple):
    """What goes back to a caller: an HTTP status, a body and its type. A tuple, which costs a third of a dataclass."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    """Empty where there is no body."""
    replayed: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncIterator[bytes] | None = None
    """The body, piece by piece, in the place of `body`. It has begun to be made: its first piece is there."""
    request_id: str = ""
    """The id that the log has for it, where the request brought none."""


def answer(status: int, model: BaseModel, *, exclude_unset: bool = False) -> Rendered:
    """An answer made of its model: for calls that are not on the hot path."""
    return Rendered(status, model_json(model, exclude_unset=exclude_unset).encode())


def model_json(model: BaseModel, *, exclude_unset: bool = False) -> str:
    """The JSON of a model: decimals are numbers digit by digit, times have milliseconds and Z."""
    members = model.model_dump(exclude_unset=exclude_unset)
    return orjson.dumps(members, default=_exact, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _exact(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    raise TypeError(f"no JSON for {type(value).__name__}")


def problem(slug: str, detail: str, members: str = "") -> Rendered:
    """A refusal as a problem; `members` are further JSON members without braces."""
    return problem_of(PROBLEMS[slug], detail, members)


def validation_problem(faults: Iterable[tuple[str, str]], slug: str = "validation-error") -> Rendered:
    """A refusal of the request itself: (JSON pointer, what is wrong) for each fault."""
    errors = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    first = f"{errors[0]['pointer'] or 'body'}: {errors[0]['detail']}"
    return problem(slug, first, f'"errors":{orjson.dumps(errors).decode()}')


def page(items: Iterable[str], next_cursor: str | None, members: str = "") -> Rendered:
    """A page of items that are JSON already; `members` are further JSON members, each with a comma before it."""
    return Rendered(200, f'{{"items":[{",".join(items)}],"next_cursor":{json_text(next_cursor)}{members}}}'.encode())


def problem_of(kind: Problem, detail: str, members: str) -> Rendered:
    return Rendered(kind.status, kind.body(detail, members.encode()), CONTENT_TYPE)


def json_text(value: object) -> str:
    return orjson.dumps(value).decode()


class Answered(Exception):
    """The request is answered without asking the engine."""

    def __init__(self, rendered: Rendered) -> None:
        super().__init__(rendered.status)
        self.rendered = rendered
