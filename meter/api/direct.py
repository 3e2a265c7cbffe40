"""The everyday calls within a process: values in, values out, with no JSON in between, which cost three times the rest.

Taken are only calls whose values JSON would carry unchanged, without an idempotency key; `ask` is None for others, and
`meter.in_process` has the handlers answer them. tests/api/test_direct.py holds both ways to the same answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from meter.api.credits import deduct_operation
from meter.api.reservations import commit_operation, reserve_operation
from meter.api.services import Services, asked_of, path_id, user_of
from meter.clock import time_text
from meter.contract.answers import Answer
from meter.contract.requests import CommitRequest, DeductRequest, Described, ReleaseRequest, ReserveRequest
from meter.engine import operations
from meter.engine.answers import (
    AVAILABLE,
    DEBT,
    FIRST,
    FLAG,
    FORMS,
    NOTHING,
    OK,
    REPLAYED,
    RESERVED,
    WORD,
    Declared,
    Form,
)
from meter.engine.behind import MARKS
from meter.engine.operations import COMMIT, DEDUCT, RELEASE, RESERVE
from meter.http.exchange import Request
from meter.http.reading import read_value
from meter.http.rendered import Rendered

_A = TypeVar("_A", bound=Answer)
_B = TypeVar("_B", bound=Described)

Members = Mapping[str, object]
CREDITS_KEPT: Final = 1024
"""Amounts that are not made again: most are 0, an estimate or a usual charge, and balances alone differ."""
_NO_HEADERS: Final = Request()
_Read = Callable[[str], object]
_Ask = Callable[[Mapping[str, str], dict[str, object]], Awaitable[str]]


class _Call(NamedTuple):
    ask: _Ask
    answers: tuple[tuple[str, _Read, int], ...]
    """Names of an answer's members, what reads them, and their places in the line."""


class DirectCalls:
    """Deduct, reserve, commit and release of one deployment."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale
        self._credits = lru_cache(CREDITS_KEPT)(self._exact)
        self._readers: dict[Form, _Read] = {
            Form.TEXT: str,
            Form.TEXT_OR_NONE: lambda text: None if text == NOTHING else text,
            Form.UNITS: self._credits,
            Form.MOMENT: lambda text: time_text(int(text))[1:-1],
            Form.SPAN: lambda text: int(text) / 1000,
            Form.YES_OR_NO: lambda text: text == "1",
        }
        self._calls = {
            declared.name: _Call(ask, self._members(declared))
            for declared, ask in (
                (DEDUCT, self._deduct),
                (RESERVE, self._reserve),
                (COMMIT, self._commit),
                (RELEASE, self._release),
            )
        }

    def takes(self, name: str, body: Members | None, key: str | None) -> bool:
        """Whether a call can go this way."""
        if key is not None or body is None or name not in self._calls:
            return False
        if body.get("usage") is not None or body.get("api_key") is not None:
            return False
        for value in body.values():
            kind = type(value)
            if kind is str:
                if not value.isascii():  # type: ignore[attr-defined]
                    return False
            elif kind is not int and value is not None and not _is_flat(value):
                return False
        return True

    async def ask(self, name: str, answer: type[_A], path: Mapping[str, str], body: Members) -> _A | Rendered:
        """The answer of a call that `takes` took, or its refusal. Raises `Answered` and what the engine raises."""
        call = self._calls[name]
        line = await call.ask(path, {member: value for member, value in body.items() if value is not None})
        fields = line.split(" ")
        if fields[WORD] != OK or fields[-1][0] in MARKS:
            return self._services.renderer.render(name, line)  # the commit of a priced hold has more to tell
        available, reserved = fields[AVAILABLE], fields[RESERVED]
        members = {member: read(fields[place]) for member, read, place in call.answers}
        members["credits"] = members["available"] = self._credits(available)
        members["reserved"] = self._credits(reserved)
        members["balance"] = self._credits(str(int(available) + int(reserved)))
        members["debt"] = self._credits(fields[DEBT])
        members["replayed"] = fields[FLAG] == REPLAYED
        found: _A = answer.__pydantic_validator__.validate_python(members)
        return found

    def _members(self, declared: Declared) -> tuple[tuple[str, _Read, int], ...]:
        return tuple(
            (name.removesuffix("_ms"), self._readers[FORMS[name]], FIRST + place)
            for place, name in enumerate(declared.answer)
        )

    def _exact(self, text: str) -> Decimal:
        return Decimal(self._scale.text_of(text))

    def _body(self, model: type[_B], body: dict[str, object]) -> _B:
        return read_value(model, body, self._scale)

    async def _deduct(self, _: Mapping[str, str], members: dict[str, object]) -> str:
        body = self._body(DeductRequest, members)
        user_id = user_of(body)
        return await self._services.engine.run(user_id, deduct_operation(body, "", _NO_HEADERS, user_id))

    async def _reserve(self, _: Mapping[str, str], members: dict[str, object]) -> str:
        body = self._body(ReserveRequest, members)
        user_id = user_of(body)
        operation = reserve_operation(self._services, body, "", _NO_HEADERS, user_id)
        return await self._services.engine.run(user_id, operation)

    async def _commit(self, path: Mapping[str, str], members: dict[str, object]) -> str:
        body, request = self._body(CommitRequest, members), Request(path)
        reservation_id = path_id(request, "reservation_id")
        operation = commit_operation(reservation_id, body, "", request)
        return await self._services.engine.run_for_reservation(reservation_id, operation)

    async def _release(self, path: Mapping[str, str], members: dict[str, object]) -> str:
        body, request = self._body(ReleaseRequest, members), Request(path)
        reservation_id = path_id(request, "reservation_id")
        operation = operations.release(reservation_id, asked_of(body, "", request))
        return await self._services.engine.run_for_reservation(reservation_id, operation)


def _is_flat(value: object) -> bool:
    """Whether it is an object of plain texts: JSON carries it unchanged, as it does texts and whole numbers."""
    return type(value) is dict and all(
        type(name) is str and type(member) is str and name.isascii() and member.isascii()
        for name, member in value.items()
    )
