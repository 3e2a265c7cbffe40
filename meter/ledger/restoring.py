"""From rows of the store back to Redis: the operations that a rebuild runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from meter.engine import upkeep
from meter.engine.at_end import read_at_end
from meter.engine.operations import Operation
from meter.engine.parts import is_part
from meter.engine.prices import kept_end
from meter.engine.rules import levels_of, read_terms
from meter.engine.upkeep import KeptGrant, KeptReservation
from meter.ledger.caller import CHOSEN
from meter.ledger.entry_rows import draws_of
from meter.store.rows import AccountRow, GrantRow, OperationRow, ReservationRow


def restore_operation(account: AccountRow, grants: Sequence[GrantRow], holds: Sequence[ReservationRow]) -> Operation:
    """The operation that puts an account back."""
    return upkeep.restore(
        account.user_id,
        overdraft_limit=account.overdraft_limit,
        suspended=account.suspended,
        thresholds=account.low_credit_thresholds + (f"~{account.top_up}" if account.top_up else ""),
        debt=account.debt,
        granted=account.granted,
        spent=account.spent,
        expired=account.expired,
        voided=account.voided,
        metadata="" if account.profile is None else orjson.dumps(account.profile).decode(),
        rate_card=account.rate_card,
        price_multiplier=account.price_multiplier,
        rules=_rules_of(account),
        counters=account.counters or "",
        grants=[_kept_grant(grant) for grant in grants],
        reservations=[_kept_reservation(hold) for hold in holds],
    )


def calendar_operations(accounts: Iterable[AccountRow]) -> list[Operation]:
    """What brings the calendars of the time zones that their budgets name."""
    terms = [read_terms(account.rules) for account in accounts if account.rules]
    zones = {budget.zone for one in terms for budget in one.budgets} - {"UTC"}
    return [upkeep.calendars(sorted(zones))] if zones else []


def _rules_of(account: AccountRow) -> str:
    """The terms of its rules; a suspension of before levels had any is one for all below."""
    is_level = account.user_id in levels_of(account.user_id)
    return account.rules or ("0 s" if account.suspended and is_level else "")


def recall_operations(row: OperationRow) -> list[Operation]:
    """The operations that make a key answer as before; a key without a kept answer refuses every body."""
    withdrawn = upkeep.withdrawn_by(row.operation_id)
    return [_recall_operation(row)] if withdrawn is None else [_recall_operation(row), withdrawn]


def _recall_operation(row: OperationRow) -> Operation:
    if row.operation_id.startswith(CHOSEN):
        name = row.operation_id.removeprefix(CHOSEN)
        return upkeep.recall("reservation", name, row.fingerprint, row.answer)
    return upkeep.recall("key", row.operation_id, row.fingerprint, row.answer)


def recall_end(row: ReservationRow) -> Operation | None:
    """The operation that makes a finished reservation answer as before; None for one that was taken back, which nothing
    remembers, and for a part of another one.
    """
    if (row.state == "released" and row.answer is None) or is_part(row.reservation_id):
        return None
    return upkeep.recall_end(
        row.reservation_id,
        user_id=row.user_id,
        state=row.state,
        amount=row.amount,
        charged=row.charged,
        requested=row.requested,
        ended_at_ms=row.ended_at_ms or 0,
        answer=kept_end(row.price, row.api_key, row.answer, row.tags),
    )


def _kept_grant(row: GrantRow) -> KeptGrant:
    return KeptGrant(
        row.grant_id,
        row.amount,
        row.remaining,
        row.reserved,
        row.priority,
        row.effective_at_ms,
        row.expires_at_ms,
        row.created_at_ms,
        row.state,
        row.source,
        read_at_end(row.at_end),
        row.only or "",
    )


def _kept_reservation(row: ReservationRow) -> KeptReservation:
    return KeptReservation(
        row.reservation_id,
        row.amount,
        row.expires_at_ms,
        row.created_at_ms,
        row.at_end,
        draws_of(row),
        row.price or "",
        row.api_key or "",
        row.counted_seq or 0,
        row.tags or "",
    )
