"""The rail: what there is to see, in groups."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A screen: where it is, and the letter behind `g` that opens it."""

    label: str
    page: str
    letter: str


RAIL: tuple[tuple[str, tuple[Entry, ...]], ...] = (("Customers", (Entry("Find", "find", "u"),)),)
