"""One attempt at a delivery: claimed by compare-and-set, sent, and settled.

A claim lasts for as long as an attempt can take; a process that dies in between leaves one that runs out, and the
delivery is tried again under its id. A delivery that cannot be made into a message is set aside with an alarm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from meter.alerts.notification import AsyncNotificationQueue, NotDelivered, Notification, body_of
from meter.alerts.passing_on import set_aside
from meter.alerts.retries import delay_ms
from meter.alerts.signing import valid_secrets
from meter.alerts.together import Swaps, Webhooks
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.log import logger
from meter.store.base import Store
from meter.store.rows import DeliveryRow, WebhookRow

CLAIM_MS = 60_000
CHANNEL_TIMEOUT_SECONDS = 20.0
SWAPS_MAX = 5

Outcome = Literal["delivered", "put_off", "failed", "set_aside"]
"""What an attempt came to. `put_off`: it is tried again; `failed`: never again; `set_aside`: nobody can read it."""

_log = logger("meter.alerts")


@dataclass(frozen=True, slots=True)
class Attempted:
    """`outcome` is None where another process has the delivery. `silent`: the target gave no answer at all."""

    outcome: Outcome | None
    silent: bool = False


class Attempts:
    """Carries out attempts. `now_ms` is the time that the scripts see."""

    def __init__(
        self,
        store: Store,
        sender: WebhookSender,
        channels: Mapping[str, AsyncNotificationQueue],
        scale: AmountScale,
        now_ms: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._swaps = Swaps(store)
        self._webhooks = Webhooks(store)
        self._sender = sender
        self._channels = channels
        self._scale = scale
        self._now_ms = now_ms

    async def attempt(self, row: DeliveryRow) -> Attempted:
        """Raises `Unavailable` where the store or the clock is away."""
        now_ms = await self._now_ms()
        claimed = _changed(row, attempts=row.attempts + 1, next_attempt_at_ms=now_ms + CLAIM_MS, attempted_at_ms=now_ms)
        if not await self._swaps.swap(claimed):
            return Attempted(None)
        try:
            body = body_of(row.kind, row.user_id, row.payload, row.created_at_ms, self._scale)
        except ValueError as error:
            return await self._set_aside(claimed, str(error))
        try:
            status = await self._send(claimed, Notification(row.delivery_id, row.kind, row.user_id, body))
        except NotDelivered as error:
            return await self._not_delivered(claimed, error, now_ms)
        await self._settle(_changed(claimed, state="delivered", status=status, error=None))
        return Attempted("delivered")

    async def _send(self, row: DeliveryRow, notification: Notification) -> int | None:
        """Raises `NotDelivered`."""
        channel = self._channels.get(row.target)
        if channel is not None:
            await _enqueue(channel, notification)
            return None
        webhook = await self._webhooks.enabled(row.target)
        if webhook is None:
            raise NotDelivered("the endpoint is no longer enabled", gone=True)
        keys = valid_secrets(webhook, row.attempted_at_ms or 0)
        return await self._sender.post(webhook.url, keys, notification)

    async def _not_delivered(self, row: DeliveryRow, error: NotDelivered, now_ms: int) -> Attempted:
        delay = None if error.gone else delay_ms(row.attempts, error.retry_after_seconds)
        state, at_ms = ("failed", row.next_attempt_at_ms) if delay is None else ("due", now_ms + delay)
        text = _plain(str(error))
        _log.warning(
            "the delivery failed", delivery_id=row.delivery_id, target=row.target, attempt=row.attempts, why=text
        )
        await self._settle(_changed(row, state=state, next_attempt_at_ms=at_ms, status=error.status, error=text))
        if error.status is not None and error.gone:
            await self._disable(row.target, now_ms)
        return Attempted("failed" if delay is None else "put_off", error.silent)

    async def _set_aside(self, row: DeliveryRow, why: str) -> Attempted:
        text = _plain(why)
        await set_aside(self._store, row.delivery_id, row.user_id, f"a delivery of kind {row.kind}: {text}", row)
        await self._settle(_changed(row, state="failed", error=f"set aside: {text}"[:500]))
        return Attempted("set_aside")

    async def _settle(self, row: DeliveryRow) -> None:
        if not await self._swaps.swap(row):  # the claim ran out, or somebody asked for a retry: theirs counts
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


async def _enqueue(channel: AsyncNotificationQueue, notification: Notification) -> None:
    try:
        async with asyncio.timeout(CHANNEL_TIMEOUT_SECONDS):
            await channel.enqueue(notification)
    except NotDelivered:
        raise
    except TimeoutError as error:
        raise NotDelivered(f"TimeoutError: not taken within {CHANNEL_TIMEOUT_SECONDS:g} s", silent=True) from error
    except Exception as error:  # a channel is somebody else's code
        raise NotDelivered(f"{type(error).__name__}: {error}") from error


def _changed(row: DeliveryRow, **members: object) -> DeliveryRow:
    return row.model_copy(update={"version": row.version + 1, **members})


def _plain(text: str) -> str:
    """What a stranger's answer may say in the log and in the store: no control characters, and not too much."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:480])
