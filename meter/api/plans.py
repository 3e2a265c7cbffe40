"""The handlers of plans and subscriptions."""

from __future__ import annotations

import secrets
from hashlib import blake2b

import orjson

from meter.api.services import Services, path_user
from meter.clock import milliseconds, time_text
from meter.contract.plans import (
    CreatePlanRequest,
    PlanRequest,
    PlansQuery,
    SubscribeRequest,
    UnsubscribeQuery,
    UpgradeRequest,
)
from meter.contract.requests import Query
from meter.errors import StoreUnavailable
from meter.http.exchange import Request
from meter.http.reading import read_body, read_key, read_query
from meter.http.rendered import Answered, Rendered, page, problem, validation_problem
from meter.keys import OBJECT_ID
from meter.plans.allocation import allocate_page
from meter.plans.subscriptions import Proration, Subscriptions
from meter.store.base import Store
from meter.store.rows import OperationRow, PlanRow, SubscriptionRow

JOB_PAGE = 500

_DETAILS = {
    "plan-not-found": "There is no plan of that id.",
    "plan-inactive": "The plan takes no new subscriptions.",
    "subscription-exists": "The user has another plan of this group; change it with POST …/upgrade.",
    "subscription-not-found": "The user has no active subscription of this group.",
    "busy": "Another process changed the subscription at the same time; try again.",
}


