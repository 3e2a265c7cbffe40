"""One request of the console: who asks, what the page is about, and what a form brought."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

from meter.api.gate import ADMIN_READ, ADMIN_WRITE
from meter.client.credits import Credits
from meter.http.rendered import Rendered

ROOT = "/console"

Exported = Callable[[str, Mapping[str, str], Mapping[str, str]], Awaitable[Rendered]]
"""A call by its name, with its path and query."""


@dataclass(frozen=True, slots=True)
class Visit:
    """`credits` makes the public calls as whoever is logged in. `token` is what forms bring back. `key_id` is "" where
    nobody has to log in.
    """

    path: str
    credits: Credits
    token: str
    now: datetime
    decimal_places: int
    key_id: str = ""
    scopes: frozenset[str] = frozenset({ADMIN_READ, ADMIN_WRITE})
    theme: str = ""
    told: str = ""
    """What the last action came to, to be shown once."""
    cookie: str = ""
    exported: Exported | None = None
    """Makes a call whose items are exported, as the same."""
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the page is."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    @property
    def may_write(self) -> bool:
        """Whether the key may change anything."""
        return ADMIN_WRITE in self.scopes


def link(page: str, **query: object) -> str:
    """The address of a page. Ids travel in the query: one of them may be `a/../b`, which browsers would shorten."""
    told = {name: str(value) for name, value in query.items() if value not in (None, "")}
    return f"{ROOT}/{page}" + (f"?{urlencode(told)}" if told else "")
