"""The handlers of webhooks: who is told of alerts.

Each takes an Idempotency-Key. No kept answer has a secret in it, only the secret's digest: a repeated call shows the
secret of the first as long as the endpoint signs with it, and null afterwards.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Literal, cast

import orjson

from meter.alerts.endpoint_url import same_url, url_faults
from meter.alerts.passing_on import delivery_of
from meter.alerts.signing import new_secret, still_valid, valid_secrets
from meter.api.deliveries import delivery
from meter.api.idempotency import KeyedCall, answered_once, keyed_call, until_first
from meter.api.services import Services
from meter.clock import DAY_MS, utc_time
from meter.contract.requests import Query
from meter.contract.webhooks import Webhook, WebhookChangeRequest, WebhookRequest, WebhookWithSecret
from meter.http.cursors import ID, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem, validation_problem
from meter.keys import OBJECT_ID
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.rows import AlertRow, WebhookRow

OVERLAP_MS = DAY_MS
"""How long a secret goes on signing after it was rotated."""
OLD_SECRETS_MAX = 3
"""Of those that still sign beside the newest; an older one stops."""

_BY_ID = Cursors("webhooks", ID)


class WebhookHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._scale = services.scale
        self._allow_private = services.settings.webhook_allow_private
        self._most = services.settings.webhooks_max
        self._one_creation = asyncio.Lock()  # so that those of this process never pass the bound together

    async def webhooks(self, request: Request) -> Rendered:
        """`GET /credits/webhooks`"""
        query = read_query(Query, request, self._scale)
        after = _BY_ID.read(query.cursor) or None
        rows = await self._store().find(WebhookRow, {}, order_by="webhook_id", after=after, limit=query.limit)
        cursor = _BY_ID.write(rows[-1].webhook_id) if len(rows) == query.limit else None
        return page([model_json(_webhook(row)) for row in rows if row.state != "deleted"], cursor)

    async def create_webhook(self, request: Request) -> Rendered:
        """`POST /credits/webhooks`"""
        body = read_body(WebhookRequest, request, self._scale)
        faults = url_faults(body.url, allow_private=self._allow_private)
        if faults:
            return validation_problem([("/url", fault) for fault in faults])
        call = keyed_call("create_webhook", request, body)

        async def once() -> Rendered | None:
            async with self._one_creation:
                return await self._create(body, call)

        return await self._with_secret(await answered_once(self._store(), call, partial(until_first, once)))

    async def update_webhook(self, request: Request) -> Rendered:
        """`PUT /credits/webhooks/{webhook_id}`"""
        body = read_body(WebhookChangeRequest, request, self._scale)
        members: dict[str, object] = {
            "description": body.description,
            "kinds": None if body.kinds is None else list(body.kinds),
            "state": "enabled" if body.enabled else "disabled",
        }
        return await self._changed(request, keyed_call("update_webhook", request, body), lambda *_: members)

    async def delete_webhook(self, request: Request) -> Rendered:
        """`DELETE /credits/webhooks/{webhook_id}`"""
        return await self._changed(request, keyed_call("delete_webhook", request), lambda *_: {"state": "deleted"})

    async def rotate_webhook(self, request: Request) -> Rendered:
        """`POST /credits/webhooks/{webhook_id}/rotate`: for a day the old secrets sign beside the new one."""
        call = keyed_call("rotate_webhook", request)
        rendered = await self._changed(request, call, _rotated, show=_with_secret)
        return await self._with_secret(rendered)

    async def test_webhook(self, request: Request) -> Rendered:
        """`POST /credits/webhooks/{webhook_id}/test`: an alert of kind `test`, by way of the worker."""
        call = keyed_call("test_webhook", request)

        async def once() -> Rendered | None:
            endpoint, now_ms = await self._endpoint(request), await self._engine.now_ms()
            alert = AlertRow(
                alert_id=f"test.{secrets.token_hex(10)}",
                kind="test",
                user_id="",
                payload={"message": "A test of this endpoint."},
                created_at_ms=now_ms,
            )
            row = delivery_of(alert, endpoint.webhook_id)
            done = answer(200, delivery(row, self._scale))
            return done if await self._store().commit(Change(new=[row, *call.kept(done, now_ms)])) else None

        return await answered_once(self._store(), call, partial(until_first, once))

    async def _create(self, body: WebhookRequest, call: KeyedCall) -> Rendered | None:
        now_ms, store = await self._engine.now_ms(), self._store()
        row = WebhookRow(
            webhook_id="w_" + blake2b(same_url(body.url).encode(), digest_size=9).hexdigest(),
            url=body.url,
            description=body.description,
            kinds=None if body.kinds is None else list(body.kinds),
            secret=new_secret(),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        kept = call.kept(answer(201, _marked(row)), now_ms)
        present = await store.get(WebhookRow, row.webhook_id)
        if present is not None and present.state == "enabled":
            return problem("webhook-exists", "This URL is an endpoint already.")
        if (present is None or present.state == "deleted") and await self._is_full():
            detail = f"There are {self._most} endpoints, and METER_WEBHOOKS_MAX allows no more."
            return problem("too-many-webhooks", detail)
        if present is None:
            done = await store.commit(Change(new=[row, *kept]))
        else:
            row = row.model_copy(update={"version": present.version + 1})
            done = await store.commit(Change(swaps=[row], new=kept))
        return answer(201, _with_secret(row)) if done else None

    async def _is_full(self) -> bool:
        """Whether there may be no further endpoint. Several processes at once may pass the bound by one each."""
        there = 0
        for state in ("enabled", "disabled"):
            rows = await self._store().find(WebhookRow, {"state": state}, order_by="webhook_id", limit=self._most)
            there += len(rows)
        return there >= self._most

    async def _changed(
        self,
        request: Request,
        call: KeyedCall,
        change: Callable[[WebhookRow, int], dict[str, object]],
        show: Callable[[WebhookRow], Webhook] | None = None,
    ) -> Rendered:
        """The endpoint with members that `change` makes of its row and the time; kept with its secret marked."""

        async def once() -> Rendered | None:
            present, now_ms = await self._endpoint(request), await self._engine.now_ms()
            members = {**change(present, now_ms), "version": present.version + 1, "updated_at_ms": now_ms}
            row = present.model_copy(update=members)
            kept = answer(200, _webhook(row) if show is None else _marked(row))
            done = await self._store().commit(Change(swaps=[row], new=call.kept(kept, now_ms)))
            return answer(200, (show or _webhook)(row)) if done else None

        return await answered_once(self._store(), call, partial(until_first, once))

    async def _with_secret(self, rendered: Rendered) -> Rendered:
        """A kept answer with the secret that it marks, where the endpoint still signs with it."""
        if not rendered.replayed:
            return rendered
        members = orjson.loads(rendered.body)
        row = await self._store().get(WebhookRow, members["webhook_id"])
        known = [] if row is None else valid_secrets(row, await self._engine.now_ms())
        members["secret"] = next((secret for secret in known if _mark(secret) == members["secret"]), None)
        return rendered._replace(body=orjson.dumps(members))

    async def _endpoint(self, request: Request) -> WebhookRow:
        webhook_id = request.path["webhook_id"]
        row = await self._store().get(WebhookRow, webhook_id) if OBJECT_ID.fullmatch(webhook_id) else None
        if row is None or row.state == "deleted":
            raise Answered(problem("webhook-not-found", "There is no endpoint of that id."))
        return row

    def _store(self) -> Store:
        return self._services.catalog("webhooks")


def _rotated(row: WebhookRow, now_ms: int) -> dict[str, object]:
    old = [(row.secret, now_ms + OVERLAP_MS), *still_valid(row, now_ms)][:OLD_SECRETS_MAX]
    return {"secret": new_secret(), "old_secrets": [list(pair) for pair in old]}


def _webhook(row: WebhookRow) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        url=row.url,
        description=row.description,
        kinds=[str(kind) for kind in row.kinds] if isinstance(row.kinds, list) else None,
        state=cast("Literal['enabled', 'disabled', 'deleted']", row.state),
        created_at=utc_time(row.created_at_ms),
        updated_at=utc_time(row.updated_at_ms),
    )


def _with_secret(row: WebhookRow) -> WebhookWithSecret:
    return WebhookWithSecret(**_webhook(row).model_dump(), secret=row.secret)


def _marked(row: WebhookRow) -> WebhookWithSecret:
    """As it is kept: a digest in place of the secret, which is drawn by lot from too many to be guessed."""
    return WebhookWithSecret(**_webhook(row).model_dump(), secret=_mark(row.secret))


def _mark(secret: str) -> str:
    return blake2b(secret.encode(), digest_size=16).hexdigest()
