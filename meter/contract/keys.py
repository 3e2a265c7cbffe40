"""What goes over the wire about API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer
from meter.contract.fields import Seconds, Text, Time, UserId
from meter.contract.requests import Body, Query
from meter.contract.usage import Model

MODELS_MAX = 50
MODELS_MAX_CHARS = 1900
"""Of all names together: an open reservation keeps them."""
OPERATORS = frozenset({"admin:read", "admin:write"})

Scope = Literal["spend", "read:self", "admin:read", "admin:write"]
"""spend: charge the path that the key names; read:self: read its balance, history and keys (`/me`); admin:read and
admin:write: an operator's, for every path.
"""
KeyName = Annotated[Text, Field(min_length=1, max_length=200)]
Models = Annotated[tuple[Model, ...], Field(min_length=1, max_length=MODELS_MAX, strict=False)]
Scopes = Annotated[tuple[Scope, ...], Field(min_length=1, max_length=4, strict=False)]


def _check_models(models: tuple[str, ...] | None) -> None:
    if models is not None and len(",".join(models)) > MODELS_MAX_CHARS:
        raise PydanticCustomError("models", f"has more than {MODELS_MAX_CHARS} characters together")


class KeyRequest(Body):
    """A new key of a path: who has it spends as that path. Without a `user_id` it is an operator's, and names its
    scopes. `models`: those that it pays for alone, by any of their names; then it pays for nothing that names no model.
    """

    user_id: UserId | None = None
    name: KeyName | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_models(self.models)
        if self.user_id is None and (self.scopes is None or not OPERATORS.issuperset(self.scopes)):
            raise PydanticCustomError(
                "scopes", "an operator's key, without a user_id, has admin:read, admin:write or both"
            )
        if self.user_id is not None and self.scopes is not None and not OPERATORS.isdisjoint(self.scopes):
            raise PydanticCustomError("scopes", "admin:read and admin:write are an operator's: leave the user_id out")
        if self.user_id is None and self.models is not None:
            raise PydanticCustomError("models", "an operator's key is for no models")
        return self


class KeyChanges(Body):
    """What becomes of a key; a member that is left out stays as it is, null takes a name, an end or models away."""

    name: KeyName | None = None
    scopes: Scopes | None = None
    models: Models | None = None
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_models(self.models)
        return self


class RotateKeyRequest(Body):
    """For how long the old key still works beside the new one."""

    overlap_seconds: Annotated[Seconds, PlainSerializer(str, when_used="json")] = 0


class RevokeKeyRequest(Body):
    """Why a key is revoked, for the log of changes."""

    reason: Annotated[Text, Field(max_length=500)] | None = None


class KeysQuery(Query):
    """Whose keys: all of them where no user is named."""

    user_id: UserId | None = None


class ListedKey(Answer):
    """What is known of a key: all but its text. `expires_at` is the first moment at which it works no more."""

    key_id: str
    user_id: str | None
    name: str | None
    scopes: list[str]
    models: list[str] | None
    expires_at: datetime | None
    state: Literal["active", "expired", "revoked"]
    rotated_from: str | None
    created_at: datetime
    updated_at: datetime


class IssuedKey(ListedKey):
    """A key that was made. `key` is its text, told this once: a repeated call finds null there."""

    key: str | None


class UsedKey(ListedKey):
    """A key of a list. `last_used` is the hour in which it was last charged by, as the usage figures have it; null of
    one that never was, and of an operator's.
    """

    last_used: datetime | None


class KeyPage(Answer):
    """Keys in the order of their making."""

    items: list[UsedKey]
    next_cursor: str | None
