"""What `meter` asks of a store for rows that people make and change: plans, subscriptions, alerts, webhooks.

Rows of any model of `rows`, one at a time; a row that several processes may change has a `version`, and only who knows
the current one changes it. Part of every store, beside `base.Store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from meter.store.row import Row, VersionedRow

R = TypeVar("R", bound=Row)

Plain = str | int | bool | None
"""A value of a column that can be asked for."""


@dataclass(frozen=True, slots=True)
class Count:
    """One more in a column of a row, and in its `version`, where the column is below `most` and the row has that
    state: whoever else counts meanwhile is no hindrance.
    """

    row: VersionedRow
    column: str
    most: int
    state: str


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that are written together or not at all. Rows of any models; no row twice."""

    swaps: Sequence[VersionedRow] = ()
    """Each replaces the row that has the version before."""
    new: Sequence[Row] = ()
    """None of whose keys may be there yet."""
    missing: Sequence[Row] = ()
    """Added where their keys are not there yet; the others stay as they are."""
    counts: Sequence[Count] = ()
    """Written first. Of one that is full, or in another state, nothing of the change is done."""


class Catalog(Protocol):
    """Every method raises `StoreUnavailable`; each is atomic, and safe to call from many processes."""

    @property
    def has_transactions(self) -> bool:
        """Whether a change of several rows is done as a whole or not at all: not on a MongoDB that runs alone."""
        ...

    async def get(self, model: type[R], *key: Plain) -> R | None:
        """The row of a key, in the order of `KEY`."""
        ...

    async def insert(self, row: Row) -> bool:
        """Adds a row; False, and nothing changes, when its key (or a unique value) is there already."""
        ...

    async def swap(self, row: VersionedRow) -> bool:
        """Replaces the row that has the version before `row.version`; False when another process was first."""
        ...

    async def due(self, model: type[R], state: str, time: str, until: int, limit: int) -> list[R]:
        """Rows in that state whose `time` (a column) is at most `until`, the longest due first; those of one time in
        any order, so that a page costs what is in it, however many are due at once.
        """
        ...

    async def insert_many(self, rows: Sequence[Row]) -> int:
        """Adds rows of one model whose keys are not there yet, and answers how many; the others stay as they are."""
        ...

    async def swap_many(self, rows: Sequence[VersionedRow]) -> int:
        """`swap` for rows of one model, each on its own; answers how many were replaced."""
        ...

    async def commit(self, change: Change) -> bool:
        """Writes a change in one transaction; False, and nothing changes, when another process was first: a version has
        moved on, a count is full, or a new key is there. MongoDB without transactions writes counts, then in the order
        of the members of `Change`.
        """
        ...

    async def remove(self, rows: Sequence[Row]) -> None:
        """Removes the rows of one model that have those keys; one that is gone already is no fault."""
        ...

    async def rewrite(self, old: Sequence[R], new: Sequence[R]) -> bool:
        """Puts rows of one model, of other keys perhaps, in the place of others, in one transaction; False, and nothing
        changes, when one of the old ones is not what it was any more (its `last_seq`, where it has one). MongoDB
        without transactions adds the new ones first.
        """
        ...

    async def find(
        self,
        model: type[R],
        equal: Mapping[str, Plain],
        *,
        order_by: str,
        until: int | None = None,
        after: Sequence[Plain] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[R]:
        """Rows whose columns equal those values, by (`order_by`, key), or `descending`; `order_by` at most `until`;
        after that (`order_by`, key…) tuple in the order that is asked for.
        """
        ...


def as_it_was(model: type[Row]) -> tuple[str, ...]:
    """The columns by which a row is known to be what it was when it was read: its key, and its `last_seq`."""
    return (*model.KEY, "last_seq") if "last_seq" in model.model_fields else model.KEY


def by_model(rows: Sequence[R]) -> list[list[R]]:
    """The rows of each model, in the order in which the models come."""
    groups: dict[type[Row], list[R]] = {}
    for row in rows:
        groups.setdefault(type(row), []).append(row)
    return list(groups.values())
