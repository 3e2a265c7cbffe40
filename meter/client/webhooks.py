"""The Python API of webhooks and of the log of deliveries, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from meter.client.calls import Calls
from meter.contract.answers import Refusal
from meter.contract.webhooks import AlertKind, Delivery, DeliveryPage, Webhook, WebhookPage, WebhookWithSecret


class WebhookCalls(Calls):
    """Who is told of alerts, and what was sent. Every method raises `Unavailable` when the call was not decided."""

    async def create_webhook(
        self,
        url: str,
        *,
        description: str | None = None,
        kinds: Sequence[AlertKind] | None = None,
        idempotency_key: str | None = None,
    ) -> WebhookWithSecret | Refusal:
        """Adds an endpoint, of all kinds of alerts when none are named. Only this answer shows its secret; the same
        call again with the same key shows it again, as long as the endpoint signs with it.
        """
        body = {"url": url, "description": description, "kinds": None if kinds is None else list(kinds)}
        return await self._call("create_webhook", WebhookWithSecret, body=body, key=idempotency_key)

    async def webhooks(self, *, limit: int = 50, cursor: str = "") -> WebhookPage | Refusal:
        """A page of endpoints."""
        query = {"limit": str(limit), "cursor": cursor}
        return await self._call("webhooks", WebhookPage, query=query)

    async def update_webhook(
        self,
        webhook_id: str,
        *,
        description: str | None = None,
        kinds: Sequence[AlertKind] | None = None,
        enabled: bool = True,
        idempotency_key: str | None = None,
    ) -> Webhook | Refusal:
        """Says anew what an endpoint is told of, and whether; `enabled` takes back that it answered 410."""
        body = {"description": description, "kinds": None if kinds is None else list(kinds), "enabled": enabled}
        path = {"webhook_id": webhook_id}
        return await self._call("update_webhook", Webhook, path=path, body=body, key=idempotency_key)

    async def delete_webhook(self, webhook_id: str, *, idempotency_key: str | None = None) -> Webhook | Refusal:
        """Removes an endpoint."""
        return await self._call("delete_webhook", Webhook, path={"webhook_id": webhook_id}, key=idempotency_key)

    async def rotate_webhook(
        self, webhook_id: str, *, idempotency_key: str | None = None
    ) -> WebhookWithSecret | Refusal:
        """Gives an endpoint a new secret; for a day the old ones sign as well, three at most."""
        path = {"webhook_id": webhook_id}
        return await self._call("rotate_webhook", WebhookWithSecret, path=path, body={}, key=idempotency_key)

    async def test_webhook(self, webhook_id: str, *, idempotency_key: str | None = None) -> Delivery | Refusal:
        """Sends a test to an endpoint."""
        path = {"webhook_id": webhook_id}
        return await self._call("test_webhook", Delivery, path=path, body={}, key=idempotency_key)

    async def notifications(
        self,
        *,
        user_id: str | None = None,
        state: Literal["due", "delivered", "failed"] | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> DeliveryPage | Refusal:
        """A page of what was sent, newest first."""
        query = {"limit": str(limit), "cursor": cursor}
        if user_id is not None:
            query["user_id"] = user_id
        if state is not None:
            query["state"] = state
        return await self._call("notifications", DeliveryPage, query=query)

    async def retry_notification(
        self, notification_id: str, *, idempotency_key: str | None = None
    ) -> Delivery | Refusal:
        """Sends a notification again, under the same id."""
        path = {"notification_id": notification_id}
        return await self._call("retry_notification", Delivery, path=path, body={}, key=idempotency_key)
