"""Lists as data: columns, rows of cells, what to say where there is none. One template shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from markupsafe import Markup

from meter.console.figures import NONE, share
from meter.console.visit import link

WHAT, AMOUNT, WHEN, AFTER, REST, HIDDEN = "c-what", "n c-amt", "c-when", "n c-after", "c-ref", "c-hide"
"""Where a cell goes on a phone, whose rows are cards: first line left and right, second line left and right, below, or
nowhere.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `place` is one of those above. `label` on a phone stands before the value where it is not empty."""

    title: str
    place: str = REST
    label: str = ""
    is_bar: bool = False

    @property
    def is_figure(self) -> bool:
        """Whether it stands on the right."""
        return self.place.startswith("n ")


@dataclass(frozen=True, slots=True)
class Table:
    """A list. `following` is the address of the next page, `empty` what is said where nothing is in it."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Markup]]
    empty: str | Markup = "Nothing yet."
    following: str = ""
    foot: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A field above a list: a text, or one of `options`."""

    name: str
    label: str
    value: str
    options: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """A list with a title of its own; `fault` where it could not be had."""

    title: str
    table: Table | None
    fault: str = ""
    links: Sequence[tuple[str, str]] = field(default_factory=tuple)
    note: str = ""


def user(user_id: str | None) -> Markup:
    """A user, who leads to his page."""
    if not user_id:
        return Markup("{}").format(NONE)
    return Markup('<a class="mono" href="{}">{}</a>').format(link("user", id=user_id), user_id)


def badge(kind: str, text: str) -> Markup:
    """A word with a shape."""
    return Markup('<span class="badge {}">{}</span>').format(kind, text)


def anchor(address: str, text: str, *, mono: bool = False) -> Markup:
    """A link."""
    return Markup('<a class="{}" href="{}">{}</a>').format("mono" if mono else "", address, text)


def mono(text: str) -> Markup:
    """An id."""
    return Markup('<span class="mono id">{}</span>').format(text)


def bar(part: Decimal, whole: Decimal, shade: str = "bs") -> Markup:
    """How much of the greatest a value is."""
    return Markup(
        '<svg class="bar" aria-hidden="true"><rect class="b0" width="100%" height="8" rx="2"/>'
        '<rect class="{}" width="{}" height="8" rx="2"/></svg>'
    ).format(shade, share(part, whole))


def two_lines(first: str | Markup, second: str | Markup) -> Markup:
    """A value, and what there is to say of it."""
    return Markup('{}<span class="l2">{}</span>').format(first, second)
