"""Counts again what the usage figures do not have: the transactions of gaps, a page at a time, each once.

What it finds is what the flush would have counted, as the same code adds it up in the same order. A page is computed
from the store alone and then committed with its end, if its gap still is what it was: two workers at one, one that is
killed and a flush that goes on beside it cost time and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meter.clock import HOUR_MS
from meter.engine.parts import first_of, path_of
from meter.ledger.entry_rows import ANONYMISED
from meter.ledger.figures import (
    BUCKET_MINUTES,
    CHARGED,
    PLAIN,
    REFUND,
    Day,
    Figures,
    Tags,
    Values,
    day_of,
    gaps_before,
    tags_of_row,
)
from meter.ledger.figures_known import learn_values, reservations_of, tags_of_charges
from meter.store.base import Flush, Store
from meter.store.rows import AnonymisationRow, ReservationRow, TransactionRow, WatermarkRow
from meter.store.usage_rows import UsageGapRow

ROWS_PER_PAGE = 5_000
GAPS_MAX = 1_000
MARKS_MAX = 1_000


class _Name(NamedTuple):
    """What a path is called whose rows are not rewritten yet, up to the seq at which that was booked."""

    path: str
    seq: int


async def begin_rollup(store: Store, from_ms: int, bucket_minutes: int) -> int:
    """Begins to count everything again from the hour of a time on, unless that is under way already: then it goes on.
    Answers how many transactions are to be looked at.
    """
    from_ms -= from_ms % HOUR_MS
    gaps = await gaps_of(store)
    kept = {(await _bucket_minutes(store, gap.partition)) for gap in gaps}
    if not gaps or {gap.from_ms for gap in gaps} != {from_ms} or kept != {bucket_minutes}:
        await store.begin_rollup(from_ms, bucket_minutes, time.time_ns() // 1_000_000)
        gaps = await gaps_of(store)
    return sum(gap.until_seq - gap.after_seq for gap in gaps)


async def gaps_of(store: Store) -> list[UsageGapRow]:
    """What the figures do not have yet."""
    return await store.find(UsageGapRow, {}, order_by="partition", limit=GAPS_MAX)


async def is_counting(store: Store) -> bool:
    """Whether the figures do not have everything yet that the ledger has."""
    return bool(await gaps_of(store) or await _uncounted(store))


async def roll_up_page(store: Store, bucket_minutes: int) -> tuple[int, bool]:
    """Counts a page of the first gap; answers how many transactions that were, and whether more is left. Buckets are of
    `bucket_minutes` where there are no figures yet.
    """
    for mark in await _uncounted(store):
        counted = {"counted_seq": mark.seq, "bucket_minutes": mark.bucket_minutes or bucket_minutes}
        reached = mark.model_copy(update=counted)
        await store.apply(Flush(mark.partition, mark, reached, gaps=gaps_before(mark)))
    gaps = await gaps_of(store)
    if not gaps:
        return 0, False
    gap = gaps[0]
    names = await _names(store, gap.partition)  # before the rows: a row is rewritten while its mark is there
    rows = await store.ledger(gap.partition, gap.after_seq, gap.until_seq, ROWS_PER_PAGE)
    after_seq = rows[-1].seq if len(rows) == ROWS_PER_PAGE else gap.until_seq
    figures = await _figures(store, gap, rows, names)
    done = await store.fill_usage_gap(gap, after_seq, figures.added())
    return len(rows) if done else 0, not (done and after_seq == gap.until_seq and len(gaps) == 1)


async def _uncounted(store: Store) -> list[WatermarkRow]:
    """Partitions whose last flush was by a worker of before there were figures."""
    return [mark for mark in await store.watermarks() if gaps_before(mark)]


async def _figures(
    store: Store, gap: UsageGapRow, rows: Sequence[TransactionRow], names: Mapping[str, _Name]
) -> Figures:
    counted = [row for row in rows if row.created_at_ms >= gap.from_ms and row.kind in (*CHARGED, REFUND)]
    held = await reservations_of(store, counted)
    refunded = {row.refund_of for row in counted if row.refund_of is not None}
    refunded |= {first for row in counted if (first := first_of(row.transaction_id, row.detail)) != row.transaction_id}
    charges = await tags_of_charges(store, refunded) if refunded else {}
    told = [(row, _path(row, names), *_told(row, held, charges)) for row in counted]
    values: dict[Day, Values] = {}
    await learn_values(store, {day_of(path, row.created_at_ms) for row, path, tags, _ in told if tags != PLAIN}, values)
    figures = Figures(await _bucket_minutes(store, gap.partition), values)
    for row, path, tags, quantities in told:
        if row.kind == REFUND:
            figures.refund(path, row.created_at_ms, row.amount, tags)
        else:
            requests = int(first_of(row.transaction_id, row.detail) == row.transaction_id)
            figures.charge(path, row.created_at_ms, row.amount, tags, quantities, requests)
    return figures


def _told(
    row: TransactionRow, held: Mapping[str, ReservationRow], charges: Mapping[str, Tags]
) -> tuple[Tags, tuple[tuple[str, int], ...]]:
    if row.kind == REFUND:
        return charges.get(row.refund_of or "", PLAIN), ()
    first = first_of(row.transaction_id, row.detail)
    if first != row.transaction_id:
        return charges.get(first, PLAIN), ()
    return tags_of_row(row, held.get(row.reservation_id or ""))


def _path(row: TransactionRow, names: Mapping[str, _Name]) -> str:
    path = path_of(row.user_id, row.detail)
    name = names.get(path)
    return path if name is None or row.seq > name.seq else name.path


async def _names(store: Store, partition: int) -> dict[str, _Name]:
    """The names that are being taken out of the ledger, where their rows may still have them."""
    names: dict[str, _Name] = {}
    for mark in await store.find(AnonymisationRow, {}, order_by="user_id", limit=MARKS_MAX):
        for row in await store.history(mark.pseudonym, kinds=("account",), limit=MARKS_MAX):
            if row.partition == partition and isinstance(row.detail, dict) and row.detail.get(ANONYMISED):
                names[mark.user_id] = _Name(mark.pseudonym, row.seq)
                break
    return names


async def bucket_minutes_of(store: Store, by_default: int) -> int:
    """How long the buckets of all figures are, by what the store keeps; the setting has only then to do with it when
    there are none.
    """
    marks = await store.watermarks()
    return max((mark.bucket_minutes for mark in marks if mark.bucket_minutes), default=by_default)


async def _bucket_minutes(store: Store, partition: int) -> int:
    watermark = await store.watermark(partition)
    return (watermark.bucket_minutes if watermark else None) or BUCKET_MINUTES
