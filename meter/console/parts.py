"""The parts of a page: each is a call of its own, and one that fails leaves the others as they are."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

from meter.contract.answers import Answer, Refusal
from meter.errors import MeterError

T = TypeVar("T", bound=Answer)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What a call answered, or why it did not."""

    found: T | None = None
    fault: str = ""
    code: str = ""


async def part(call: Awaitable[T | Refusal]) -> Part[T]:
    """The answer of a call as a part of a page."""
    try:
        found = await call
    except MeterError as error:
        return Part(fault=str(error), code="unavailable")
    return Part(fault=found.detail, code=found.code) if isinstance(found, Refusal) else Part(found)
