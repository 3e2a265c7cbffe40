"""The handlers of the log of deliveries: what was sent and how it went. The API calls a delivery a notification."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast

import orjson

from meter.alerts.notification import body_of
from meter.amount import AmountScale
from meter.api.idempotency import answered_once, keyed_call, until_first
from meter.api.services import Services
from meter.clock import utc_time
from meter.contract.webhooks import DeliveriesQuery, Delivery
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem
from meter.keys import OBJECT_ID
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.rows import DeliveryRow

_NEWEST_FIRST = Cursors("notifications", NUMBER, ID)


class DeliveryHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale

    async def notifications(self, request: Request) -> Rendered:
        """`GET /credits/notifications`"""
        query = read_query(DeliveriesQuery, request, self._scale)
        equal = {name: value for name in ("user_id", "state") if (value := getattr(query, name)) is not None}
        position = _NEWEST_FIRST.read(query.cursor)
        rows = await self._store().find(
            DeliveryRow,
            equal,
            order_by="created_at_ms",
            after=(int(position[0]), position[1]) if position else None,
            descending=True,
            limit=query.limit,
        )
        is_cut = len(rows) == query.limit
        cursor = _NEWEST_FIRST.write(rows[-1].created_at_ms, rows[-1].delivery_id) if is_cut else None
        return page([model_json(delivery(row, self._scale)) for row in rows], cursor)

    async def retry_notification(self, request: Request) -> Rendered:
        """`POST /credits/notifications/{notification_id}/retry`: sends it again, under the same id."""
        call = keyed_call("retry_notification", request)

        async def once() -> Rendered | None:
            present = await self._present(request)
            members = {"state": "due", "attempts": 0, "next_attempt_at_ms": 0, "version": present.version + 1}
            row = present.model_copy(update=members)
            done = answer(200, delivery(row, self._scale))
            now_ms = await self._services.engine.now_ms()
            return done if await self._store().commit(Change(swaps=[row], new=call.kept(done, now_ms))) else None

        return await answered_once(self._store(), call, partial(until_first, once))

    async def _present(self, request: Request) -> DeliveryRow:
        notification_id = request.path["notification_id"]
        known = OBJECT_ID.fullmatch(notification_id) is not None
        row = await self._store().get(DeliveryRow, notification_id) if known else None
        if row is None:
            raise Answered(problem("notification-not-found", "There is no notification of that id."))
        return row

    def _store(self) -> Store:
        return self._services.catalog("notifications")


def delivery(row: DeliveryRow, scale: AmountScale) -> Delivery:
    """A delivery as the API shows it; one that was set aside because nobody can tell it has no data."""
    try:
        data = orjson.loads(body_of(row.kind, "", row.payload, row.created_at_ms, scale))["data"]
    except ValueError:
        data = None
    due_ms = row.next_attempt_at_ms or row.created_at_ms
    return Delivery(
        notification_id=row.delivery_id,
        kind=row.kind,
        user_id=row.user_id,
        target=row.target,
        state=cast("Literal['due', 'delivered', 'failed']", row.state),
        attempts=row.attempts,
        status=row.status,
        error=row.error,
        data=data,
        created_at=utc_time(row.created_at_ms),
        attempted_at=None if row.attempted_at_ms is None else utc_time(row.attempted_at_ms),
        next_attempt_at=utc_time(due_ms) if row.state == "due" else None,
    )
