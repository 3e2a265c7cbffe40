"""What an example of a call is, and when they all happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JsonObject = Mapping[str, object]

NOW = "2026-01-01T12:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Example:
    """An answer, and the members of the path and the query and the body that led to it."""

    answer: JsonObject
    body: JsonObject | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | float] = field(default_factory=dict)
