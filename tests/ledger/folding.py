"""A whole fold in one call."""

from __future__ import annotations

from collections.abc import Sequence

from meter.engine.outbox import Entry, Unread
from meter.ledger.chain import Known
from meter.ledger.fold import Fold
from meter.store.base import Flush
from meter.store.rows import WatermarkRow


def fold(
    partition: int, expected: WatermarkRow | None, entries: Sequence[Entry | Unread], known: Known, now_ms: int
) -> Flush:
    """One step over all `entries`."""
    step = Fold(partition, expected, known, now_ms)
    step.take(entries)
    return step.flush()