class PlanHandlers:
    """One coroutine per route: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._store = services.store
        self._scale = services.scale
        self._amount = services.scale.text
        self._partitions = services.settings.partitions

    async def create(self, request: Request) -> Rendered:
        """`POST /credits/plans`: the same plan_id or key with the same body answers as the first time."""
        body, key = read_body(CreatePlanRequest, request, self._scale), read_key(request)
        now_ms, made_of = await self._engine.now_ms(), _fingerprint(body)
        plan_id = body.plan_id or f"p_{secrets.token_urlsafe(9)}"
        if key:
            operation_id = f"plan {key}"  # a blank: no caller's key of another call has one
            if body.plan_id is not None:
                await self._refuse_another(plan_id, made_of)
            used = await self._used_key(operation_id, plan_id, made_of, now_ms)
            if used.fingerprint != made_of:
                return problem("idempotency-key-reused", "The key was used before with another body.")
            plan_id, now_ms = used.transaction_id, used.created_at_ms
        row = _plan_row(body, plan_id, now_ms, now_ms, 1).model_copy(update={"fingerprint": made_of})
        if await self._catalog().insert(row):
            return Rendered(201, self._plan(row).encode())
        present = await self._refuse_another(plan_id, made_of)
        first_ms = now_ms if present is None else present.created_at_ms
        row = _plan_row(body, plan_id, first_ms, first_ms, 1)
        return Rendered(201, self._plan(row).encode(), replayed=True)

    async def list(self, request: Request) -> Rendered:
        """`GET /credits/plans`"""
        query = read_query(PlansQuery, request, self._scale)
        after = (query.cursor,) if query.cursor else None
        rows = await self._catalog().find(
            PlanRow, {"deleted": False}, order_by="plan_id", after=after, limit=query.limit
        )
        cursor = rows[-1].plan_id if len(rows) == query.limit else None
        return page([self._plan(row) for row in rows], cursor)

    async def read(self, request: Request) -> Rendered:
        """`GET /credits/plans/{plan_id}`"""
        return Rendered(200, self._plan(await self._present(request)).encode())

    async def update(self, request: Request) -> Rendered:
        """`PUT /credits/plans/{plan_id}`: from the next period on, for those who have it."""
        body, present = read_body(PlanRequest, request, self._scale), await self._present(request)
        if body.plan_group != present.plan_group:
            return validation_problem([("/plan_group", "cannot be changed")])
        now_ms = await self._engine.now_ms()
        row = _plan_row(body, present.plan_id, present.created_at_ms, now_ms, present.version + 1)
        row = row.model_copy(update={"fingerprint": present.fingerprint})
        if not await self._catalog().swap(row):
            return problem("busy", _DETAILS["busy"])
        return Rendered(200, self._plan(row).encode())

    async def delete(self, request: Request) -> Rendered:
        """`DELETE /credits/plans/{plan_id}`: nobody can take it any more; those who have it go on."""
        present = await self._present(request)
        now_ms = await self._engine.now_ms()
        row = present.model_copy(update={"deleted": True, "version": present.version + 1, "updated_at_ms": now_ms})
        if not await self._catalog().swap(row):
            return problem("busy", _DETAILS["busy"])
        return Rendered(200, self._plan(row).encode())

    async def subscriptions(self, request: Request) -> Rendered:
        """`GET /credits/subscriptions/{user_id}`"""
        user_id = path_user(request)
        query = read_query(Query, request, self._scale)
        rows = await self._service().of_user(user_id, query.cursor, query.limit)
        cursor = rows[-1].plan_group if len(rows) == query.limit else None
        return page([_subscription(row) for row in rows], cursor)

    async def subscribe(self, request: Request) -> Rendered:
        """`PUT /credits/subscriptions/{user_id}`"""
        user_id, body = path_user(request), read_body(SubscribeRequest, request, self._scale)
        anchor_ms = None if body.anchor_at is None else milliseconds(body.anchor_at)
        if anchor_ms is not None and anchor_ms > await self._engine.now_ms():
            return validation_problem([("/anchor_at", "must not be in the future")])
        found = await self._service().assign(
            user_id, body.plan_id, auto_renew=body.auto_renew, zone=body.time_zone, anchor_ms=anchor_ms
        )
        return _answer(found)

    async def upgrade(self, request: Request) -> Rendered:
        """`POST /credits/subscriptions/{user_id}/upgrade`"""
        user_id, body = path_user(request), read_body(UpgradeRequest, request, self._scale)
        return _answer(await self._service().change(user_id, body.plan_id, Proration(body.when, body.proration)))

    async def unsubscribe(self, request: Request) -> Rendered:
        """`DELETE /credits/subscriptions/{user_id}`"""
        user_id, query = path_user(request), read_query(UnsubscribeQuery, request, self._scale)
        return _answer(await self._service().end(user_id, query.plan_group, query.when, query.unspent))

    async def allocate(self, _: Request) -> Rendered:
        """`POST /credits/jobs/allocate`: grants what is due now, up to a page; 0 left says that all is done."""
        moved, more = await allocate_page(self._engine, self._service(), JOB_PAGE)
        return Rendered(200, b'{"allocated":%d,"more":%s}' % (moved, b"true" if more else b"false"))

    async def _refuse_another(self, plan_id: str, made_of: str) -> PlanRow | None:
        """The plan of that id, if any. Raises `Answered` when it was made of another body."""
        present = await self._catalog().get(PlanRow, plan_id)
        if present is not None and present.fingerprint != made_of:
            raise Answered(problem("plan-exists", "There is, or was, another plan of that id."))
        return present

    async def _used_key(self, operation_id: str, plan_id: str, made_of: str, now_ms: int) -> OperationRow:
        """What a key was first used for, which may be this very call: a process that died may have got no further."""
        mine = OperationRow(
            partition=0,
            operation_id=operation_id,
            transaction_id=plan_id,
            fingerprint=made_of,
            created_at_ms=now_ms,
        )
        if await self._catalog().insert(mine):
            return mine
        return await self._catalog().get(OperationRow, 0, operation_id) or mine

    def _catalog(self) -> Store:
        if self._store is None:
            raise StoreUnavailable("plans need a store; METER_STORE_URL is none")
        return self._store

    def _service(self) -> Subscriptions:
        return Subscriptions(self._engine, self._catalog(), self._partitions)

    async def _present(self, request: Request) -> PlanRow:
        plan_id = request.path["plan_id"]
        row = await self._catalog().get(PlanRow, plan_id) if OBJECT_ID.fullmatch(plan_id) else None
        if row is None or row.deleted:
            raise Answered(problem("plan-not-found", _DETAILS["plan-not-found"]))
        return row

    def _plan(self, row: PlanRow) -> str:
        plan_id = orjson.dumps(row.plan_id).decode()
        return (
            f'{{"id":{plan_id},"plan_id":{plan_id},"name":{orjson.dumps(row.name).decode()},'
            f'"description":{orjson.dumps(row.description).decode()},"credit_limit":{self._amount(row.credit_limit)},'
            f'"price":{row.price},"billing_period":"{row.billing_period}",'
            f'"validity_days":{orjson.dumps(row.validity_days).decode()},"rollover":{self._rollover(row)},'
            f'"priority":{row.priority},'
            f'"plan_group":"{row.plan_group}","active":{orjson.dumps(row.active).decode()},'
            f'"created_at":{time_text(row.created_at_ms)},"updated_at":{time_text(row.updated_at_ms)}}}'
        )

    def _rollover(self, row: PlanRow) -> str:
        if row.rollover_days is None:
            return "null"
        most = "null" if row.rollover_max is None else self._amount(row.rollover_max)
        percent = orjson.dumps(row.rollover_percent).decode()
        return f'{{"max_amount":{most},"percent":{percent},"valid_days":{row.rollover_days}}}'


def _fingerprint(body: CreatePlanRequest) -> str:
    """What tells two bodies apart. A body of before there was a rollover is the same body now."""
    left_out = {"rollover"} if body.rollover is None else None
    return blake2b(body.model_dump_json(exclude=left_out).encode(), digest_size=16).hexdigest()


def _plan_row(body: PlanRequest, plan_id: str, created_at_ms: int, now_ms: int, version: int) -> PlanRow:
    rollover = body.rollover
    return PlanRow(
        plan_id=plan_id,
        name=body.name,
        description=body.description,
        credit_limit=body.credit_limit,
        price=body.price,
        billing_period=body.billing_period,
        validity_days=body.validity_days,
        rollover_max=None if rollover is None else rollover.max_amount,
        rollover_percent=None if rollover is None else rollover.percent,
        rollover_days=None if rollover is None else rollover.valid_days,
        priority=body.priority,
        plan_group=body.plan_group,
        active=body.active,
        created_at_ms=created_at_ms,
        updated_at_ms=now_ms,
        version=version,
    )


def _answer(found: SubscriptionRow | str) -> Rendered:
    if isinstance(found, str):
        return problem(found, _DETAILS[found])
    return Rendered(200, _subscription(found).encode())


def _subscription(row: SubscriptionRow) -> str:
    return (
        f'{{"subscription_id":"{row.subscription_id}","user_id":"{row.user_id}","plan_id":"{row.plan_id}",'
        f'"plan_group":"{row.plan_group}","state":"{row.state}","auto_renew":{orjson.dumps(row.auto_renew).decode()},'
        f'"anchor_at":{time_text(row.anchor_at_ms)},"time_zone":"{row.time_zone}","period":{row.period},'
        f'"period_started_at":{time_text(row.period_started_at_ms)},"next_period_at":{time_text(row.next_period_at_ms)},'
        f'"next_plan_id":{orjson.dumps(row.next_plan_id).decode()},"created_at":{time_text(row.created_at_ms)},'
        f'"updated_at":{time_text(row.updated_at_ms)}}}'
    )
