"""Transactions across all users, newest first: what the store has, what it does not have yet, and what was refused.

A list is merged from streams, each of which goes on behind a place of its own. What no index is kept for is looked for
row by row, and a page ends after `SCANNED_MAX` rows whatever it found by then: no question costs more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meter.engine.outbox import CHARGES, Kind
from meter.ledger.history import Filter, History
from meter.ledger.refusals import REFUSAL
from meter.store.base import Store
from meter.store.rows import EventRow, TransactionRow

Found = TransactionRow | EventRow

CHUNK = 200
SCANNED_MAX = 5_000
CHAIN_MAX = 200
"""Of one kind, of the rows that belong to a reservation or a charge."""
_SETTLING = (Kind.RESERVE, Kind.EXTEND, Kind.COMMIT, Kind.RELEASE, Kind.RESERVATION_EXPIRED)


class Place(NamedTuple):
    """Behind which row a stream goes on: its time, and its seq or its id."""

    at_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which transactions, as the API has them; at most one of the first three is given."""

    user_id: str | None = None
    reservation_id: str | None = None
    reference: str | None = None
    kinds: tuple[str, ...] = ()
    actor: str | None = None
    member: tuple[str, str] | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def accepts(self, row: Found) -> bool:
        """Whether a row is wanted, by all but the kind of a refusal, which is none of the ledger."""
        detail = row.detail if isinstance(row.detail, dict) else {}
        if isinstance(row, TransactionRow):
            if self.kinds and row.kind not in self.kinds:
                return False
            if self.member is not None and not _has(row.metadata, *self.member):
                return False
        elif self.member is not None or (
            self.reservation_id is not None and detail.get("reservation_id") != self.reservation_id
        ):
            return False
        return (
            (self.from_ms is None or row.created_at_ms >= self.from_ms)
            and (self.to_ms is None or row.created_at_ms < self.to_ms)
            and (self.actor is None or detail.get("actor") == self.actor)
        )


Fetch = Callable[[Place | None, int], Awaitable[Sequence[Found]]]


