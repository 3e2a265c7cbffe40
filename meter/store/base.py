"""What `meter` asks of a durable store. One contract test suite runs on every implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meter.errors import MeterError, StoreUnavailable
from meter.store.catalog import Catalog
from meter.store.rows import (
    AccountRow,
    AlertRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    ReservationRow,
    TransactionRow,
    WatermarkRow,
)
from meter.store.sums import Sum, Wanted
from meter.store.top_up_rows import TopUpRow
from meter.store.usage import NOTHING_ADDED, Added, UsageStore
from meter.store.usage_rows import UsageGapRow
from meter.store.users import UserStore


class StoreMismatch(MeterError):
    """The store was made with other settings, or by a newer version: the process must not start."""


__all__ = ["Flush", "Flushed", "Store", "StoreMismatch", "StoreUnavailable"]


class StoreRefused(MeterError):
    """The store refuses a row for good: another row has its key, or a value fits no column. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Flush:
    """One partition's step from `expected` to `reached`: everything in it is committed together or not at all.

    Accounts, grants and reservations are whole snapshots: they replace what is there. A reservation or grant row that
    is replaced keeps its `description`, `metadata`, `reference`, `operation_id` and `fingerprint`, a
    reservation its `created_at_ms` too.
    """

    partition: int
    expected: WatermarkRow | None
    """The watermark that the flush was computed from; None when the partition was never flushed."""
    reached: WatermarkRow
    transactions: Sequence[TransactionRow] = ()
    accounts: Sequence[AccountRow] = ()
    grants: Sequence[GrantRow] = ()
    reservations: Sequence[ReservationRow] = ()
    operations: Sequence[OperationRow] = ()
    alerts: Sequence[AlertRow] = ()
    top_ups: Sequence[TopUpRow] = ()
    """Requests that are new; one that is there already stays as it is."""
    events: Sequence[EventRow] = ()
    quarantine: Sequence[QuarantineRow] = ()
    renamed: Sequence[tuple[str, str]] = ()
    """(before, after): paths whose usage figures of until then are another's; what gaps have of them is outdated."""
    usage: Added = NOTHING_ADDED
    """What is added to the usage figures; of a path that is renamed, under its other name."""
    gaps: Sequence[UsageGapRow] = ()
    revoked_keys: Sequence[str] = ()
    """key_ids that the ledger says are revoked: so are their rows, whoever did not come to write that."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of a flush. Not `done`: another flusher moved the watermark first, and nothing was written."""

    done: bool
    repeated_operations: Sequence[str] = field(default=())
    """operation_ids that the store knew already under another transaction; the first one stays."""


class Store(Catalog, UsageStore, UserStore, Protocol):
    """A durable store. Every method raises `StoreUnavailable`; each is atomic, and safe to call from many processes."""

    async def open(self, settings: Mapping[str, str]) -> None:
        """Connects, migrates under one lock, and checks the deployment's settings (kept at the first start).

        Raises `StoreMismatch` for other settings or a schema newer than this code.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...

    async def ping(self) -> None:
        """Returns when the store answers."""
        ...

    async def watermark(self, partition: int) -> WatermarkRow | None:
        """How far the partition has been flushed."""
        ...

    async def accounts(self, user_ids: Sequence[str]) -> dict[str, AccountRow]:
        """The accounts that exist, by user_id."""
        ...

    async def grants(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], GrantRow]:
        """The grants that exist, by (user_id, grant_id)."""
        ...

    async def reservations(self, reservation_ids: Sequence[str]) -> dict[str, ReservationRow]:
        """The reservations that exist, by id."""
        ...

    async def apply(self, flush: Flush) -> Flushed:
        """Commits a flush if the watermark still is `flush.expected`, else does nothing (compare-and-set)."""
        ...

    async def move_epoch(self, expected: WatermarkRow | None, reached: WatermarkRow) -> bool:
        """Moves a watermark alone, by compare-and-set: fences every flusher of the epoch before."""
        ...

    async def add_pending_grant(self, grant: GrantRow) -> GrantRow | None:
        """Inserts a pending grant. Answers the grant that already has that id (or operation_id) instead, if any."""
        ...

    async def drop_pending_grant(self, user_id: str, grant_id: str) -> None:
        """Removes a grant that Redis refused; one that was applied stays."""
        ...

    async def pending_grants(
        self, created_before_ms: int, limit: int, after: tuple[int, str, str] | None = None
    ) -> list[GrantRow]:
        """Grants still pending, oldest first; after that (created_at_ms, user_id, grant_id)."""
        ...

    async def transaction(self, transaction_id: str) -> TransactionRow | None:
        """One transaction."""
        ...

    async def sums(self, wanted: Wanted, after: str, limit: int) -> list[Sum]:
        """Sums of transactions by key, in an order of the store's own that pages may follow, after that key."""
        ...

    async def refunded(self, transaction_id: str) -> int:
        """Units refunded of a charge so far."""
        ...

    async def history(
        self,
        user_id: str,
        *,
        kinds: Sequence[str] = (),
        reference: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        before_seq: int | None = None,
        limit: int,
    ) -> list[TransactionRow]:
        """A user's transactions, newest first; `from_ms` inclusive, `to_ms` exclusive, `before_seq` exclusive. With a
        `reference` those that have it, or have it as their operation_id.
        """
        ...

    async def traced(
        self, reference: str, *, before: tuple[int, int, int] | None = None, limit: int
    ) -> list[TransactionRow]:
        """The transactions of a reference, whoever's they are, newest first: by (created_at_ms, seq, partition), before
        that place.
        """
        ...

    async def transaction_at(self, user_id: str, at_ms: int) -> TransactionRow | None:
        """A user's last transaction at or before a time: its balances are those of that time."""
        ...

    async def grants_of(
        self, user_id: str, *, after: tuple[int, str] | None = None, limit: int, expires_before_ms: int | None = None
    ) -> list[GrantRow]:
        """A user's grants by (created_at_ms, grant_id), after that pair; with `expires_before_ms` only live ones that
        end before that time, and by their end.
        """
        ...

    async def reservations_of(
        self, user_id: str, *, state: str | None, after: tuple[int, str] | None = None, limit: int
    ) -> list[ReservationRow]:
        """A user's reservations by (created_at_ms, reservation_id), after that pair."""
        ...

    async def scan_accounts(self, partition: int, after_user_id: str, limit: int) -> list[AccountRow]:
        """Accounts of a partition by user_id, after that one."""
        ...

    async def live_grants(self, user_ids: Sequence[str]) -> list[GrantRow]:
        """Applied grants of those users with something remaining, reserved or scheduled; so an ended one while open
        reservations hold some of it.
        """
        ...

    async def open_reservations(self, user_ids: Sequence[str]) -> list[ReservationRow]:
        """Open reservations of those users."""
        ...

    async def operations_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[OperationRow]:
        """Operations made since a time, by (created_at_ms, operation_id), after that pair."""
        ...

    async def reservations_ended_since(
        self, partition: int, since_ms: int, after: tuple[int, str] | None, limit: int
    ) -> list[ReservationRow]:
        """Reservations that ended since a time, by (ended_at_ms, reservation_id), after that pair."""
        ...

    async def put_events(self, events: Sequence[EventRow]) -> None:
        """Adds ledger events; one that is there already stays."""
        ...

    async def events(
        self, *, kind: str | None = None, user_id: str | None = None, before: tuple[int, str] | None = None, limit: int
    ) -> list[EventRow]:
        """Ledger events, newest first, before that (created_at_ms, event_id)."""
        ...
