"""From rows of the store, and from entries that only Redis had, back to operations: what a rebuild runs."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from meter.engine import operations
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import Entry
from meter.ledger.fold import CHOSEN, is_chosen
from meter.store.rows import AccountRow, GrantRow, OperationRow, ReservationRow, TransactionRow


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
        charged = "c" if hold.at_end == "charge" else ""
        text = f"{hold.user_id} {hold.amount} {hold.expires_at_ms} {hold.created_at_ms}{charged}{drawn}"
        rest += [hold.reservation_id, text]
    return operations.restore(account.user_id, *rest)


def recall_profile(account: AccountRow) -> Operation:
    """The operation that puts a user's metadata back."""
    return operations.recall(f"p {account.user_id}", orjson.dumps(account.profile).decode())


def recall_operation(row: OperationRow) -> Operation:
    """The operation that makes a key answer as before; a key without a kept answer refuses every body."""
    chosen = row.operation_id.startswith(CHOSEN)
    name = f"c {row.operation_id.removeprefix(CHOSEN)}" if chosen else f"k {row.operation_id}"
    return operations.recall(name, "- -" if row.answer is None else f"{row.fingerprint or '-'} {row.answer}")


def recall_end(row: ReservationRow) -> Operation:
    """The operation that makes a finished reservation answer as before."""
    text = f"{row.state} {row.user_id} {row.amount} {row.charged} {row.requested} {row.ended_at_ms} {row.answer or '-'}"
    return operations.recall(f"r {row.reservation_id}", text)


def refund_answer(refund: TransactionRow, left: int) -> str:
    """The answer to a refund that left so much of its charge; see lua/operations/refund.lua."""
    forfeited = int(str(refund.detail.get("forfeited", 0))) if isinstance(refund.detail, dict) else 0
    available = refund.available_after - forfeited
    return (
        f"ok {refund.user_id} {refund.transaction_id} {refund.amount} {forfeited} {left} "
        f"{available} {refund.reserved_after} {refund.debt_after}"
    )


def operation_again(entry: Entry, now_ms: int) -> Operation | None:
    """What does again what an entry did, under its key or one that makes it once; None for what happens by itself."""
    key = entry.operation_id or f"again {entry.transaction_id}"
    one = _again(
        entry, now_ms, Asked(key, operations.members(_text(entry, "description"), entry.detail.get("metadata")))
    )
    return None if one is None else as_asked(one, entry)


def refund_again(entry: Entry, charge: TransactionRow, refunded: int) -> Operation:
    """`operation_again` of a refund whose charge the store has."""
    draws = charge.draws if isinstance(charge.draws, list) else []
    one = operations.refund(
        entry.user_id,
        charge.transaction_id,
        entry.amount,
        charged=charge.amount,
        refunded=refunded,
        draws=tuple((str(draw[0]), int(str(draw[1]))) for draw in draws if isinstance(draw, list)),
        asked=Asked(entry.operation_id or f"again {entry.transaction_id}"),
    )
    return as_asked(one, entry)


def as_asked(one: Operation, entry: Entry) -> Operation:
    """An operation with the fingerprint of what the caller asked for then."""
    asked = entry.detail.get("fingerprint")
    return one if asked is None else (*one[:2], str(asked), *one[3:])


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
            at_end=str(detail.get("at_end", "")),
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


def _text(entry: Entry, name: str) -> str | None:
    found = entry.detail.get(name)
    return None if found is None else str(found)


def _grant_text(grant: GrantRow) -> str:
    """The packed text of lua/state/grant.lua; when it was shelved and where it burns are the script's to find."""
    state = {"expired": "e", "voided": "v"}.get(grant.state, "-")
    class_ = "S" if grant.state == "scheduled" else "L"
    at_end = f" {grant.at_end}" if grant.at_end else ""
    return (
        f"{grant.amount} {grant.remaining} {grant.reserved} {grant.priority} {grant.effective_at_ms} "
        f"{grant.expires_at_ms} {grant.created_at_ms} 0 {class_} {state} {grant.source}{at_end}"
    )
