"""Restrictions as text: what grants may be spent on, what operations are for (lua/state/restriction.lua).

A tag is a word such as `feature:images`; that of a grant may end with a `*`. Several have commas between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meter.engine.outbox import Entry

RESTRICTIONS_MAX = 8
"""Of an account, with something left (lua/state/restriction.lua)."""


def only_text(tags: Iterable[str]) -> str:
    """The tags of a grant: equal ones are one text, and one restriction."""
    return ",".join(sorted(set(tags)))


def tags_text(tags: Iterable[str]) -> str:
    """The tags of an operation, each once."""
    return ",".join(dict.fromkeys(tags))


def tags_in(text: str) -> list[str]:
    """The tags of a text."""
    return text.split(",") if text else []


def only_of_made(detail: Mapping[str, object], grant_id: str, *, is_made: bool) -> str | None:
    """The tags of a grant, by the members of the entry that it begins with: its own, or those of a refund."""
    made = detail.get("made_for")
    told = detail.get("only") if is_made else made.get(grant_id) if isinstance(made, dict) else None
    return None if told is None else str(told)


def fits(only: str, tags: str, price: str = "") -> bool:
    """Whether a grant may be spent on what has these tags and that price (lua/state/restriction.lua), as far as the
    names of the price tell its model.
    """
    model = price.split(",", 3)[2] if price.count(",") > 2 else ""
    said = [*tags_in(tags), *([f"model:{model}"] if model else [])]
    return any(one.startswith(tag[:-1]) if tag.endswith("*") else one == tag for tag in tags_in(only) for one in said)


class Restricted(NamedTuple):
    """What is free of the grants that are for the same things, and when the first of them ends."""

    only: str
    available: int
    next_expires_at_ms: int


class Restrictions(NamedTuple):
    """What an account has free of restricted grants. `usable`: what the operation could spend, restricted or not; None
    where it spends nothing. `parts` only where the balance was asked for.
    """

    restricted: int
    usable: int | None
    parts: tuple[Restricted, ...]


def read_restrictions(text: str) -> Restrictions:
    """Reads what stands behind an answer. Raises `ValueError` for what no script wrote."""
    sums, *parts = text.split("|")
    restricted, _, usable = sums.partition(",")
    listed = (one.split("=") for one in parts)
    return Restrictions(
        int(restricted),
        int(usable) if usable else None,
        tuple(Restricted(only, int(available), int(ends)) for only, available, ends in listed),
    )


def free_of(entry: Entry) -> tuple[int, str | None]:
    """What the caller of an entry saw of what is available, and of restricted grants where there are some: without what
    is forfeited, which is booked right behind.
    """
    lapsed = entry.units("forfeited_restricted")
    restricted = str(entry.units("restricted") - lapsed) if "restricted" in entry.detail else None
    return entry.available - entry.units("forfeited") + lapsed, restricted


def restricted_in(text: str) -> int:
    """What an account has free of restricted grants, by what stands behind an answer; 0 where nothing does."""
    return read_restrictions(text).restricted if text else 0
