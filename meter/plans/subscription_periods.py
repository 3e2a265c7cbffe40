"""What a subscription is in each period, as rows. Pure: the same rows in, the same ids out, on every process.

The id of a grant is made of its subscription and period, and a changed plan begins a subscription whose id comes from
the one before: two processes that do the same step at once make one grant.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

from meter.clock import DAY_MS, NEVER_MS, period_number, period_start_ms, time_zone
from meter.engine import operations
from meter.engine.at_end import AtEnd
from meter.engine.operations import Asked, Operation
from meter.ledger.pending_grants import pending_row
from meter.store.rows import AlertRow, GrantRow, PlanRow, SubscriptionRow


def begun(user_id: str, plan: PlanRow, now_ms: int, anchor_ms: int, *, auto_renew: bool, zone: str) -> SubscriptionRow:
    """A new subscription in the period that `now_ms` lies in, counted from the anchor."""
    first = SubscriptionRow(
        user_id=user_id,
        plan_group=plan.plan_group,
        subscription_id=f"s_{secrets.token_urlsafe(9)}",
        plan_id=plan.plan_id,
        auto_renew=auto_renew,
        anchor_at_ms=anchor_ms,
        time_zone=zone,
        period_started_at_ms=anchor_ms,
        next_period_at_ms=period_start_ms(anchor_ms, plan.billing_period, 1, time_zone(zone)),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return _in_period_of(first, plan, now_ms)


def changed(row: SubscriptionRow, now_ms: int, **members: object) -> SubscriptionRow:
    """The next version of a row."""
    return row.model_copy(update={"version": row.version + 1, "updated_at_ms": now_ms, **members})


def on_plan(row: SubscriptionRow, plan: PlanRow, now_ms: int, anchor_ms: int) -> SubscriptionRow:
    """The next version of a row, on another plan: its periods count anew from the anchor."""
    fresh = begun(row.user_id, plan, now_ms, anchor_ms, auto_renew=row.auto_renew, zone=row.time_zone)
    digest = blake2b(f"{row.subscription_id} {row.version} {plan.plan_id}".encode(), digest_size=6).hexdigest()
    return fresh.model_copy(
        update={"subscription_id": f"s_{digest}", "version": row.version + 1, "unspent": row.unspent}
    )


def advanced(row: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow:
    """The next version of a row, in its next period, or in a later one when several have passed."""
    if row.next_plan_id is not None:
        return on_plan(row, plan, now_ms, row.next_period_at_ms)
    return _in_period_of(changed(row, now_ms, owed=0), plan, now_ms)


def grant_id(row: SubscriptionRow) -> str:
    """The id of the grant of a subscription's current period."""
    return f"{row.subscription_id}.{row.period}"


def grant_ids(row: SubscriptionRow) -> list[str]:
    """The ids of all grants that the current period may have, and of what rolled over of them."""
    names = [grant_id(row), *([f"{grant_id(row)}.{row.owed_version}"] if row.owed else [])]
    return [*names, *(f"{name}.rollover" for name in names)]


def period_grants(row: SubscriptionRow, plan: PlanRow, partitions: int, now_ms: int) -> list[GrantRow]:
    """The pending grants that a subscription's current period has: the plan's, and the part of a change in mid-period.

    None for a period whose credits would have ended by now (it was missed), with its validity days counted from the
    start of the period, or of the subscription within it.
    """
    expires_ms = row.next_period_at_ms
    if plan.validity_days is not None:
        begins_ms = max(row.period_started_at_ms, min(row.created_at_ms, row.next_period_at_ms))
        expires_ms = min(NEVER_MS, begins_ms + plan.validity_days * DAY_MS)
    if expires_ms <= now_ms:
        return []
    parts = [(grant_id(row), plan.credit_limit)]
    if row.owed:
        parts.append((f"{grant_id(row)}.{row.owed_version}", row.owed))
    many = [_grant(row, plan, name, amount, expires_ms) for name, amount in parts]
    return [pending_row(one, partitions, "", now_ms) for one in many]


def alert(kind: str, row: SubscriptionRow, now_ms: int) -> AlertRow:
    """The news that something became of a subscription, once per period."""
    return AlertRow(
        alert_id=f"{kind}.{grant_id(row)}",
        kind=kind,
        user_id=row.user_id,
        payload={
            "subscription_id": row.subscription_id,
            "plan_id": row.plan_id,
            "plan_group": row.plan_group,
            "period": row.period,
            "period_started_at_ms": row.period_started_at_ms,
            "next_period_at_ms": row.next_period_at_ms,
        },
        created_at_ms=now_ms,
    )


def _grant(row: SubscriptionRow, plan: PlanRow, name: str, amount: int, expires_ms: int) -> Operation:
    return operations.grant(
        row.user_id,
        name,
        amount,
        priority=plan.priority,
        expires_at_ms=expires_ms,
        source=f"plan:{plan.plan_id}"[:32],
        at_end=_at_end(row, plan, amount, expires_ms),
        asked=Asked("period"),
    )


def _at_end(row: SubscriptionRow, plan: PlanRow, amount: int, expires_ms: int) -> AtEnd:
    """What becomes of a grant at its end: a part of the limit, as of a changed plan, has that part of the cap."""
    rollover_max, rollover_ms = None, 0
    if plan.rollover_days is not None:
        percent = plan.rollover_percent
        most = plan.rollover_max or 0
        cap = most * amount // plan.credit_limit if percent is None else amount * percent // 100
        rollover_max, rollover_ms = cap, plan.rollover_days * DAY_MS
    renews = row.auto_renew and expires_ms == row.next_period_at_ms
    return AtEnd(rollover_max, rollover_ms, row.plan_group, renews)


def _in_period_of(row: SubscriptionRow, plan: PlanRow, now_ms: int) -> SubscriptionRow:
    zone, anchor_ms, unit = time_zone(row.time_zone), row.anchor_at_ms, plan.billing_period
    number = max(row.period, period_number(anchor_ms, unit, max(anchor_ms, now_ms), zone))
    times = {
        "period_started_at_ms": period_start_ms(anchor_ms, unit, number, zone),
        "next_period_at_ms": period_start_ms(anchor_ms, unit, number + 1, zone),
    }
    return row.model_copy(update={"period": number, **times})
