"""A user's grants and reservations, ended ones too: the rows of the store, brought up to date by what it does not have.

The entries beyond the store are followed as the flush will follow them, so a row is the same whether it was flushed or
not, and the lists may be read while nothing flushes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from meter.engine.outbox import Entry
from meter.engine.parts import is_part
from meter.errors import StoreUnavailable
from meter.ledger.chain import ChainBroken, Known
from meter.ledger.fold import Fold, unknown
from meter.ledger.tail import Tail
from meter.store.base import Store
from meter.store.rows import GrantRow, ReservationRow

After = tuple[int, str] | None
"""created_at_ms and id behind which a page begins."""

_R = TypeVar("_R", GrantRow, ReservationRow)


class Lists:
    """Pages in the order of (created_at_ms, id). Raises `StoreUnavailable`."""

    def __init__(self, tail: Tail, store: Store) -> None:
        self._tail = tail
        self._store = store

    async def grants(self, user_id: str, after: After, limit: int) -> list[GrantRow]:
        """Grants in every state, pending ones among them."""
        changed = {grant_id: row for (_, grant_id), row in (await self._changed(user_id)).grants.items()}

        async def stored(behind: After) -> list[GrantRow]:
            return await self._store.grants_of(user_id, after=behind, limit=limit)

        return await _page(stored, changed, lambda _: True, lambda row: (row.created_at_ms, row.grant_id), after, limit)

    async def reservations(self, user_id: str, state: str | None, after: After, limit: int) -> list[ReservationRow]:
        """Reservations in one state, or in all."""
        changed = (await self._changed(user_id)).reservations

        async def stored(behind: After) -> list[ReservationRow]:
            return await self._store.reservations_of(user_id, state=state, after=behind, limit=limit)

        return await _page(
            stored,
            changed,
            lambda row: state in (None, row.state) and not is_part(row.reservation_id),
            lambda row: (row.created_at_ms, row.reservation_id),
            after,
            limit,
        )

    async def _changed(self, user_id: str) -> Known:
        """The grants and reservations that the store does not have as they now are."""
        partition, entries = await self._tail.entries(user_id)
        _, grants, reservations = unknown(entries, Known())
        known = Known(
            grants=await self._store.grants(list(grants)),
            reservations=await self._store.reservations(list(reservations)),
        )
        follow = _Follower(partition, user_id, known)
        try:
            for entry in entries:
                follow(entry)
        except ChainBroken as error:
            raise StoreUnavailable(f"the store is not what Redis goes on from: {error.detail}") from error
        return known


class _Follower:
    """Follows entries from rows of which each may have seen some already: a flush may come between two readings."""

    def __init__(self, partition: int, user_id: str, known: Known) -> None:
        self._user_id = user_id
        self._fold = Fold(partition, None, known, 0)
        self._grants_seen = {key: row.last_seq for key, row in known.grants.items()}
        self._reservations_seen = {key: row.last_seq for key, row in known.reservations.items()}

    def __call__(self, entry: Entry) -> None:
        draws, detail = entry.draws, entry.detail
        draws = tuple(draw for draw in draws if entry.seq > self._grants_seen.get((self._user_id, draw.grant_id), 0))
        if entry.seq <= self._reservations_seen.get(str(detail.get("reservation_id")), 0):
            detail = {name: value for name, value in detail.items() if name != "reservation_id"}
        self._fold.follow(entry._replace(draws=draws, detail=detail))


async def _page(
    stored: Callable[[After], Awaitable[list[_R]]],
    changed: Mapping[str, _R],
    is_wanted: Callable[[_R], bool],
    place: Callable[[_R], tuple[int, str]],
    after: After,
    limit: int,
) -> list[_R]:
    """A page of what the store has, with the changed rows in the place of its own."""
    found: list[_R] = []
    while True:
        rows: list[_R] = await stored(after)
        end = place(rows[-1]) if len(rows) == limit else None
        part: list[_R] = [row for row in rows if place(row)[1] not in changed and is_wanted(row)]
        part += [row for row in changed.values() if is_wanted(row) and _lies_between(place(row), after, end)]
        found += sorted(part, key=place)
        if end is None or len(found) >= limit:
            return found[:limit]
        after = end


def _lies_between(place: tuple[int, str], after: After, end: After) -> bool:
    return (after is None or place > after) and (end is None or place <= end)
