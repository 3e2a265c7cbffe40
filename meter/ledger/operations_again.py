"""From rows of the store, and from entries that only Redis had, back to operations: what a rebuild runs."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from meter.engine import operations, upkeep
from meter.engine.answers import FINGERPRINT
from meter.engine.at_end import read_at_end
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import Entry
from meter.engine.upkeep import KeptGrant, KeptReservation
from meter.ledger.entry_rows import draws_of
from meter.ledger.fold import CHOSEN, is_chosen
from meter.store.rows import AccountRow, GrantRow, OperationRow, ReservationRow, TransactionRow


def restore_operation(account: AccountRow, grants: Sequence[GrantRow], holds: Sequence[ReservationRow]) -> Operation:
    """The operation that puts an account back."""
    return upkeep.restore(
        account.user_id,
        overdraft_limit=account.overdraft_limit,
        suspended=account.suspended,
        thresholds=account.low_credit_thresholds,
        debt=account.debt,
        granted=account.granted,
        spent=account.spent,
        expired=account.expired,
        voided=account.voided,
        metadata="" if account.profile is None else orjson.dumps(account.profile).decode(),
        grants=[_kept_grant(grant) for grant in grants],
        reservations=[_kept_reservation(hold) for hold in holds],
    )


def recall_operation(row: OperationRow) -> Operation:
    """The operation that makes a key answer as before; a key without a kept answer refuses every body."""
    if row.operation_id.startswith(CHOSEN):
        name = row.operation_id.removeprefix(CHOSEN)
        return upkeep.recall("reservation", name, row.fingerprint, row.answer)
    return upkeep.recall("key", row.operation_id, row.fingerprint, row.answer)


def recall_end(row: ReservationRow) -> Operation | None:
    """The operation that makes a finished reservation answer as before; None for one that was taken back, which nothing
    remembers.
    """
    if row.state == "released" and row.answer is None:
        return None
    return upkeep.recall_end(
        row.reservation_id,
        user_id=row.user_id,
        state=row.state,
        amount=row.amount,
        charged=row.charged,
        requested=row.requested,
        ended_at_ms=row.ended_at_ms or 0,
        answer=row.answer,
    )


def operation_again(entry: Entry, now_ms: int) -> Operation | None:
    """What does again what an entry did, under its key or one that makes it once; None for what happens by itself."""
    key = entry.operation_id or f"again {entry.transaction_id}"
    told = operations.members(entry.text("description"), entry.detail.get("metadata"), entry.text("reference"))
    one = _again(entry, now_ms, Asked(key, told))
    return None if one is None else as_asked(one, entry)


def refund_again(entry: Entry, charge: TransactionRow, refunded: int) -> Operation:
    """`operation_again` of a refund whose charge the store has."""
    one = operations.refund(
        entry.user_id,
        charge.transaction_id,
        entry.amount,
        charged=charge.amount,
        refunded=refunded,
        draws=draws_of(charge),
        asked=Asked(entry.operation_id or f"again {entry.transaction_id}"),
    )
    return as_asked(one, entry)


def as_asked(one: Operation, entry: Entry) -> Operation:
    """An operation with the fingerprint of what the caller asked for then."""
    asked = entry.text("fingerprint")
    return one if asked is None else (*one[:FINGERPRINT], asked, *one[FINGERPRINT + 1 :])


def _again(entry: Entry, now_ms: int, asked: Asked) -> Operation | None:
    detail, user_id = entry.detail, entry.user_id
    reservation_id = str(detail.get("reservation_id", ""))
    if entry.kind == "deduct":
        on_debt = entry.amount > sum(draw.amount for draw in entry.draws)
        return operations.deduct(user_id, entry.amount, "overdraft" if on_debt else "partial", asked)
    if entry.kind == "reserve":
        ttl_ms = max(int(str(detail["expires_at"])) - now_ms, 1)
        at_end = str(detail.get("at_end", "release"))
        return operations.reserve(
            user_id, reservation_id, entry.amount, ttl_ms, chosen=is_chosen(entry), at_end=at_end, asked=asked
        )
    if entry.kind == "extend":
        ttl_ms = max(int(str(detail["expires_at"])) - now_ms, 1)
        return operations.extend(reservation_id, ttl_ms, entry.amount, asked)
    if entry.kind == "commit" and detail.get("at_end") != "charge":
        return operations.commit(reservation_id, entry.amount, "overdraft", asked)
    if entry.kind == "release" and detail.get("withdrawn"):
        return upkeep.withdraw(reservation_id, None, asked.key)
    if entry.kind == "release":
        return operations.release(reservation_id, asked)
    if entry.kind == "void":
        return operations.void(user_id, str(detail["grant_id"]), asked)
    if entry.kind == "grant":
        return operations.grant(
            user_id,
            str(detail["grant_id"]),
            entry.amount,
            priority=int(str(detail["priority"])),
            effective_at_ms=int(str(detail["effective_at"])),
            expires_at_ms=int(str(detail["expires_at"])),
            source=str(detail["source"]),
            at_end=read_at_end(entry.text("at_end")),
            asked=asked,
        )
    if entry.kind == "refund":
        # The charge is lost itself, under this id; what the customer was given back stays given.
        return operations.grant(user_id, f"again-{entry.transaction_id}", entry.amount, source="refund", asked=asked)
    if entry.kind == "account":
        thresholds = str(detail["low_credit_thresholds"])
        return operations.configure(
            user_id,
            overdraft_limit=int(str(detail["overdraft_limit"])),
            suspended=bool(detail["suspended"]),
            thresholds=() if thresholds == "-" else tuple(map(int, thresholds.split(","))),
            metadata=orjson.dumps(detail["profile"]).decode() if "profile" in detail else "",
            asked=asked,
        )
    return None


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
    )


def _kept_reservation(row: ReservationRow) -> KeptReservation:
    return KeptReservation(
        row.reservation_id,
        row.amount,
        row.expires_at_ms,
        row.created_at_ms,
        row.at_end,
        draws_of(row),
    )
