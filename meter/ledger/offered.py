"""What processes offer back of a lost partition, and what of it the store does not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from meter.clock import NEVER_MS
from meter.engine.answers import EXTRA, FINGERPRINT, KEY
from meter.engine.operations import ADJUSTMENT
from meter.engine.outbox import Draw, Entry, Kind
from meter.ledger.pending_grants import grant_operation, is_promised, told_of
from meter.store.base import Store
from meter.store.rows import GrantRow

RESERVATIONS_PER_CALL = 1_000
PENDING_PER_PAGE = 500


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


async def with_durable_grants(store: Store, offered: Sequence[Entry]) -> list[Entry]:
    """What is offered of a partition, behind the durable grants of its users that the store has not booked. Redis had
    those before anybody spent of them: without them that spending would be refused for want of credits, and the credits
    be there all the same. Raises `StoreUnavailable`.
    """
    users = {entry.user_id for entry in offered}
    told = {(entry.user_id, entry.text("grant_id")): entry for entry in offered if entry.brings_a_grant}
    grants: list[Entry] = []
    after: tuple[int, str, str] | None = None
    while rows := await store.pending_grants(NEVER_MS, PENDING_PER_PAGE, after):
        ours = [row for row in rows if row.user_id in users and is_promised(row)]
        grants += [_granted(row, told.get((row.user_id, row.grant_id))) for row in ours]
        after = (rows[-1].created_at_ms, rows[-1].user_id, rows[-1].grant_id)
    return [*grants, *(entry for entry in offered if not entry.brings_a_grant)]


def _granted(row: GrantRow, told: Entry | None) -> Entry:
    """The entry of a grant, as lua/operations/grant.lua books it; `told`: what is known of its answer."""
    asked = grant_operation(row, told_of(row), late=True)
    detail: dict[str, object] = {
        "grant_id": row.grant_id,
        "priority": row.priority,
        "effective_at": row.effective_at_ms or row.created_at_ms,
        "expires_at": row.expires_at_ms,
        "source": row.source,
        **({"at_end": row.at_end} if row.at_end else {}),
        **({"only": row.only} if row.only else {}),
        **({"fingerprint": asked[FINGERPRINT]} if asked[FINGERPRINT] else {}),
        **orjson.loads(f"{{{asked[EXTRA]}}}"),
    }
    return Entry(
        epoch=0,
        seq=0,
        prev="-",
        transaction_id="" if told is None else told.transaction_id,
        operation_id=asked[KEY],
        kind=Kind.ADJUST if row.source == ADJUSTMENT else Kind.GRANT,
        user_id=row.user_id,
        amount=row.amount,
        draws=(Draw(row.grant_id, row.amount, row.amount, 0),),
        available=0 if told is None else told.available,
        reserved=0 if told is None else told.reserved,
        debt=0 if told is None else told.debt,
        created_at_ms=row.created_at_ms,
        detail=detail,
    )


def _reservation(entry: Entry) -> str:
    return str(entry.text("reservation_id"))


def described(entry: Entry) -> str:
    """One for people: what is known of it."""
    name = entry.transaction_id or entry.text("reservation_id")
    return f"{name} {entry.kind} {entry.user_id} {entry.amount}"
