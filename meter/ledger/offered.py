"""What processes offer back of a lost partition, and what of it the store does not have."""

from __future__ import annotations

from collections.abc import Iterable

from meter.engine.outbox import Entry, Kind
from meter.store.base import Store

RESERVATIONS_PER_CALL = 1_000


async def missing(store: Store, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that the store does not have, in the order in which they were acknowledged.

    One is known by its transaction_id; a reserve, whose answer names none, by its reservation; more time or credits for
    a hold by what it holds since. Raises `StoreUnavailable`.
    """
    offered = sorted(entries, key=lambda entry: entry.seq)
    nameless = [entry for entry in offered if not entry.transaction_id]
    holds = sorted({_reservation(entry) for entry in nameless})
    held: dict[str, int] = {}
    for first in range(0, len(holds), RESERVATIONS_PER_CALL):
        rows = await store.reservations(holds[first : first + RESERVATIONS_PER_CALL])
        held |= {name: row.amount for name, row in rows.items()}
    return [entry for entry in offered if not await _is_stored(store, entry, held)]


async def _is_stored(store: Store, entry: Entry, held: dict[str, int]) -> bool:
    if entry.transaction_id:
        return await store.transaction(entry.transaction_id) is not None
    amount = held.get(_reservation(entry))
    return amount is not None and (entry.kind is Kind.RESERVE or amount >= entry.units("held"))


def _reservation(entry: Entry) -> str:
    return str(entry.text("reservation_id"))


def described(entry: Entry) -> str:
    """One for people: what is known of it."""
    name = entry.transaction_id or entry.text("reservation_id")
    return f"{name} {entry.kind} {entry.user_id} {entry.amount}"
