"""Rows for the store tests, valid and short to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meter.store.base import Flush
from meter.store.rows import (
    AccountRow,
    AlertRow,
    DeliveryRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    ReservationRow,
    TransactionRow,
    WatermarkRow,
    WebhookRow,
)
from meter.store.top_up_rows import TopUpRow

T0 = 1_700_000_000_000
BIGGEST = 2**53 - 1


def watermark(seq: int, *, epoch: int = 1, partition: int = 0, head: str | None = None) -> WatermarkRow:
    name = head or f"{partition}-{seq}-lane-1"
    return WatermarkRow(partition=partition, epoch=epoch, seq=seq, head=name, updated_at_ms=T0 + seq)


def transaction(seq: int, user_id: str = "user-1", **members: Any) -> TransactionRow:
    given = {"transaction_id": f"0-{seq}-lane-1", "partition": 0, "epoch": 1, "seq": seq, "kind": "deduct", "amount": 5}
    after = {"available_after": 95, "reserved_after": 0, "debt_after": 0, "created_at_ms": T0 + seq}
    return TransactionRow(**{**given, **after, "user_id": user_id, **members})


def account(user_id: str = "user-1", **members: Any) -> AccountRow:
    return AccountRow(**{"user_id": user_id, "partition": 0, "available": 95, "last_seq": 1, **members})


def grant(grant_id: str = "grant-1", user_id: str = "user-1", **members: Any) -> GrantRow:
    given = {"user_id": user_id, "grant_id": grant_id, "partition": 0, "amount": 100, "remaining": 100}
    times = {"effective_at_ms": T0, "expires_at_ms": T0 + 1_000_000, "created_at_ms": T0}
    return GrantRow(**{**given, **times, **members})


def reservation(reservation_id: str = "hold-1", user_id: str = "user-1", **members: Any) -> ReservationRow:
    given = {"reservation_id": reservation_id, "user_id": user_id, "partition": 0, "amount": 5}
    times = {"expires_at_ms": T0 + 300_000, "created_at_ms": T0}
    return ReservationRow(**{**given, **times, "draws": [["grant-1", 5]], **members})


def operation(operation_id: str, transaction_id: str, **members: Any) -> OperationRow:
    given = {"partition": 0, "operation_id": operation_id, "transaction_id": transaction_id, "created_at_ms": T0}
    return OperationRow(**{**given, **members})


def event(event_id: str, **members: Any) -> EventRow:
    return EventRow(**{"event_id": event_id, "kind": "system", "message": "hello", "created_at_ms": T0, **members})


def alert(alert_id: str, **members: Any) -> AlertRow:
    given = {"alert_id": alert_id, "kind": "low_credit", "user_id": "user-1", "created_at_ms": T0}
    return AlertRow(**{**given, **members})


def delivery(delivery_id: str, **members: Any) -> DeliveryRow:
    given = {"alert_id": "a", "target": "w", "kind": "low_credits", "user_id": "user-1", "created_at_ms": T0}
    return DeliveryRow(**{"delivery_id": delivery_id, **given, **members})


def top_up(top_up_id: str, **members: Any) -> TopUpRow:
    given = {"user_id": "user-1", "below": 50, "amount": 200, "period": "month", "reference": "cus_1"}
    return TopUpRow(**{"top_up_id": top_up_id, **given, "created_at_ms": T0, "next_attempt_at_ms": T0, **members})


def webhook(webhook_id: str, **members: Any) -> WebhookRow:
    given = {"url": "https://example.com/", "secret": "whsec_x", "created_at_ms": T0, "updated_at_ms": T0}
    return WebhookRow(**{"webhook_id": webhook_id, **given, **members})


def poison(seq: int, **members: Any) -> QuarantineRow:
    given = {"partition": 0, "seq": seq, "text": "[1,", "reason": "not JSON", "created_at_ms": T0}
    return QuarantineRow(**{**given, **members})


def flush(expected: WatermarkRow | None, transactions: Sequence[TransactionRow] = (), **rows: Any) -> Flush:
    """A step of partition 0 over some transactions; without any, of one seq."""
    before = expected.seq if expected else 0
    reached = rows.pop("reached", None) or watermark(transactions[-1].seq if transactions else before + 1)
    return Flush(0, expected, reached, transactions=transactions, **rows)
