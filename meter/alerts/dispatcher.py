"""The dispatcher: alerts that are due become deliveries, one per target, and deliveries that are due are attempted.

Any number of dispatchers may run. A delivery is claimed by compare-and-set before it is sent, for as long as an attempt
can take; a process that dies in between leaves a claim that runs out, and the delivery is tried again under its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from meter.alerts.notification import AsyncNotificationQueue, NotDelivered, Notification, body_of
from meter.alerts.retries import delay_ms
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.log import logger
from meter.store.base import Store
from meter.store.rows import AlertRow, DeliveryRow, WebhookRow

CLAIM_MS = 60_000
ATTEMPTS_AT_ONCE = 16
PAGE = 200
WEBHOOKS_MAX = 1_000
SWAPS_MAX = 5

_log = logger("meter.alerts")


class Dispatcher:
    """Moves alerts to their targets. `channels` take everything, webhooks what they ask for."""

    def __init__(
        self, store: Store, sender: WebhookSender, channels: Mapping[str, AsyncNotificationQueue], scale: AmountScale
    ) -> None:
        self._store = store
        self._sender = sender
        self._channels = channels
        self._scale = scale

    async def pass_on(self, now_ms: int) -> int:
        """Makes the deliveries of alerts that are due, up to a page; answers how many alerts that were."""
        alerts = await self._store.due(AlertRow, "due", "next_attempt_at_ms", now_ms, PAGE)
        if not alerts:
            return 0
        webhooks = await self._store.find(WebhookRow, {"state": "enabled"}, order_by="webhook_id", limit=WEBHOOKS_MAX)
        rows = [delivery_of(alert, target) for alert in alerts for target in self._targets_of(alert.kind, webhooks)]
        await self._store.insert_many(rows)  # by ids that come from the alert: again without effect
        passed = [one.model_copy(update={"state": "passed", "version": one.version + 1}) for one in alerts]
        await self._store.swap_many(passed)
        return len(alerts)

    async def deliver(self, now_ms: int) -> int:
        """Attempts deliveries that are due, up to a page; answers how many were attempted here."""
        rows = await self._store.due(DeliveryRow, "due", "next_attempt_at_ms", now_ms, PAGE)
        slots = asyncio.Semaphore(ATTEMPTS_AT_ONCE)

        async def in_turn(row: DeliveryRow) -> bool:
            async with slots:
                return await self._attempt(row, now_ms)

        return sum(await asyncio.gather(*map(in_turn, rows)))

    def _targets_of(self, kind: str, webhooks: Sequence[WebhookRow]) -> list[str]:
        wanting = [one.webhook_id for one in webhooks if not isinstance(one.kinds, list) or kind in one.kinds]
        return [*self._channels, *wanting]

    async def _attempt(self, row: DeliveryRow, now_ms: int) -> bool:
        """Whether it was attempted here."""
        claimed = _changed(row, attempts=row.attempts + 1, next_attempt_at_ms=now_ms + CLAIM_MS, attempted_at_ms=now_ms)
        if not await self._store.swap(claimed):
            return False
        try:
            status = await self._send(claimed)
        except NotDelivered as error:
            await self._not_delivered(claimed, error, now_ms)
        else:
            await self._settle(_changed(claimed, state="delivered", status=status, error=None))
        return True

    async def _send(self, row: DeliveryRow) -> int | None:
        """Raises `NotDelivered`."""
        body = body_of(row.kind, row.user_id, row.payload, row.created_at_ms, self._scale)
        notification = Notification(row.delivery_id, row.kind, row.user_id, body)
        channel = self._channels.get(row.target)
        if channel is not None:
            try:
                await channel.enqueue(notification)
            except NotDelivered:
                raise
            except Exception as error:  # a channel is somebody else's code
                raise NotDelivered(f"{type(error).__name__}: {error}"[:400]) from error
            return None
        webhook = await self._store.get(WebhookRow, row.target)
        if webhook is None or webhook.state != "enabled":
            raise NotDelivered("the endpoint is no longer enabled", gone=True)
        keys = [webhook.secret]
        if webhook.old_secret is not None and (row.attempted_at_ms or 0) < webhook.old_secret_until_ms:
            keys.append(webhook.old_secret)
        return await self._sender.post(webhook.url, keys, notification)

    async def _not_delivered(self, row: DeliveryRow, error: NotDelivered, now_ms: int) -> None:
        delay = None if error.gone else delay_ms(row.attempts, error.retry_after_seconds)
        state, at_ms = ("failed", row.next_attempt_at_ms) if delay is None else ("due", now_ms + delay)
        text = str(error)[:500]
        _log.warning(
            "the delivery failed", delivery_id=row.delivery_id, target=row.target, attempt=row.attempts, why=text
        )
        await self._settle(_changed(row, state=state, next_attempt_at_ms=at_ms, status=error.status, error=text))
        if error.status is not None and error.gone:
            await self._disable(row.target, now_ms)

    async def _settle(self, row: DeliveryRow) -> None:
        if not await self._store.swap(row):  # the claim ran out, or somebody asked for a retry: theirs counts
            _log.warning("the delivery was taken over by another process", delivery_id=row.delivery_id)

    async def _disable(self, webhook_id: str, now_ms: int) -> None:
        """410: the endpoint wants no more."""
        for _ in range(SWAPS_MAX):
            webhook = await self._store.get(WebhookRow, webhook_id)
            if webhook is None or webhook.state != "enabled":
                return
            changed = {"state": "disabled", "version": webhook.version + 1, "updated_at_ms": now_ms}
            if await self._store.swap(webhook.model_copy(update=changed)):
                return


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
    )


def _changed(row: DeliveryRow, **members: object) -> DeliveryRow:
    return row.model_copy(update={"version": row.version + 1, **members})
