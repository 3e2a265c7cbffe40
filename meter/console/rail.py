"""The rail: what there is to see, in groups. A screen that is not made yet is not in it."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A screen: where it is, and the letter behind `g` that opens it."""

    label: str
    page: str
    letter: str


RAIL: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    ("", (Entry("Overview", "overview", "o"),)),
    ("Customers", (Entry("Users", "users", "u"), Entry("Refusals", "refusals", "r"), Entry("Usage", "usage", "s"))),
    (
        "Catalogue",
        (Entry("Plans", "plans", "p"), Entry("Rate cards", "rate-cards", "c"), Entry("Promo codes", "codes", "m")),
    ),
    ("Operation", (Entry("Webhooks", "webhooks", "w"), Entry("Health", "health", "h"))),
)
