"""The operations about API keys themselves, declared as those of meter/engine/operations.py are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meter.api_key import ApiKey
from meter.clock import NEVER_MS
from meter.engine.answers import INVALID_KEY, NOTHING, TOO_MANY, Declared, Operation, Subject, names, plain
from meter.engine.asked import UNKEYED, Asked
from meter.engine.outbox import Kind


class Terms(NamedTuple):
    """What a key may do. `user_id` is "" of an operator's, no `models` are all."""

    hash: str
    user_id: str
    scopes: Sequence[str]
    expires_at_ms: int | None = None
    models: Sequence[str] = ()

    @property
    def text(self) -> str:
        """As the scripts read it."""
        expires_ms = NEVER_MS if self.expires_at_ms is None else self.expires_at_ms
        scopes, models = ",".join(self.scopes), ",".join(self.models)
        return f"{self.hash} {self.user_id or NOTHING} {scopes} {expires_ms} {models or NOTHING}"


REVOKED = ""
"""The terms of a key that was revoked."""

KEY = Declared(
    "key",
    Subject.USER,
    names("user_id key_id change number terms"),
    names("user_id key_id"),
    refusals=(TOO_MANY,),
    books=(Kind.KEY,),
    upkeep=True,
)


def change_key(user_id: str, key_id: str, change: str, number: int, terms: str, asked: Asked = UNKEYED) -> Operation:
    """Takes over what a user's key may do, and books the change: issue, change, rotate or revoke. `number` counts up
    with each change of the key; what is there already, or newer, changes nothing.
    """
    return ("key", "", "", asked.row, user_id, key_id, change, str(number), terms)


KEYS = Declared(
    "keys", Subject.NONE, names("keys"), balances=False, several={"keys": ("key_id", "number", "terms")}, upkeep=True
)


def put_keys(keys: Sequence[tuple[str, int, str]]) -> Operation:
    """Takes over what keys may do, and books nothing: (key_id, number, terms) of each."""
    return plain("keys", str(len(keys)), *(str(part) for key in keys for part in key))


IDENTIFY = Declared(
    "identify",
    Subject.NONE,
    names("hash"),
    names("user_id key_id scopes expires_at_ms models"),
    balances=False,
    refusals=(INVALID_KEY,),
    upkeep=True,
)


def identify(key: ApiKey) -> Operation:
    """Reads what a key may do now."""
    return plain("identify", key.hash)


DECLARED = (KEY, KEYS, IDENTIFY)
"""What no caller asks for."""
