"""What becomes of a request by what is known: pure, from a row and a fact to the row after it.

A request goes due -> asking -> (pending ->) settling -> ended. It is claimed before the provider is asked, and a claim
that ran out is looked up, never asked again blind. Only where the provider has not heard of the payment it is asked
again, under the same key.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from meter.clock import milliseconds, utc_time
from meter.store.top_up_rows import TopUpRow
from meter.top_ups.provider import Outcome, PaymentEvent

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
CLAIM_MS = MINUTE_MS
"""Longer than a provider may take; what was claimed for so long is looked up."""
LOOKS_MS = (5_000, MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, 6 * HOUR_MS)
"""From each look at the provider to the next; the last one for ever, as money may have been taken."""
BACKOFF_MS = (HOUR_MS, 24 * HOUR_MS)
"""From a decline to the next payment."""
DECLINES_MAX = len(BACKOFF_MS) + 1
STUCK_LOOKS = len(LOOKS_MS)
"""Looks without a result after which somebody is told: some nine hours."""
REASON_MAX_CHARS = 400


def key_of(row: TopUpRow) -> str:
    """The key of the payment at hand: the request's id, and behind a decline a number."""
    return row.top_up_id if row.declines == 0 else f"{row.top_up_id}.{row.declines + 1}"


def id_in(key: str) -> str:
    """The request that a key belongs to."""
    return key.partition(".")[0]


def claimed(row: TopUpRow, now_ms: int) -> TopUpRow:
    """The provider is about to be asked."""
    return _after(row, step="asking", asked_at_ms=now_ms, looks=0, error=None, next_attempt_at_ms=now_ms + CLAIM_MS)


def answered(row: TopUpRow, outcome: Outcome, now_ms: int) -> TopUpRow:
    """The provider has said how the payment at hand stands."""
    known = {"payment_id": outcome.payment_id or row.payment_id, "error": reason_of(outcome.reason)}
    if outcome.state == "paid":
        return _settling(row, "paid", now_ms, **known)
    if outcome.state == "pending":
        looks = row.looks + 1 if row.step == "pending" else 0
        return _after(row, step="pending", looks=looks, next_attempt_at_ms=now_ms + look_delay_ms(looks), **known)
    declines = row.declines + 1
    if declines >= DECLINES_MAX:
        return _settling(row, "declined", now_ms, declines=declines, **known)
    later = now_ms + BACKOFF_MS[declines - 1]
    return _after(row, step="due", declines=declines, looks=0, next_attempt_at_ms=later, **known)


def unanswered(row: TopUpRow, why: str, now_ms: int) -> TopUpRow:
    """Nobody knows how it stands: it is looked up after a while."""
    later = now_ms + look_delay_ms(row.looks)
    return _after(row, looks=row.looks + 1, error=reason_of(why), next_attempt_at_ms=later)


def unheard_of(row: TopUpRow, now_ms: int) -> TopUpRow:
    """The provider does not know the payment, which was claimed: it is asked now, under the same key."""
    if row.step == "pending":
        return unanswered(row, "the provider does not know the payment any more", now_ms)
    return _after(row, step="due", next_attempt_at_ms=now_ms)


def cancelled(row: TopUpRow, why: str, now_ms: int) -> TopUpRow:
    """It is not to be paid for any more, and was not."""
    return _settling(row, "cancelled", now_ms, error=reason_of(why))


def put_off(row: TopUpRow, until_ms: int, why: str) -> TopUpRow:
    """It waits, and the provider is not asked before that."""
    return _after(row, error=reason_of(why), next_attempt_at_ms=until_ms)


def ended(row: TopUpRow, now_ms: int) -> TopUpRow:
    """The account has what came of it."""
    return _after(row, state="ended", ended_at_ms=now_ms)


def told(row: TopUpRow, event: PaymentEvent, now_ms: int) -> TopUpRow | None:
    """An event of any of its payments, which may come twice, late or in any order; None where it says nothing new."""
    if event.state == "reversed":
        if row.reversed_at_ms is not None:
            return None
        was_paid = row.outcome in (None, "paid")  # what went back was there; whoever was to tell of it may be late
        known: dict[str, object] = {"reversed_at_ms": now_ms, "error": reason_of(event.reason or "the money went back")}
        return _settling(row, "paid", now_ms, **known) if was_paid else _after(row, **known)
    if event.state == "paid" and row.outcome != "paid":
        return _settling(row, "paid", now_ms, payment_id=event.payment_id or row.payment_id, error=None)
    if event.state == "declined" and event.key == key_of(row) and row.step in ("asking", "pending"):
        return answered(row, Outcome("declined", event.payment_id, event.reason), now_ms)
    return None


def is_paid_twice(row: TopUpRow, event: PaymentEvent) -> bool:
    """Whether an event tells of another payment than the one that was granted."""
    others = None not in (event.payment_id, row.payment_id) and event.payment_id != row.payment_id
    return event.state == "paid" and row.outcome == "paid" and others


def bought_since(rows: Iterable[TopUpRow], since_ms: int) -> int:
    """Units that were bought since a time, or may be under way."""
    counted = [row for row in rows if row.outcome == "paid" or row.step in ("asking", "pending")]
    return sum(row.amount for row in counted if (row.asked_at_ms or 0) >= since_ms)


def period_ms(period: str, at_ms: int) -> tuple[int, int]:
    """The start and the end of the day, week (from Monday) or month in UTC around a time."""
    day = utc_time(at_ms).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return milliseconds(day), milliseconds(day + timedelta(days=1))
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return milliseconds(monday), milliseconds(monday + timedelta(days=7))
    month = day.year * 12 + day.month - 1
    return _first_of(month), _first_of(month + 1)


def _first_of(month: int) -> int:
    return milliseconds(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))


def look_delay_ms(looks: int) -> int:
    """How long after so many looks the next one is."""
    return LOOKS_MS[min(looks, len(LOOKS_MS) - 1)]


def reason_of(text: str) -> str | None:
    """What a stranger's answer may say in the store: no control characters, and not too much."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text[:REASON_MAX_CHARS]) or None


def _settling(row: TopUpRow, outcome: str, now_ms: int, **members: object) -> TopUpRow:
    start = {"state": "open", "step": "settling", "ended_at_ms": None, "looks": 0, "next_attempt_at_ms": now_ms}
    return _after(row, outcome=outcome, **start, **members)


def _after(row: TopUpRow, **members: object) -> TopUpRow:
    return row.model_copy(update={"version": row.version + 1, **members})
