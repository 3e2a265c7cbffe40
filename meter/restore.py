"""From rows of the store, and from entries that only Redis had, back to operations: what a rebuild runs."""

from __future__ import annotations

from collections.abc import Sequence

from meter import operation
from meter.operation import Call, Operation
from meter.outbox import Entry
from meter.store.rows import AccountRow, GrantRow, OperationRow, ReservationRow


def restore_operation(account: AccountRow, grants: Sequence[GrantRow], holds: Sequence[ReservationRow]) -> Operation:
    """The operation that puts an account back."""
    rest = [
        str(account.overdraft_limit),
        "1" if account.suspended else "0",
        account.low_credit_thresholds,
        *map(str, (account.debt, account.granted, account.spent, account.expired, account.voided)),
        str(len(grants)),
    ]
    for grant in grants:
        rest += [grant.grant_id, _grant_text(grant)]
    rest.append(str(len(holds)))
    for hold in holds:
        draws = hold.draws if isinstance(hold.draws, list) else []
        drawn = "".join(f" {draw[0]} {draw[1]}" for draw in draws if isinstance(draw, list))
        rest += [hold.reservation_id, f"{hold.user_id} {hold.amount} {hold.expires_at_ms} {hold.created_at_ms}{drawn}"]
    return operation.restore(account.user_id, *rest)


def recall_operation(row: OperationRow) -> Operation | None:
    """The operation that makes a key answer as before; a key without a kept answer refuses every body."""
    if row.answer is None:
        return operation.recall(f"k {row.operation_id}", "- -")
    return operation.recall(f"k {row.operation_id}", f"{row.fingerprint or '-'} {row.answer}")


def recall_end(row: ReservationRow) -> Operation:
    """The operation that makes a finished reservation answer as before."""
    text = f"{row.state} {row.user_id} {row.amount} {row.charged} {row.requested} {row.ended_at_ms} {row.answer or '-'}"
    return operation.recall(f"r {row.reservation_id}", text)


def operation_again(entry: Entry, now_ms: int) -> Operation | None:
    """What does again what an entry did; None for what happens by itself when it is due."""
    detail, call = entry.detail, Call(entry.operation_id)
    reservation_id = str(detail.get("reservation_id", ""))
    if entry.kind == "deduct":
        return operation.deduct(entry.user_id, entry.amount, "partial", call)
    if entry.kind == "reserve":
        ttl_ms = int(str(detail["expires_at"])) - now_ms
        return operation.reserve(entry.user_id, reservation_id, entry.amount, max(ttl_ms, 1), chosen=False, call=call)
    if entry.kind == "extend":
        ttl_ms = int(str(detail["expires_at"])) - now_ms
        return operation.extend(reservation_id, max(ttl_ms, 1), entry.amount, call)
    if entry.kind == "commit":
        return operation.commit(reservation_id, entry.amount, call=call)
    if entry.kind == "release":
        return operation.release(reservation_id, call)
    if entry.kind == "void":
        return operation.void(entry.user_id, str(detail["grant_id"]), call)
    if entry.kind == "grant":
        return operation.grant(
            entry.user_id,
            str(detail["grant_id"]),
            entry.amount,
            priority=int(str(detail["priority"])),
            effective_at_ms=int(str(detail["effective_at"])),
            expires_at_ms=int(str(detail["expires_at"])),
            source=str(detail["source"]),
            call=call,
        )
    if entry.kind == "refund":
        # The charge may be lost itself; what the customer was given back stays given.
        refunded = {"refund_of": str(detail["refund_of"])}
        return operation.grant(
            entry.user_id, f"again-{refunded['refund_of']}", entry.amount, source="refund", call=call
        )
    if entry.kind == "account":
        thresholds = str(detail["low_credit_thresholds"])
        return operation.configure(
            entry.user_id,
            overdraft_limit=int(str(detail["overdraft_limit"])),
            suspended=bool(detail["suspended"]),
            thresholds=() if thresholds == "-" else tuple(map(int, thresholds.split(","))),
            call=call,
        )
    return None


def _grant_text(grant: GrantRow) -> str:
    """The packed text of lua/state/grant.lua; when it was shelved and where it burns are the script's to find."""
    state = {"expired": "e", "voided": "v"}.get(grant.state, "-")
    class_ = "S" if grant.state == "scheduled" else "L"
    return (
        f"{grant.amount} {grant.remaining} {grant.reserved} {grant.priority} {grant.effective_at_ms} "
        f"{grant.expires_at_ms} {grant.created_at_ms} 0 {class_} {state} {grant.source}"
    )
