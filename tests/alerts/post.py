"""A town with a worker's dispatcher, and calls of the endpoints' API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2
from starlette.testclient import TestClient

from meter.alerts.dispatcher import Dispatcher
from meter.alerts.notification import AsyncNotificationQueue
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.app import create_app
from meter.store.rows import AlertRow, DeliveryRow
from meter.testing import fake_redis, fake_settings
from meter.worker.jobs import remind
from tests.plans.town import Town, days, town

PATIENCE_SECONDS = 30.0


@dataclass
class Post:
    """A town, its sidecar over HTTP, and its delivery."""

    town: Town
    http: httpx2.Client
    sender: WebhookSender
    channels: dict[str, AsyncNotificationQueue] = field(default_factory=dict)
    now: datetime = field(default_factory=datetime.now)

    def dispatcher(self) -> Dispatcher:
        """A worker's dispatcher; a new one is another worker."""
        return Dispatcher(self.town.store, self.sender, self.channels, AmountScale(6), self.town.engine.now_ms)

    async def deliver(self) -> int:
        """The delivery, as a worker runs it, with everything flushed before."""
        await self.town.flush()
        dispatcher, attempted, more = self.dispatcher(), 0, True
        try:
            while more:
                done = await dispatcher.deliver(PATIENCE_SECONDS)
                attempted, more = attempted + done.attempted, done.more
        finally:
            await dispatcher.close()
        return attempted

    async def remind(self) -> int:
        """The reminder, with everything flushed before."""
        await self.town.flush()
        return await remind(self.town.context)

    async def advance(self, seconds: float) -> None:
        """Moves the clock."""
        self.now += days(seconds / 86_400)
        await self.town.set_time(self.now)

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None, *, status: int = 200) -> Any:
        """A call below /credits and its answer."""
        answer = self.http.request(method, "/credits" + path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def add_webhook(self, url: str, **members: object) -> Any:
        """A new endpoint, with its secret."""
        return self.call("POST", "/webhooks", {"url": url, **members}, status=201)

    def log(self, **query: str) -> list[Any]:
        """The delivery log."""
        pairs = "&".join(f"{name}={value}" for name, value in query.items())
        return list(self.call("GET", f"/notifications?limit=500&{pairs}")["items"])

    async def alerts(self) -> list[AlertRow]:
        return await self.town.store.find(AlertRow, {}, order_by="alert_id", limit=1_000)

    async def deliveries(self) -> list[DeliveryRow]:
        return await self.town.store.find(DeliveryRow, {}, order_by="delivery_id", limit=1_000)


@asynccontextmanager
async def post(now: datetime, *, http: bool = False, **more: Any) -> AsyncIterator[Post]:
    """A post whose clock stands at `now`; its webhooks may be private. `http`: its town is called over HTTP."""
    async with town(now, http=http, webhook_allow_private=True, **more) as found:
        settings = fake_settings(webhook_allow_private=True, **more)
        sender = WebhookSender(allow_private=True)
        try:
            with TestClient(create_app(settings, fake_redis(found.server), found.store)) as client:
                yield Post(found, client, sender, now=now)
        finally:
            await sender.close()
