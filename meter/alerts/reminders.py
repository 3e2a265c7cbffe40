"""The reminder: credits that end within so many days are told once per grant and number of days.

What is told follows from the grant and the time alone, not from when and how often this runs: each number of days whose
moment has come since the grant began, however late; and for a grant that begins with less than that, the nearest number
at once. Told as of that moment. Of a grant that has ended meanwhile nothing is told but its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from meter.clock import DAY_MS
from meter.store.base import Store
from meter.store.rows import AlertRow, GrantRow

GRANTS_PER_PAGE = 1_000

Place = tuple[int, str, str]
"""Where a page ended: expires_at_ms, user_id, grant_id."""


async def remind_page(store: Store, now_ms: int, days: Sequence[int], after: Place | None) -> tuple[int, Place | None]:
    """Puts the alerts of a page of grants that end within so many days into the store, from `after` on.

    Answers how many alerts were new, and where the next page begins; None when this was the last. It knows what was
    flushed. `days` ascend.
    """
    if not days:
        return 0, None
    rows = await store.find(
        GrantRow,
        {"state": "active"},
        order_by="expires_at_ms",
        until=now_ms + days[-1] * DAY_MS,
        after=after or (now_ms, "\x7f", ""),
        limit=GRANTS_PER_PAGE,
    )
    alerts = [alert for row in rows if row.remaining > 0 for alert in alerts_of_end(row, days, now_ms)]
    added = await store.insert_many(alerts)
    if len(rows) < GRANTS_PER_PAGE:
        return added, None
    return added, (rows[-1].expires_at_ms, rows[-1].user_id, rows[-1].grant_id)


def alerts_of_end(row: GrantRow, days: Sequence[int], now_ms: int) -> Iterator[AlertRow]:
    """What has to be told of a grant's end by now; `days` ascend."""
    for number in days:
        due_ms = row.expires_at_ms - number * DAY_MS
        if due_ms <= now_ms:
            yield _alert(row, number, max(due_ms, row.effective_at_ms))
        if due_ms <= row.effective_at_ms:
            return  # it began with less than this, so the larger numbers never came


def _alert(row: GrantRow, number: int, at_ms: int) -> AlertRow:
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
        created_at_ms=at_ms,
    )
