"""What the Python calls are made of: one that any of them is, and how it travels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from copy import copy
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Protocol, Self, TypeVar

from meter.contract.answers import Answer, Refusal
from meter.contract.fields import is_actor
from meter.errors import OtherLoop, Unavailable


class Null(Enum):
    """The type of `NULL`."""

    NULL = "null"


NULL = Null.NULL
"""Takes away what is there, where None leaves it as it is: `configure("user-1", rate_card=NULL)`."""

CreditAmount = int | float | str | Decimal
Metadata = Mapping[str, object]

_A = TypeVar("_A", bound=Answer)
_B = TypeVar("_B", bound=Answer)

_OTHER_LOOP = (
    "this meter belongs to the event loop of its first call, and this is another one: make one meter for each loop "
    "(asyncio.run makes a loop each time), or use meter.sync, which blocks and works everywhere"
)
_EXACT_JSON = json.JSONDecoder(parse_float=Decimal)


Carried = tuple[int, bytes, bool]
"""The answer to a call: status, body, and whether it is the stored one of an earlier call."""


class Carrier(Protocol):
    """Carries one call of meter/contract/calls.py. Raises `Unavailable`."""

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> Carried:
        """`path` and `query` are members by name; `key` is the idempotency key, `actor` who asks ("": nobody says)."""
        ...


class Calls:
    """Calls over a carrier. Each raises `Unavailable` when it was not decided."""

    def __init__(self, carrier: Carrier) -> None:
        self._carry = carrier
        self._loop: asyncio.AbstractEventLoop | None = None
        self._actor = ""

    def by(self, actor: str) -> Self:
        """The same meter for calls of a person or a system, whose name the ledger and the log of changes get with each
        (`X-Actor`): `await meter.by("ada").void("user-1", "welcome")`. It is closed with the one that it came from.
        Raises `ValueError` for what is not 1 to 128 visible ASCII characters without quotes and backslashes.
        """
        if not is_actor(actor):
            raise ValueError(f"not 1 to 128 visible ASCII characters without quotes and backslashes: {actor!r}")
        found = copy(self)
        found._actor = actor
        return found

    async def _call(
        self,
        name: str,
        answer: type[_A],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> _A | Refusal:
        return await self._call_or_later(name, answer, answer, path=path, query=query, body=body, key=key)

    async def _call_or_later(
        self,
        name: str,
        answer: type[_A],
        later: type[_B],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> _A | _B | Refusal:
        """`later` is the answer to a call that is accepted but not done (202). Raises `OtherLoop` for what fails
        because it is not in the event loop of the first call.
        """
        here = asyncio.get_running_loop()
        self._loop = first = self._loop or here
        try:
            return await self._carried(name, answer, later, path=path, query=query, body=body, key=key)
        except (Unavailable, RuntimeError) as error:
            if first is here:
                raise
            raise OtherLoop(_OTHER_LOOP) from error

    async def _carried(
        self,
        name: str,
        answer: type[_A],
        later: type[_B],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> _A | _B | Refusal:
        payload = None if body is None else _dump(body)
        carried = await self._carry(name, path or {}, query or {}, payload, key, self._actor)
        return self._read(carried, answer, later)

    def _read(self, carried: Carried, answer: type[_A], later: type[_B]) -> _A | _B | Refusal:
        status, text, replayed = carried
        kind = Refusal if status >= 400 else later if status == 202 else answer
        try:
            found = kind.model_validate(_EXACT_JSON.decode(text.decode()))
        except ValueError as error:
            raise Unavailable("answer", f"{status}, but no answer of a sidecar: {text[:200]!r}") from error
        if isinstance(found, Refusal):
            if status >= 500:
                raise Unavailable(found.code, found.detail)
            return found
        return found.model_copy(update={"replayed": True}) if replayed else found


def wire_text(value: object) -> str:
    """A time as RFC 3339; a number without an exponent, which no amount may have in a string."""
    if isinstance(value, datetime):
        return value.isoformat()
    return format(Decimal(str(value)), "f") if isinstance(value, float | Decimal) else str(value)


def wire_query(members: Mapping[str, object], limit: int, cursor: str) -> dict[str, str]:
    """The query of a list: its members without those that are None, and the page."""
    sent = {name: wire_text(value) for name, value in members.items() if value is not None}
    return {**sent, "limit": str(limit), "cursor": cursor}


def _dump(body: Mapping[str, object]) -> bytes:
    """JSON without the members that are None, `NULL` as null; decimals travel as strings, so that none is rounded."""
    told = {name: None if value is NULL else value for name, value in body.items() if value is not None}
    return json.dumps(told, default=wire_text).encode()
