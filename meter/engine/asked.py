"""What a caller asks for besides the operation itself, and what tells two bodies with one key apart."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import orjson

from meter.engine.answers import Operation


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asked for besides: its idempotency key, and JSON members for the ledger row."""

    key: str = ""
    extra: str = ""
    request_id: str = ""
    """The reference of the row where `extra` has none. No part of what was asked for: a retry has another one."""
    actor: str = ""
    """Who asked; no part of it either."""
    tags: str = ""
    """What it is for (meter/engine/restrictions.py), as text."""

    @property
    def row(self) -> str:
        """The members of the ledger row; `tags` come first, where the scripts look for them."""
        if not (self.request_id or self.actor or self.tags):
            return self.extra
        parts = [f'"tags":"{self.tags}"'] if self.tags else []
        if self.actor:
            parts.append(f'"actor":"{self.actor}"')
        if self.request_id and not self.extra.startswith('"reference":'):
            parts.append(f'"reference":"{self.request_id}"')
        return ",".join([*parts, self.extra] if self.extra else parts)

    @property
    def body(self) -> str:
        """What was asked for besides, as far as it tells two bodies apart."""
        return f'"tags":"{self.tags}",{self.extra}' if self.tags else self.extra


UNKEYED = Asked()


def members(description: str | None, metadata: object, reference: str | None = None) -> str:
    """The caller's own JSON members of a ledger row, without braces."""
    parts = []
    if reference is not None:
        parts.append(f'"reference":{orjson.dumps(reference).decode()}')
    if description is not None:
        parts.append(f'"description":{orjson.dumps(description).decode()}')
    if metadata is not None:
        parts.append(f'"metadata":{orjson.dumps(metadata).decode()}')
    return ",".join(parts)


def keyed(name: str, asked: Asked, own: tuple[str, ...]) -> Operation:
    """An operation that is told from others with its key by all that it asks for."""
    if asked is UNKEYED:  # nearly all, and to look at what is not there costs half of this
        return (name, "", "", "", *own)
    fingerprint = fingerprint_of(name, own, asked.body) if asked.key else ""
    return (name, asked.key, fingerprint, asked.row, *own)


def fingerprint_of(name: str, own: tuple[str, ...], extra: str) -> str:
    """What tells two bodies with one key apart: 96 bits over everything that the caller asked for."""
    return blake2b("\x1f".join((name, *own, extra)).encode(), digest_size=12).hexdigest()
