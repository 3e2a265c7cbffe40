"""What the store in memory has, as the checker of the fault suite reads it."""

from __future__ import annotations

from typing import Any

from meter.store.base import Store
from meter.store.plan_rows import SubscriptionRow
from tests.faults.checker.evidence import Balance, Row, Side


class Rows:
    """Looks into the tables themselves."""

    def __init__(self, store: Store) -> None:
        self._tables: Any = store._tables  # type: ignore[attr-defined]

    def place(self) -> tuple[int, int, str]:
        """Epoch, seq and head of the watermark."""
        found = self._tables.watermarks.get(0)
        return (found.epoch, found.seq, found.head) if found else (0, 0, "-")

    def transactions(self) -> list[Row]:
        """By seq."""
        rows = sorted(self._tables.transactions.values(), key=lambda row: row.seq)
        return [
            Row(
                *(row.seq, row.epoch, row.transaction_id, row.kind, row.user_id, row.amount),
                *(row.available_after, row.reserved_after, row.debt_after, row.created_at_ms),
                *(row.operation_id or "", row.reservation_id or "", row.reference or "", row.detail or {}),
            )
            for row in rows
        ]

    def side(self) -> Side:
        """Accounts, live grants, open holds."""
        tables = self._tables
        return Side(
            accounts={
                a.user_id: Balance(
                    *(a.available, a.reserved, a.debt, a.granted, a.expired, a.voided, a.overdraft_limit, a.spent)
                )
                for a in tables.accounts.values()
            },
            grants={
                (g.user_id, g.grant_id): (g.remaining, g.reserved)
                for g in tables.grants.values()
                if g.remaining + g.reserved > 0 and not g.pending
            },
            holds={h.reservation_id: (h.user_id, h.amount) for h in tables.reservations.values() if h.state == "open"},
            place=self.place(),
        )

    def subscribed(self) -> dict[str, list[str]]:
        """What subscriptions say they gave."""
        found = self._tables.catalog.get(SubscriptionRow, {}).values()
        return {row.user_id: [one[0] for one in row.given or []] for row in found}

    def pending(self) -> int:
        """Grants that Redis has not applied yet."""
        return sum(grant.pending for grant in self._tables.grants.values())

    def quarantine(self) -> list[int]:
        return [row.seq for row in self._tables.quarantine.values()]
