"""Grants that are durable but that Redis may not have: applied again, by the key that makes it once."""

from __future__ import annotations

import time

from meter import operation
from meter.intake import Intake
from workers.context import Context

AGE_MS = 30_000
"""A grant this long pending is not just on its way."""
GRANTS_PER_CALL = 500
CALLS_MAX = 1_000


async def apply_pending(ctx: Context) -> int:
    """Applies what has been pending for long, oldest first; answers how many Redis has now."""
    runtime = ctx["runtime"]
    if runtime.store is None:
        return 0
    intake, applied = Intake(runtime.engine, runtime.store, ctx.get("ledger")), 0
    before_ms = time.time_ns() // 1_000_000 - AGE_MS
    for _ in range(CALLS_MAX):
        rows = await runtime.store.pending_grants(before_ms, GRANTS_PER_CALL)
        done = sum([await intake.apply_pending(row, operation.members(row.description, row.metadata)) for row in rows])
        applied += done
        if len(rows) < GRANTS_PER_CALL or not done:
            break
    return applied
