"""From an outbox entry to the rows that it alone decides: its transaction, and the alerts that it raised.

And from an error about a user to its alert, whoever found the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

from pydantic import JsonValue

from meter.engine.outbox import Entry, Kind
from meter.store.rows import AlertRow, EventRow, ReservationRow, Row, TransactionRow

_R = TypeVar("_R", bound=Row)


def transaction_row(partition: int, entry: Entry, of_reservation: str | None = None) -> TransactionRow:
    """The ledger row of an entry; `of_reservation` is the reference of the reservation that it belongs to."""
    rest = entry.detail.copy()
    member = rest.pop
    values: dict[str, object] = {
        "transaction_id": entry.transaction_id,
        "partition": partition,
        "epoch": entry.epoch,
        "seq": entry.seq,
        "kind": str(entry.kind),
        "user_id": entry.user_id,
        "amount": entry.amount,
        "available_after": entry.available,
        "reserved_after": entry.reserved,
        "debt_after": entry.debt,
        "created_at_ms": entry.created_at_ms,
        "operation_id": entry.operation_id or None,
        "reservation_id": text_of(member("reservation_id", None)),
        "refund_of": text_of(member("refund_of", None)),
        "reference": text_of(member("reference", None)) or of_reservation or own_key(entry.operation_id),
        "draws": [[draw.grant_id, draw.amount] for draw in entry.draws if draw.amount],
        "detail": rest,
        "description": text_of(member("description", None)),
        "metadata": member("metadata", None),
    }
    return _row(TransactionRow, values)


def own_key(operation_id: str | None) -> str | None:
    """The caller's idempotency key; one with a blank is of our own making."""
    return operation_id if operation_id and " " not in operation_id else None


def alerts_of(entry: Entry) -> list[AlertRow]:
    """The alerts of an entry. Their ids name the transaction, so that a replay of the flush adds none."""
    alerts = entry.detail.get("alerts")
    if alerts is None and entry.kind is not Kind.GRANT_EXPIRED:
        return []
    fired = [(str(kind), int(units)) for kind, units in alerts] if isinstance(alerts, list) else []
    found = [_alert(entry, kind, f"{kind}.{units}", {"threshold": units}) for kind, units in fired]
    if entry.kind is Kind.GRANT_EXPIRED:
        members: dict[str, JsonValue] = {"grant_id": str(entry.detail["grant_id"]), "amount": entry.amount}
        found.append(_alert(entry, "credits_expired", "credits_expired", members))
    return found


def error_alert(event: EventRow, user_id: str, at_ms: int, about: Mapping[str, JsonValue]) -> AlertRow:
    """The alert of an error about a user. Its id names the event, so that the error is told as often as it is kept."""
    return AlertRow(
        alert_id=f"transaction_error.{event.event_id}",
        kind="transaction_error",
        user_id=user_id,
        payload={"event_id": event.event_id, "message": event.message, **about},
        created_at_ms=at_ms,
    )


def draws_of(row: TransactionRow | ReservationRow) -> tuple[tuple[str, int], ...]:
    """The draws of a row as (grant_id, amount)."""
    draws = row.draws if isinstance(row.draws, list) else []
    return tuple((str(draw[0]), int(str(draw[1]))) for draw in draws if isinstance(draw, list))


def _alert(entry: Entry, kind: str, name: str, members: dict[str, JsonValue]) -> AlertRow:
    return unchecked(
        AlertRow,
        alert_id=f"{entry.transaction_id}.{name}",
        kind=kind,
        user_id=entry.user_id,
        payload={**members, "available": entry.available, "transaction_id": entry.transaction_id},
        created_at_ms=entry.created_at_ms,
        state="due",
        next_attempt_at_ms=0,
        version=1,
    )


def unchecked(model: type[_R], **values: object) -> _R:
    """A row without validation: every value comes from a script. What is not given has its default."""
    return _row(model, {**_defaults(model), **values})


def copied(row: _R) -> _R:
    """A copy for `amend`."""
    return _row(type(row), row.__dict__.copy())


def amend(row: Row, changed: Mapping[str, object]) -> None:
    """Changes a row in place, without validation: one that nobody else has seen yet."""
    row.__dict__.update(changed)


def _row(model: type[_R], values: dict[str, object]) -> _R:
    """What `model_construct` does with every field given, in a fraction of its time: a flush makes many rows."""
    row = model.__new__(model)
    put = object.__setattr__
    put(row, "__dict__", values)
    put(row, "__pydantic_fields_set__", _fields(model))
    put(row, "__pydantic_extra__", None)
    put(row, "__pydantic_private__", None)
    return row


@cache
def _fields(model: type[Row]) -> set[str]:
    return set(model.model_fields)


@cache
def _defaults(model: type[Row]) -> dict[str, object]:
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}


def text_of(value: object) -> str | None:
    """The text of a member that may be missing."""
    return None if value is None else str(value)
