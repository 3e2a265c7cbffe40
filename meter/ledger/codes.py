"""Promo codes: what a user gets for one, decided from the rows alone; written by one change, given by `Intake`.

A redemption is one transaction of the store: the code counts one more where it is not used up, the user has one
redemption more of that number, and a grant is pending. So a process that dies leaves nothing, or a grant that arrives;
of any number that race no more are given than the code has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from meter.clock import DAY_MS, NEVER_MS
from meter.engine import operations
from meter.engine.operations import Asked, Operation
from meter.engine.restrictions import only_text
from meter.ledger.pending_grants import pending_row
from meter.store.catalog import Catalog, Count
from meter.store.code_rows import ACTIVE, STOPPED, CodeRow, CodeTextRow, RedemptionRow
from meter.store.rows import GrantRow

COUNTED = "redeemed"
"""The column in which a code counts."""

CodeRefused = Literal["code-not-found", "code-ended", "code-used-up", "code-redeemed"]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a user gets nothing; `grant_id` is what the user got before."""

    slug: CodeRefused
    grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller told with a redemption, for the row of its grant."""

    reference: str | None = None
    metadata: Mapping[str, JsonValue] | None = None


async def code_of(store: Catalog, hmacs: Sequence[str]) -> CodeRow | None:
    """The code whose text is found by one of these."""
    for one in hmacs:
        if text := await store.get(CodeTextRow, one):
            return await store.get(CodeRow, text.code_id)
    return None


async def last_redemption(store: Catalog, code_id: str, user_id: str) -> RedemptionRow | None:
    """The user's last redemption of a code."""
    mine = {"code_id": code_id, "user_id": user_id}
    found = await store.find(RedemptionRow, mine, order_by="number", descending=True, limit=1)
    return found[0] if found else None


def decided(code: CodeRow, last: RedemptionRow | None, user_id: str, now_ms: int) -> RedemptionRow | Refused:
    """The redemption of a user who asks for a code now. Who has had it is told so whatever became of the code."""
    if code.starts_at_ms > now_ms:
        return Refused("code-not-found")
    if last is not None and last.number >= code.max_per_user:
        return Refused("code-redeemed", last.grant_id)
    if code.state == STOPPED or (code.ends_at_ms is not None and code.ends_at_ms <= now_ms):
        return Refused("code-ended")
    if code.redeemed >= code.max_total:
        return Refused("code-used-up")
    number = 1 if last is None else last.number + 1
    grant_id = f"{code.code_id}_{number}"
    return RedemptionRow(code_id=code.code_id, user_id=user_id, number=number, grant_id=grant_id, created_at_ms=now_ms)


def count_of(code: CodeRow) -> Count:
    """One redemption more, as long as there are some left and nobody has stopped the code."""
    return Count(code, COUNTED, code.max_total, ACTIVE)


def operation_of(code: CodeRow, redemption: RedemptionRow, told: Told) -> Operation:
    """The grant that a redemption gives."""
    days = code.valid_days
    return operations.grant(
        redemption.user_id,
        redemption.grant_id,
        code.amount,
        priority=code.priority,
        expires_at_ms=NEVER_MS if days is None else min(NEVER_MS, redemption.created_at_ms + days * DAY_MS),
        source="code",
        only=only_text(map(str, code.only)) if isinstance(code.only, list) else "",
        asked=Asked(key_of(redemption), operations.members(code.description, told.metadata, told.reference)),
    )


def grant_of(code: CodeRow, redemption: RedemptionRow, told: Told, one: Operation, partitions: int) -> GrantRow:
    """The pending row of that operation."""
    row = pending_row(one, partitions, "", redemption.created_at_ms)
    members = {"description": code.description, "metadata": told.metadata, "reference": told.reference}
    return row.model_copy(update=members)


def key_of(redemption: RedemptionRow) -> str:
    """The key under which Redis applies the grant; see `Intake`."""
    return f"grant {redemption.user_id} {redemption.grant_id}"
