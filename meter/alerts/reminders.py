"""The reminder: credits that end within so many days are told once per grant and number of days.

From the store, so it knows what was flushed; in pages by time, so that what was missed is caught up.
"""

from __future__ import annotations

from hashlib import blake2b

from meter.clock import DAY_MS
from meter.store.base import Store
from meter.store.rows import AlertRow, GrantRow

GRANTS_PER_PAGE = 1_000
PAGES_MAX = 10_000


async def remind_of_ends(store: Store, now_ms: int, days: tuple[int, ...]) -> int:
    """Puts the alerts of grants that end within so many days into the store; answers how many grants those are."""
    if not days:
        return 0
    found = 0
    after: tuple[int, str, str] = (now_ms, "\x7f", "")
    for _ in range(PAGES_MAX):
        rows = await store.find(
            GrantRow,
            {"state": "active"},
            order_by="expires_at_ms",
            until=now_ms + days[-1] * DAY_MS,
            after=after,
            limit=GRANTS_PER_PAGE,
        )
        await store.insert_many([_alert(row, days, now_ms) for row in rows if row.remaining > 0])
        found += sum(row.remaining > 0 for row in rows)
        if len(rows) < GRANTS_PER_PAGE:
            break
        after = (rows[-1].expires_at_ms, rows[-1].user_id, rows[-1].grant_id)
    return found


def _alert(row: GrantRow, days: tuple[int, ...], now_ms: int) -> AlertRow:
    """The alert of the nearest number of days; `days` ascend."""
    number = next(days_ for days_ in days if row.expires_at_ms <= now_ms + days_ * DAY_MS)
    name = blake2b(f"{row.user_id} {row.grant_id}".encode(), digest_size=15).hexdigest()
    return AlertRow(
        alert_id=f"expiring_credits.{name}.{row.created_at_ms}.{number}",
        kind="expiring_credits",
        user_id=row.user_id,
        payload={
            "grant_id": row.grant_id,
            "remaining": row.remaining,
            "expires_at_ms": row.expires_at_ms,
            "days": number,
        },
        created_at_ms=now_ms,
    )
