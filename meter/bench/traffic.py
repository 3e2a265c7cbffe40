"""What a load generator sends: templates of requests, in the one form that both generators take.

In a template `%U` is a user drawn by lot and `%R` a reservation id. A pair is two requests on the same `%R`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

USER_DIGITS = 12
"""redis-benchmark draws numbers of twelve digits, so all users are called that way."""


def user_name(number: int) -> str:
    """The name of a user."""
    return f"u{number:0{USER_DIGITS}d}"


@dataclass(frozen=True, slots=True)
class Template:
    """One request. A body makes it JSON."""

    method: str
    path: str
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """One round of one case. `rate` is requests a second over all connections; 0: as fast as answers come."""

    port: int
    templates: tuple[Template, ...]
    connections: int
    seconds: float
    users: int
    run: str
    """Makes reservation ids of different rounds differ."""
    rate: float = 0.0

    def to_json(self) -> str:
        """For a generator in another process."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Load:
        """Reads `to_json`."""
        members = json.loads(text)
        templates = tuple(
            Template(one["method"], one["path"], one["body"], tuple((name, value) for name, value in one["headers"]))
            for one in members.pop("templates")
        )
        return Load(templates=templates, **members)
