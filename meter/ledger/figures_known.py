"""What the usage figures need to know before entries are folded: what refunded charges were for, and which values the
figures of a day have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meter.clock import DAY_MS
from meter.engine.outbox import CHARGES, Entry, Kind, Unread
from meter.engine.parts import GROUP, first_of, path_of
from meter.ledger.chain import Known
from meter.ledger.figures import CHARGED, PLAIN, Day, Tags, Values, day_of, tags_of_row, values_of
from meter.store.base import Store
from meter.store.rows import ReservationRow, TransactionRow

_TELLING = ("price", "metadata", "key_id", GROUP)
"""Members of an entry that may say what a charge was for."""


async def learn_for_figures(store: Store, entries: Iterable[Entry | Unread], known: Known) -> None:
    """Reads what is not at hand. Plain charges need nothing."""
    told = [entry for entry in entries if isinstance(entry, Entry) and entry.detail]
    refunded = {str(entry.detail["refund_of"]) for entry in told if "refund_of" in entry.detail}
    made = {entry.transaction_id for entry in told}
    refunded |= {str(entry.detail[GROUP]) for entry in told if GROUP in entry.detail} - made
    if missing := refunded - known.tags.keys():
        known.tags.update(await tags_of_charges(store, missing))
    await learn_values(store, _days(told, known), known.values)


async def tags_of_charges(store: Store, transaction_ids: Iterable[str]) -> dict[str, Tags]:
    """What those charges of the ledger were for; none of a plain one."""
    rows = dict(await store.transactions(sorted(transaction_ids)))
    firsts = {name: first_of(name, row.detail) for name, row in rows.items()}
    if missing := set(firsts.values()) - rows.keys():
        rows |= await store.transactions(sorted(missing))
    held = await reservations_of(store, rows.values())
    found = {name: tags_of_row(row, held.get(row.reservation_id or ""))[0] for name, row in rows.items()}
    found |= {name: found.get(first, PLAIN) for name, first in firsts.items()}
    return {name: tags for name, tags in found.items() if tags != PLAIN}


async def reservations_of(store: Store, rows: Iterable[TransactionRow]) -> Mapping[str, ReservationRow]:
    """The reservations that charges are of."""
    ids = {row.reservation_id for row in rows if row.kind in CHARGED and row.reservation_id is not None}
    return await store.reservations(sorted(ids)) if ids else {}


async def learn_values(store: Store, days: Iterable[Day], values: dict[Day, Values]) -> None:
    """Reads which values the figures of some days have, where that is not known."""
    by_day: dict[int, list[str]] = {}
    for path, day in days:
        if (path, day) not in values:
            by_day.setdefault(day, []).append(path)
    for day, paths in sorted(by_day.items()):
        found = values_of(await store.usage_values(sorted(set(paths)), day * DAY_MS, (day + 1) * DAY_MS))
        for path in paths:
            values[path, day] = found.get(path) or Values(set(), set())


def _days(told: Iterable[Entry], known: Known) -> set[Day]:
    """The days of charges that say, or whose reservation says, what they are for, and of refunds."""
    held: set[object] = set()
    days: set[Day] = set()
    for entry in told:
        detail = entry.detail
        reservation_id = detail.get("reservation_id")
        says = any(name in detail for name in _TELLING)
        if entry.kind is Kind.RESERVE and says:
            held.add(reservation_id)
        if entry.kind is Kind.REFUND or (entry.kind in CHARGES and (says or _is_told(known, held, reservation_id))):
            days.add(day_of(path_of(entry.user_id, detail), entry.created_at_ms))
    return days


def _is_told(known: Known, held: set[object], reservation_id: object) -> bool:
    reservation = known.reservations.get(str(reservation_id))
    return reservation_id in held or (reservation is not None and bool(reservation.price or reservation.feature))