class Across:
    """Reads across users. Raises `StoreUnavailable`."""

    def __init__(self, history: History, store: Store) -> None:
        self._history = history
        self._store = store

    async def page(
        self, wanted: Wanted, places: Sequence[Place | None], limit: int, *, refusals: bool
    ) -> tuple[list[Found], list[Place | None] | None]:
        """Rows behind those places (of transactions and of refusals), and the places behind them; None at the end."""
        streams = [await self._transactions(wanted)]
        if refusals:
            streams.append(self._refusals(wanted))
        behind = list(places[: len(streams)])
        buffers: list[deque[Found]] = [deque() for _ in streams]
        over = [False] * len(streams)
        found: list[Found] = []
        for _ in range(SCANNED_MAX):
            for at, fetch in enumerate(streams):
                if not buffers[at] and not over[at]:
                    rows = await fetch(behind[at], CHUNK)
                    buffers[at].extend(rows)
                    over[at] = len(rows) < CHUNK
            waiting = [at for at, buffer in enumerate(buffers) if buffer]
            if not waiting:
                return found, None
            newest = max(waiting, key=lambda at: buffers[at][0].created_at_ms)
            row = buffers[newest].popleft()
            if wanted.from_ms is not None and row.created_at_ms < wanted.from_ms:
                buffers[newest].clear()
                over[newest] = True
                continue
            behind[newest] = _place_of(row, by_seq=wanted.user_id is not None)
            if wanted.accepts(row):
                found.append(row)
                if len(found) == limit:
                    break
        return found, behind

    async def chain(self, row: TransactionRow) -> list[TransactionRow]:
        """What belongs together with a transaction, oldest first: a reservation, its charge, the refunds of that."""
        charge = row
        if row.refund_of is not None:
            found = await self._store.transactions([row.refund_of])
            unflushed = [one for one in await self._history.naming([row.refund_of]) if one.kind in CHARGES]
            charge = next((one for one in (*found.values(), *unflushed)), row)
        rows = {one.transaction_id: one for one in (row, charge)}
        if charge.reservation_id is not None:
            rows |= {one.transaction_id: one for one in await self.of_reservation(charge.reservation_id)}
        charges = [one.transaction_id for one in rows.values() if one.kind in CHARGES]
        for transaction_id in charges:
            refunds = {"refund_of": transaction_id}
            stored = await self._store.find(TransactionRow, refunds, order_by="created_at_ms", limit=CHAIN_MAX)
            named = await self._history.naming([transaction_id])
            rows |= {one.transaction_id: one for one in (*stored, *named) if one.refund_of == transaction_id}
        return sorted(rows.values(), key=lambda one: one.seq)

    async def of_reservation(self, reservation_id: str) -> list[TransactionRow]:
        """The transactions of a reservation, oldest first."""
        named = await self._history.naming([reservation_id])
        rows = {one.transaction_id: one for one in named if one.reservation_id == reservation_id}
        kept = (await self._store.reservations([reservation_id])).get(reservation_id)
        if kept is not None:
            until = kept.ended_at_ms if kept.ended_at_ms is not None else kept.expires_at_ms
            for kind in _SETTLING:
                stored = await self._store.find(
                    TransactionRow,
                    {"kind": kind.value, "reservation_id": reservation_id},
                    order_by="created_at_ms",
                    after=(kept.created_at_ms - 1, ""),
                    until=until,
                    limit=CHAIN_MAX,
                )
                rows |= {one.transaction_id: one for one in stored}
        return sorted(rows.values(), key=lambda one: one.seq)

    async def _transactions(self, wanted: Wanted) -> Fetch:
        if wanted.user_id is not None:
            return self._of_user(wanted.user_id, wanted)
        if wanted.reservation_id is not None:
            return _listed(await self.of_reservation(wanted.reservation_id))
        if wanted.reference is not None:
            return _listed(await self._history.traced(wanted.reference, None, SCANNED_MAX))
        unflushed = [row for number in self._history.partitions for row in await self._history.unflushed(number)]
        return self._of_everybody(wanted, unflushed)

    def _of_user(self, user_id: str, wanted: Wanted) -> Fetch:
        async def fetch(behind: Place | None, limit: int) -> Sequence[Found]:
            before = None if behind is None else int(behind.name)
            chosen = Filter(wanted.kinds, None, wanted.from_ms, wanted.to_ms, before)
            return await self._history.page(user_id, chosen, limit)

        return fetch

    def _of_everybody(self, wanted: Wanted, unflushed: Sequence[TransactionRow]) -> Fetch:
        kinds = wanted.kinds or tuple(kind.value for kind in Kind)

        async def fetch(behind: Place | None, limit: int) -> Sequence[Found]:
            rows = {row.transaction_id: row for row in unflushed if not wanted.kinds or row.kind in wanted.kinds}
            for kind in kinds:
                stored = await self._store.find(
                    TransactionRow,
                    {"kind": kind},
                    order_by="created_at_ms",
                    until=None if wanted.to_ms is None else wanted.to_ms - 1,
                    after=behind,
                    descending=True,
                    limit=limit,
                )
                rows |= {row.transaction_id: row for row in stored}
            return _newest_first(rows.values(), behind)[:limit]

        return fetch

    def _refusals(self, wanted: Wanted) -> Fetch:
        async def fetch(behind: Place | None, limit: int) -> Sequence[Found]:
            if wanted.reference is not None:
                named = {"kind": REFUSAL, "reference": wanted.reference}
                return await self._store.find(
                    EventRow, named, order_by="created_at_ms", after=behind, descending=True, limit=limit
                )
            before = behind if behind is not None else None if wanted.to_ms is None else (wanted.to_ms, "")
            return await self._store.events(kind=REFUSAL, user_id=wanted.user_id, before=before, limit=limit)

        return fetch


def _listed(rows: Sequence[TransactionRow]) -> Fetch:
    """A stream of rows that are all there."""

    async def fetch(behind: Place | None, limit: int) -> Sequence[Found]:
        return _newest_first(rows, behind)[:limit]

    return fetch


def _newest_first(rows: Iterable[TransactionRow], behind: Place | None) -> list[TransactionRow]:
    some = [row for row in rows if behind is None or _place_of(row) < behind]
    return sorted(some, key=_place_of, reverse=True)


def _place_of(row: Found, *, by_seq: bool = False) -> Place:
    if isinstance(row, EventRow):
        return Place(row.created_at_ms, row.event_id)
    return Place(row.created_at_ms, str(row.seq) if by_seq else row.transaction_id)


def _has(metadata: object, name: str, value: str) -> bool:
    if not isinstance(metadata, dict) or name not in metadata:
        return False
    found = metadata[name]
    if isinstance(found, bool):
        return value == ("true" if found else "false")
    return value == str(found)
