"""The handlers of webhooks and of the log of deliveries."""

from __future__ import annotations

from hashlib import blake2b

import orjson

from meter.alerts.endpoint_url import same_url, url_faults
from meter.alerts.notification import body_of
from meter.alerts.passing_on import delivery_of
from meter.alerts.signing import new_secret
from meter.api.services import Services
from meter.clock import time_text
from meter.contract.requests import Query
from meter.contract.webhooks import NotificationsQuery, WebhookChangeRequest, WebhookRequest
from meter.errors import StoreUnavailable
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_query
from meter.http.rendered import Answered, Rendered, page, problem, validation_problem
from meter.keys import OBJECT_ID
from meter.store.base import Store
from meter.store.rows import AlertRow, DeliveryRow, WebhookRow

ROTATION_MS = 86_400_000
"""How long the old secret goes on signing beside the new one."""

_BY_ID = Cursors("webhooks", ID)
_NEWEST_FIRST = Cursors("notifications", NUMBER, ID)
_BUSY = problem("busy", "Another process changed it at the same time; try again.")


class NotificationHandlers:
    """One coroutine per route: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._store = services.store
        self._scale = services.scale
        self._allow_private = services.settings.webhook_allow_private

    async def webhooks(self, request: Request) -> Rendered:
        """`GET /credits/webhooks`"""
        query = read_query(Query, request, self._scale)
        after = _BY_ID.read(query.cursor) or None
        rows = await self._catalog().find(WebhookRow, {}, order_by="webhook_id", after=after, limit=query.limit)
        cursor = _BY_ID.write(rows[-1].webhook_id) if len(rows) == query.limit else None
        return page([_webhook(row) for row in rows if row.state != "deleted"], cursor)

    async def create(self, request: Request) -> Rendered:
        """`POST /credits/webhooks`"""
        body = read_body(WebhookRequest, request, self._scale)
        faults = url_faults(body.url, allow_private=self._allow_private)
        if faults:
            return validation_problem([("/url", fault) for fault in faults])
        now_ms = await self._engine.now_ms()
        row = WebhookRow(
            webhook_id="w_" + blake2b(same_url(body.url).encode(), digest_size=9).hexdigest(),
            url=body.url,
            description=body.description,
            kinds=None if body.kinds is None else list(body.kinds),
            secret=new_secret(),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        if await self._catalog().insert(row):
            return Rendered(201, _webhook(row, secret=True).encode())
        present = await self._catalog().get(WebhookRow, row.webhook_id)
        if present is not None and present.state == "enabled":
            return problem("webhook-exists", "This URL is an endpoint already.")
        row = row.model_copy(update={"version": 1 if present is None else present.version + 1})
        return Rendered(201, _webhook(row, secret=True).encode()) if await self._catalog().swap(row) else _BUSY

    async def update(self, request: Request) -> Rendered:
        """`PUT /credits/webhooks/{webhook_id}`"""
        body, present = read_body(WebhookChangeRequest, request, self._scale), await self._endpoint(request)
        row = _changed(
            present,
            await self._engine.now_ms(),
            description=body.description,
            kinds=None if body.kinds is None else list(body.kinds),
            state="enabled" if body.enabled else "disabled",
        )
        return Rendered(200, _webhook(row).encode()) if await self._catalog().swap(row) else _BUSY

    async def delete(self, request: Request) -> Rendered:
        """`DELETE /credits/webhooks/{webhook_id}`"""
        present = await self._endpoint(request)
        now_ms = await self._engine.now_ms()
        row = _changed(present, now_ms, state="deleted")
        return Rendered(200, _webhook(row).encode()) if await self._catalog().swap(row) else _BUSY

    async def rotate(self, request: Request) -> Rendered:
        """`POST /credits/webhooks/{webhook_id}/rotate`: for a day both secrets sign."""
        present = await self._endpoint(request)
        now_ms = await self._engine.now_ms()
        until_ms = now_ms + ROTATION_MS
        row = _changed(present, now_ms, secret=new_secret(), old_secret=present.secret, old_secret_until_ms=until_ms)
        return Rendered(200, _webhook(row, secret=True).encode()) if await self._catalog().swap(row) else _BUSY

    async def test(self, request: Request) -> Rendered:
        """`POST /credits/webhooks/{webhook_id}/test`: a notification of kind `test`, by way of the worker."""
        present = await self._endpoint(request)
        now_ms = await self._engine.now_ms()
        alert = AlertRow(
            alert_id=f"test.{now_ms}",
            kind="test",
            user_id="",
            payload={"message": "A test of this endpoint."},
            created_at_ms=now_ms,
        )
        row = delivery_of(alert, present.webhook_id)
        await self._catalog().insert(row)
        return Rendered(200, self._delivery(row).encode())

    async def log(self, request: Request) -> Rendered:
        """`GET /credits/notifications`"""
        query = read_query(NotificationsQuery, request, self._scale)
        equal = {name: value for name in ("user_id", "state") if (value := getattr(query, name)) is not None}
        after = _NEWEST_FIRST.read(query.cursor)
        rows = await self._catalog().find(
            DeliveryRow,
            equal,
            order_by="created_at_ms",
            after=(int(after[0]), after[1]) if after else None,
            descending=True,
            limit=query.limit,
        )
        last = rows[-1] if len(rows) == query.limit else None
        cursor = None if last is None else _NEWEST_FIRST.write(last.created_at_ms, last.delivery_id)
        return page([self._delivery(row) for row in rows], cursor)

    async def retry(self, request: Request) -> Rendered:
        """`POST /credits/notifications/{notification_id}/retry`: sends it again, under the same id."""
        notification_id = request.path["notification_id"]
        known = OBJECT_ID.fullmatch(notification_id) is not None
        present = await self._catalog().get(DeliveryRow, notification_id) if known else None
        if present is None:
            return problem("notification-not-found", "There is no notification of that id.")
        members = {"state": "due", "attempts": 0, "next_attempt_at_ms": 0, "version": present.version + 1}
        row = present.model_copy(update=members)
        return Rendered(200, self._delivery(row).encode()) if await self._catalog().swap(row) else _BUSY

    def _catalog(self) -> Store:
        if self._store is None:
            raise StoreUnavailable("notifications need a store; METER_STORE_URL is none")
        return self._store

    async def _endpoint(self, request: Request) -> WebhookRow:
        webhook_id = request.path["webhook_id"]
        row = await self._catalog().get(WebhookRow, webhook_id) if OBJECT_ID.fullmatch(webhook_id) else None
        if row is None or row.state == "deleted":
            raise Answered(problem("webhook-not-found", "There is no endpoint of that id."))
        return row

    def _delivery(self, row: DeliveryRow) -> str:
        try:
            data = orjson.loads(body_of(row.kind, "", row.payload, row.created_at_ms, self._scale))["data"]
        except ValueError:
            data = None  # it was set aside
        due = row.state == "due"
        members = {
            "notification_id": row.delivery_id,
            "kind": row.kind,
            "user_id": row.user_id,
            "target": row.target,
            "state": row.state,
            "attempts": row.attempts,
            "status": row.status,
            "error": row.error,
            "data": data,
            "created_at": orjson.Fragment(time_text(row.created_at_ms)),
            "attempted_at": _time(row.attempted_at_ms),
            "next_attempt_at": _time(row.next_attempt_at_ms or row.created_at_ms) if due else None,
        }
        return orjson.dumps(members).decode()


def _webhook(row: WebhookRow, *, secret: bool = False) -> str:
    members: dict[str, object] = {
        "webhook_id": row.webhook_id,
        "url": row.url,
        "description": row.description,
        "kinds": row.kinds,
        "state": row.state,
        "created_at": _time(row.created_at_ms),
        "updated_at": _time(row.updated_at_ms),
    }
    if secret:
        members["secret"] = row.secret
    return orjson.dumps(members).decode()


def _time(at_ms: int | None) -> orjson.Fragment | None:
    return None if at_ms is None else orjson.Fragment(time_text(at_ms))


def _changed(row: WebhookRow, now_ms: int, **members: object) -> WebhookRow:
    return row.model_copy(update={"version": row.version + 1, "updated_at_ms": now_ms, **members})
