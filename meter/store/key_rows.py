"""The rows of API keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from meter.store.row import Milliseconds, UserId, VersionedRow, Word

REVOKED = "revoked"


class ApiKeyRow(VersionedRow):
    """An API key: what may be known of it. Its text is nowhere."""

    TABLE = "api_keys"
    KEY = ("key_id",)
    INDEXES = (
        ("user_id", "created_at_ms", "key_id"),
        ("created_at_ms", "key_id"),
        ("partition", "key_id"),
        ("state", "created_at_ms"),
    )

    key_id: Annotated[str, Field(max_length=24)]
    hash: Annotated[str, Field(max_length=64)]
    """SHA-256 of the text, in hex."""
    user_id: UserId | None = None
    """The path that it names; null: it is an operator's."""
    partition: int
    """Of the root of the path; -1 of an operator's, which lies in every one."""
    name: Annotated[str, Field(max_length=200)] | None = None
    scopes: JsonValue = None
    models: JsonValue = None
    """Those that it is for; null: all."""
    expires_at_ms: Milliseconds | None = None
    state: Word = "due"
    """active, revoked, or due: as it stands it has not been told to Redis."""
    rotated_from: Annotated[str, Field(max_length=24)] | None = None
    created_at_ms: Milliseconds
    updated_at_ms: Milliseconds
