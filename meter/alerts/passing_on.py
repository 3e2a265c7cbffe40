"""From alerts to deliveries: one for each target that wants it, under ids that come from the alert, so that doing it
again adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from meter.log import logger
from meter.store.base import Store, StoreRefused
from meter.store.rows import AlertRow, DeliveryRow, EventRow, WebhookRow

ALERTS_PER_PAGE = 200
DELIVERIES_AT_ONCE = 2_000
"""In one statement to the store. With many targets a page is of fewer alerts: the first attempts do not wait until the
deliveries of all are made (29,100 of 100 alerts at 291 targets take seconds on a busy machine)."""
WEBHOOKS_MAX = 500
"""Endpoints that there can be: `METER_WEBHOOKS_MAX` is at most this."""

_log = logger("meter.alerts")


async def enabled_webhooks(store: Store) -> list[WebhookRow]:
    """The endpoints that are told of alerts."""
    return await store.find(WebhookRow, {"state": "enabled"}, order_by="webhook_id", limit=WEBHOOKS_MAX)


async def pass_on(store: Store, channels: Iterable[str], now_ms: int, passed_on: Counter[str]) -> int:
    """Makes the deliveries of alerts that are due, up to a page; answers how many alerts that were. `passed_on` counts
    by kind those that no other process was first with.
    """
    alerts = await store.due(AlertRow, "due", "next_attempt_at_ms", now_ms, ALERTS_PER_PAGE)
    if not alerts:
        return 0
    names, webhooks = list(channels), await enabled_webhooks(store)
    alerts = alerts[: max(1, DELIVERIES_AT_ONCE // max(1, len(names) + len(webhooks)))]
    try:
        await _insert(store, _deliveries(alerts, names, webhooks))
        done = await store.swap_many([_in_state(alert, "passed") for alert in alerts])
    except StoreRefused:  # one of them; the others must not wait for it
        done = sum([await _pass_on_alone(store, alert, _deliveries([alert], names, webhooks)) for alert in alerts])
    passed_on.update(alert.kind for alert in alerts[:done])
    return len(alerts)


async def _insert(store: Store, rows: Sequence[DeliveryRow]) -> None:
    for first in range(0, len(rows), DELIVERIES_AT_ONCE):
        await store.insert_many(rows[first : first + DELIVERIES_AT_ONCE])


async def _pass_on_alone(store: Store, alert: AlertRow, rows: Sequence[DeliveryRow]) -> bool:
    try:
        await _insert(store, rows)
    except StoreRefused as error:
        await set_aside(store, alert.alert_id, alert.user_id, f"an alert of kind {alert.kind}: {error}", alert)
        return await store.swap(_in_state(alert, "failed"))
    return await store.swap(_in_state(alert, "passed"))


async def set_aside(store: Store, name: str, user_id: str, why: str, row: AlertRow | DeliveryRow) -> None:
    """Raises the alarm over a row that cannot be handled: a line of the log, and an event of the ledger."""
    digest = blake2b(name.encode(), digest_size=15).hexdigest()
    _log.error("set aside, because it cannot be told", id=name, why=why)
    event = EventRow(
        event_id=f"aside-{digest}",
        kind="error",
        user_id=user_id or None,
        message=f"set aside, because it cannot be told: {why}"[:500],
        detail={"id": name},
        created_at_ms=row.created_at_ms,
    )
    await store.put_events([event])


def delivery_of(alert: AlertRow, target: str) -> DeliveryRow:
    """The delivery of an alert to a target."""
    digest = blake2b(f"{alert.alert_id} {target}".encode(), digest_size=15).hexdigest()
    return DeliveryRow(
        delivery_id=f"msg_{digest}",
        alert_id=alert.alert_id,
        target=target,
        kind=alert.kind,
        user_id=alert.user_id,
        payload=alert.payload,
        created_at_ms=alert.created_at_ms,
        next_attempt_at_ms=alert.created_at_ms,
    )


def _deliveries(alerts: Sequence[AlertRow], names: Sequence[str], webhooks: Sequence[WebhookRow]) -> list[DeliveryRow]:
    return [delivery_of(alert, target) for alert in alerts for target in [*names, *_wanting(alert.kind, webhooks)]]


def _wanting(kind: str, webhooks: Sequence[WebhookRow]) -> list[str]:
    return [webhook.webhook_id for webhook in webhooks if not isinstance(webhook.kinds, list) or kind in webhook.kinds]


def _in_state(alert: AlertRow, state: str) -> AlertRow:
    return alert.model_copy(update={"state": state, "version": alert.version + 1})
