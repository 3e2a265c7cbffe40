"""Operations that are asked for by an API key: the script judges it in the same call (lua/state/api_keys.lua)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meter.api_key import ApiKey
from meter.engine.answers import Operation

SPEND, READ_SELF = "spend", "read:self"
"""What a user's key may be for."""


class Presented(NamedTuple):
    """A key by which something is asked for, and the scope that this needs."""

    key: ApiKey
    scope: str = SPEND


class PresentedOperation(tuple[str, ...]):
    """An operation that is asked for by API keys. What is made of it otherwise is a plain one again."""

    presented: Sequence[Presented]

    @classmethod
    def of(cls, operation: Operation, *presented: Presented) -> PresentedOperation:
        """The operation, asked for by these."""
        found = cls(operation)
        found.presented = presented
        return found


def presented_arguments(operation: Operation, place: int) -> tuple[str | int, ...]:
    """What the script is told behind the operations of the keys by which one is asked for, whose first own argument has
    that place.
    """
    if not isinstance(operation, PresentedOperation):
        return ()
    return tuple(part for key, scope in operation.presented for part in (place, scope, key.hash))
