"""From an outbox entry to the rows that it alone decides: its transaction, and the alerts that it raised.

And from an error about a user to its alert, whoever found the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from pydantic import JsonValue

from meter.engine.outbox import Draw, Entry, Kind
from meter.engine.parts import path_of
from meter.engine.rules import ACTIONS
from meter.ledger.top_up_entries import TOP_UP, shown
from meter.store.records import R, Records, row_of, to_json
from meter.store.row import Row
from meter.store.rows import AlertRow, EventRow, ReservationRow, TransactionRow

_TEXTS: dict[str, str] = {kind: str.__str__(kind) for kind in Kind}
"""Kinds as plain texts, which database drivers take as they are."""
WAS = "was"
"""The member of an entry that says which name its account had before (lua/operations/anonymise.lua)."""
COUNTERS = "counters"
"""The member that says what the levels of an entry's account have counted behind it; accounts keep it, no row does."""
BUDGET_ALERTS = "budget_alerts"
"""The member that says which alerts of budgets it raised; no row has it."""
VELOCITY_TRIPPED = "velocity_tripped"
"""The alert of a breaker, among those of budgets: it has their members, and says its action in the place of an id."""
ANONYMISED = "anonymised"
"""What the row of such an entry says instead: no row has the name."""


def transaction_row(partition: int, entry: Entry, of_reservation: str | None = None) -> TransactionRow:
    """The ledger row of an entry; `of_reservation` is the reference of the reservation that it belongs to."""
    return Records(TransactionRow, [transaction_columns(partition, entry, of_reservation)])[0]


def transaction_columns(partition: int, entry: Entry, of_reservation: str | None = None) -> tuple[object, ...]:
    """The same as `Records` takes it."""
    epoch, seq, _, transaction_id, key, kind, user_id, amount, draws, available, reserved, debt, at_ms, detail = entry
    reservation_id = refund_of = reference = description = metadata = None
    rest_text = "{}"
    if detail:
        rest = detail.copy()
        if WAS in rest:
            del rest[WAS]
            rest[ANONYMISED] = True
        member = rest.pop
        member(COUNTERS, None)
        member(BUDGET_ALERTS, None)
        if TOP_UP in rest:
            rest[TOP_UP] = shown(rest[TOP_UP])
        reservation_id, refund_of = member("reservation_id", None), member("refund_of", None)
        reference, description = member("reference", None), member("description", None)
        metadata = member("metadata", None)
        rest_text = to_json(rest) if rest else rest_text
    return (
        transaction_id,
        partition,
        epoch,
        seq,
        _TEXTS.get(kind, kind),
        user_id,
        amount,
        available,
        reserved,
        debt,
        at_ms,
        key or None,
        None if reservation_id is None else str(reservation_id),
        None if refund_of is None else str(refund_of),
        (None if reference is None else str(reference)) or of_reservation or own_key(key),
        _draws_text(draws),
        rest_text,
        None if description is None else str(description),
        None if metadata is None else to_json(metadata),
    )


def _draws_text(draws: tuple[Draw, ...]) -> str:
    """[[grant_id, amount], …] of those that moved anything. Most draw on one grant, which many before them have."""
    if len(draws) == 1 and draws[0][1]:
        return f"[[{_quoted(draws[0][0])},{draws[0][1]}]]"
    return to_json([[draw[0], draw[1]] for draw in draws if draw[1]])


@lru_cache(10_000)
def _quoted(grant_id: str) -> str:
    return to_json(grant_id)


def name_before(entry: Entry) -> str | None:
    """The name that the account of an entry had until then; None for all but an anonymisation."""
    return entry.text(WAS) if entry.kind is Kind.ACCOUNT else None


def own_key(operation_id: str | None) -> str | None:
    """The caller's idempotency key; one with a blank is of our own making."""
    return operation_id if operation_id and " " not in operation_id else None


def alerts_of(entry: Entry) -> list[AlertRow]:
    """The alerts of an entry. Their ids name the transaction, so that a replay of the flush adds none."""
    alerts, of_budgets = entry.detail.get("alerts"), entry.detail.get(BUDGET_ALERTS)
    if alerts is None and of_budgets is None and entry.kind is not Kind.GRANT_EXPIRED:
        return []
    fired = [(str(kind), int(units)) for kind, units in alerts] if isinstance(alerts, list) else []
    found = [_alert(entry, kind, f"{kind}.{units}", {"threshold": units}) for kind, units in fired]
    if entry.kind is Kind.GRANT_EXPIRED:
        members: dict[str, JsonValue] = {"grant_id": str(entry.detail["grant_id"]), "amount": entry.amount}
        found.append(_alert(entry, "credits_expired", "credits_expired", members))
    if isinstance(of_budgets, list):
        found += [_budget_alert(entry, n, *one) for n, one in enumerate(of_budgets)]
    return found


def _budget_alert(
    entry: Entry,
    number: int,
    kind: str,
    level: str,
    budget_id: str,
    unit: str,
    alert_at: int,
    used: int,
    limit: int,
    window: str,
    ends_at_ms: int,
) -> AlertRow:
    """The alert of a budget, or of a breaker, on its level, whoever reached it."""
    if kind == VELOCITY_TRIPPED:
        return _breaker_alert(entry, number, level, ACTIONS[budget_id], used, limit, int(window), ends_at_ms)
    members: dict[str, JsonValue] = {
        "budget_id": budget_id,
        "unit": "requests" if unit == "r" else "credits",
        "alert_at": alert_at / 1_000_000,
        "used": used,
        "limit": limit,
        "window": window,
        "resets_at_ms": ends_at_ms or None,
        "charged_user_id": path_of(entry.user_id, entry.detail),
        "transaction_id": entry.transaction_id,
    }
    row = _alert(entry, kind, f"{kind}.{number}", {})
    return row.model_copy(update={"user_id": level, "payload": members})


def _breaker_alert(
    entry: Entry, number: int, level: str, action: str, used: int, limit: int, per_ms: int, until_ms: int
) -> AlertRow:
    members: dict[str, JsonValue] = {
        "action": action,
        "used": used,
        "limit": limit,
        "per_seconds": per_ms // 1000,
        "tripped_until_ms": until_ms,
        "charged_user_id": path_of(entry.user_id, entry.detail),
        "transaction_id": entry.transaction_id,
    }
    row = _alert(entry, VELOCITY_TRIPPED, f"{VELOCITY_TRIPPED}.{number}", {})
    return row.model_copy(update={"user_id": level, "payload": members})


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


def unchecked(model: type[R], **values: object) -> R:
    """A row without validation: every value comes from a script. What is not given has its default."""
    return row_of(model, {**_defaults(model), **values})


def copied(row: R) -> R:
    """A copy whose `__dict__` may be changed until somebody else has seen it."""
    return row_of(type(row), row.__dict__.copy())


@cache
def _defaults(model: type[Row]) -> dict[str, object]:
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}
