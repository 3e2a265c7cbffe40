"""The chain of entries: what an entry must name to follow, and what becomes of one that does not."""

from __future__ import annotations

from dataclasses import dataclass, field

from meter.ledger.figures import Day, Tags, Values
from meter.store.base import Store
from meter.store.rows import AccountRow, GrantRow, ReservationRow

QUARANTINE_MAX = 1_000
"""Quarantines that are looked through for the last one of a partition."""

UNREAD_HEAD = "?"
"""The head of a watermark whose last entry could not be read: any next entry may follow."""


class ChainBroken(Exception):
    """The outbox does not continue what the store has: history was lost or changed. `detail` says where."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unbookable(Exception):
    """The entry at `index` could be read, but what it says is no change of this ledger: a poison entry."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class UnknownKind(Exception):
    """An entry moves credits, and is of a kind that only newer code knows. `index` is its place among the entries."""

    def __init__(self, seq: int, kind: str) -> None:
        super().__init__(f"outbox entry {seq} is of the kind {kind}: upgrade this worker")
        self.index = 0


@dataclass(slots=True)
class Known:
    """The rows that entries may touch, as of the watermark. A fold puts the rows it makes in here as well."""

    accounts: dict[str, AccountRow] = field(default_factory=dict)
    grants: dict[tuple[str, str], GrantRow] = field(default_factory=dict)
    reservations: dict[str, ReservationRow] = field(default_factory=dict)
    tags: dict[str, Tags] = field(default_factory=dict)
    """What charges were for, by transaction_id; of a refund's charge that is not here and not in the store: nothing."""
    values: dict[Day, Values] = field(default_factory=dict)
    """What the usage figures of a path and day tell apart."""
    unread_seq: int = 0
    """The last entry that was put into quarantine: what it changed is not in older rows."""


async def last_unread(store: Store, partition: int) -> int:
    """The last seq of a partition that is in quarantine, or 0."""
    prefix = quarantine_prefix(partition)
    events = await store.events(kind="quarantine", limit=QUARANTINE_MAX)
    return max((int(e.event_id.removeprefix(prefix)) for e in events if e.event_id.startswith(prefix)), default=0)


def quarantine_prefix(partition: int) -> str:
    """What the event_id of a quarantined entry begins with; its seq follows."""
    return f"quarantine-{partition}-"
