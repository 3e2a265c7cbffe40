"""One HTTP exchange, whatever carries it: what a handler needs of a request, and what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meter.amount import AmountScale
from meter.api.rendering import Rendered, problem, validation_problem
from meter.engine.operations import NEVER_MS
from meter.keys import OPERATION_KEY

_M = TypeVar("_M", bound=BaseModel)


@dataclass(slots=True)
class Request:
    """A request: path members by name, header names in lower case, the whole body."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


def joined_headers(raw: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Headers by name in lower case; one that is sent twice is joined by a comma (RFC 9110, 5.3), never half read."""
    pairs = list(raw)
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


Respond = Callable[[Rendered], None]
"""Called exactly once, from the event loop."""

Handler = Callable[[Request, Respond], None]
"""Starts an exchange; answers at once or when the engine has decided. Raises `Refused` or a `MeterError`."""


Coroutine = Callable[[Request], Awaitable[Rendered]]
"""A handler that may take several steps."""


class Refused(Exception):
    """The request is answered without asking the engine."""

    def __init__(self, rendered: Rendered) -> None:
        super().__init__(rendered.status)
        self.rendered = rendered


def awaitable(handler: Handler) -> Coroutine:
    """A hot handler as a coroutine."""

    async def run(request: Request) -> Rendered:
        future: asyncio.Future[Rendered] = asyncio.get_running_loop().create_future()

        def respond(rendered: Rendered) -> None:
            if not future.done():  # the client may have gone away
                future.set_result(rendered)

        handler(request, respond)
        return await future

    return run


def read_body(model: type[_M], request: Request, scale: AmountScale) -> _M:
    """The body as a model. An empty body counts as an empty object. Raises `Refused` with pointers to each fault."""
    content_type = request.headers.get(b"content-type")
    if content_type is not None and request.body and not _is_json(content_type):
        raise Refused(problem("unsupported-media-type", "The body must be application/json."))
    try:
        return model.model_validate_json(request.body or b"{}", context=scale)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    if any(fault["type"] == "amount_inexact" for fault in faults):
        return _read_exactly(model, request.body, scale)
    raise Refused(_fault_answer(faults))


def read_query(model: type[_M], request: Request, scale: AmountScale) -> _M:
    """The query as a model. Raises `Refused`."""
    pairs = parse_qsl(request.query, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise Refused(validation_problem([("", "a query parameter is given twice")]))
    try:
        return model.model_validate(dict(pairs), context=scale)
    except ValidationError as error:
        raise Refused(_fault_answer(error.errors(include_url=False))) from None


def read_key(request: Request) -> str:
    """The Idempotency-Key, bare or as an RFC 8941 string; "" when there is none. Raises `Refused`."""
    raw = request.headers.get(b"idempotency-key")
    if raw is None:
        return ""
    key = raw.decode("latin-1").strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not OPERATION_KEY.fullmatch(key):
        detail = "The key must be 1 to 128 visible ASCII characters without quotes and backslashes."
        raise Refused(problem("invalid-idempotency-key", detail))
    return key


def _read_exactly(model: type[_M], body: bytes, scale: AmountScale) -> _M:
    """Reads a body whose amounts are too large for a double to tell apart."""
    try:
        return model.model_validate(json.loads(body, parse_float=_exact_number), context=scale)
    except ValidationError as error:
        raise Refused(_fault_answer(error.errors(include_url=False))) from None


def _exact_number(text: str) -> Decimal | float:
    """A number of JSON; what no amount can be stays a float, because a `Decimal` of any exponent may overflow."""
    number = float(text)
    return Decimal(text) if 1e-30 < abs(number) < 1e30 else number


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


def _fault_answer(faults: list[ErrorDetails]) -> Rendered:
    if faults[0]["type"] == "json_invalid":
        return validation_problem([("", _json_fault(faults[0]))], "malformed-json")
    return validation_problem([(_pointer(fault), fault["msg"]) for fault in faults])


def _json_fault(fault: ErrorDetails) -> str:
    return str(fault.get("ctx", {}).get("error", "is not valid JSON"))


def _pointer(fault: ErrorDetails) -> str:
    """A JSON pointer (RFC 6901); pydantic's name of a union branch is not part of it."""
    parts = [part for n, part in enumerate(fault["loc"]) if not (n == 2 and fault["loc"][0] == "operations")]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, at least zero, at most the end of what never ends."""
    return max(0, min(NEVER_MS, round(time.timestamp() * 1000)))
