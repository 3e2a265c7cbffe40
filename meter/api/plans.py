"""The handlers of plans and subscriptions."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from typing import cast

from pydantic import JsonValue

from meter.amount import AmountScale
from meter.api.idempotency import KeyedCall, answered_once, keyed_call, until_first
from meter.api.rule_words import faults_of, plan_rules_of, rules_in
from meter.api.services import Services, path_user
from meter.api.trials import Trials
from meter.clock import milliseconds, utc_time
from meter.contract.plans import (
    BillingPeriod,
    CreatePlanRequest,
    Plan,
    PlanRequest,
    PlansQuery,
    Rollover,
    SubscribeRequest,
    Subscription,
    SubscriptionState,
    Unspent,
    UnsubscribeQuery,
    UpgradeRequest,
)
from meter.contract.requests import Query
from meter.engine.operations import Operation
from meter.engine.restrictions import RESTRICTIONS_MAX, only_text, tags_in
from meter.http.cursors import ID, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem, validation_problem
from meter.http.request_id import brought_id
from meter.keys import OBJECT_ID
from meter.plans.planner import Asked
from meter.plans.subscriptions import Caller, Proration, Refused, Subscriptions
from meter.plans.terms import same_terms, terms_of
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.plan_rows import PlanRow, SubscriptionRow
from meter.store.row import Row
from meter.store.rows import RateCardRow

_BY_PLAN = Cursors("plans", ID)
_BY_GROUP = Cursors("subscriptions", ID)

_DETAILS = {
    "plan-not-found": "There is no plan of that id.",
    "plan-inactive": "The plan takes no new subscriptions.",
    "subscription-exists": "The user has another plan of this group; change it with POST …/upgrade.",
    "subscription-not-found": "The user has no active subscription of this group.",
    "subscription-fixed": "The user has this plan with another time_zone or anchor_at; both are fixed while it runs.",
    "subscription-set-aside": "Its next period cannot be worked out; GET it to read why in `fault`.",
    "too-many-grants": "The account has as many grants as METER_GRANTS_MAX allows; nothing was changed.",
    "busy": "Another process changed the subscription at the same time; try again.",
}

_FAULTS = {
    "overflow": "its credits are more than the account can count exactly",
    "too-many-restrictions": f"the account has grants for {RESTRICTIONS_MAX} other things already",
}
"""What is wrong with a plan for an account."""


class PlanHandlers:
    """One coroutine per route: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._trials = Trials(services)
        self._services = services
        self._scale = services.scale
        self._partitions = services.settings.partitions
        self._most = services.settings.plans_max

    async def create(self, request: Request) -> Rendered:
        """`POST /credits/plans`: the same plan_id and body, as the same key, answers as the first time."""
        body = read_body(CreatePlanRequest, request, self._scale)
        await self._check(body)
        call = keyed_call("create_plan", request, body)
        return await answered_once(self._catalog(), call, partial(self._create, body, call))

    async def _create(self, body: CreatePlanRequest, call: KeyedCall) -> Rendered:
        now_ms, made_of = await self._engine.now_ms(), _fingerprint(body)
        plan_id = body.plan_id or f"p_{secrets.token_urlsafe(9)}"
        row = _plan_row(body, plan_id, now_ms, now_ms, 1, self._scale).model_copy(update={"fingerprint": made_of})
        made = answer(201, self._plan(row))
        if await self._is_full() and await self._catalog().get(PlanRow, plan_id) is None:
            return problem("too-many-plans", f"There are {self._most} plans, and METER_PLANS_MAX allows no more.")
        if await self._catalog().commit(Change(new=[row, *call.kept(made, now_ms)])):
            return made
        present = await self._catalog().get(PlanRow, plan_id)
        if present is None or present.deleted or present.fingerprint != made_of:
            return problem("plan-exists", "There is, or was, another plan of that id.")
        first = _plan_row(body, plan_id, present.created_at_ms, present.created_at_ms, 1, self._scale)
        again = answer(201, self._plan(first))
        await self._catalog().commit(Change(new=call.kept_answer(again, now_ms)))
        return again._replace(replayed=True)

    async def _is_full(self) -> bool:
        """Whether there may be no further plan. Several processes at once may pass the bound by one each."""
        there = await self._catalog().find(PlanRow, {"deleted": False}, order_by="plan_id", limit=self._most)
        return len(there) >= self._most

    async def list(self, request: Request) -> Rendered:
        """`GET /credits/plans`"""
        query = read_query(PlansQuery, request, self._scale)
        after = _BY_PLAN.read(query.cursor) or None
        rows = await self._catalog().find(
            PlanRow, {"deleted": False}, order_by="plan_id", after=after, limit=query.limit
        )
        cursor = _BY_PLAN.write(rows[-1].plan_id) if len(rows) == query.limit else None
        return page([model_json(self._plan(row)) for row in rows], cursor)

    async def read(self, request: Request) -> Rendered:
        """`GET /credits/plans/{plan_id}`"""
        return answer(200, self._plan(await self._present(request)))

    async def update(self, request: Request) -> Rendered:
        """`PUT /credits/plans/{plan_id}`: from the next period on, for those who have it."""
        body = read_body(PlanRequest, request, self._scale)
        await self._check(body)
        call = keyed_call("update_plan", request, body)

        async def once() -> Rendered | None:
            present = await self._present(request)
            if body.plan_group != present.plan_group:
                return validation_problem([("/plan_group", "cannot be changed")])
            now_ms = await self._engine.now_ms()
            row = _plan_row(body, present.plan_id, present.created_at_ms, now_ms, present.version + 1, self._scale)
            history = [] if same_terms(row, present) else [terms_of(present), terms_of(row)]
            return await self._swap(row.model_copy(update={"fingerprint": present.fingerprint}), call, history)

        return await answered_once(self._catalog(), call, partial(until_first, once))

    async def delete(self, request: Request) -> Rendered:
        """`DELETE /credits/plans/{plan_id}`: nobody can take it any more; those who have it go on."""
        call = keyed_call("delete_plan", request)

        async def once() -> Rendered | None:
            present = await self._present(request)
            members = {"deleted": True, "active": False, "version": present.version + 1}
            members["updated_at_ms"] = await self._engine.now_ms()
            return await self._swap(present.model_copy(update=members), call)

        return await answered_once(self._catalog(), call, partial(until_first, once))

    async def _swap(self, row: PlanRow, call: KeyedCall, history: Sequence[Row] = ()) -> Rendered | None:
        done = answer(200, self._plan(row))
        change = Change([row], call.kept(done, row.updated_at_ms), history)
        return done if await self._catalog().commit(change) else None

    async def subscriptions(self, request: Request) -> Rendered:
        """`GET /credits/subscriptions/{user_id}`"""
        user_id = path_user(request)
        query = read_query(Query, request, self._scale)
        [after_group] = _BY_GROUP.read(query.cursor, user_id) or [""]
        rows = await self._service().of_user(user_id, after_group, query.limit)
        cursor = _BY_GROUP.write(rows[-1].plan_group, scope=user_id) if len(rows) == query.limit else None
        return page([model_json(_subscription(row), exclude_unset=True) for row in rows], cursor)

    async def subscribe(self, request: Request) -> Rendered:
        """`PUT /credits/subscriptions/{user_id}`"""
        user_id, body = path_user(request), read_body(SubscribeRequest, request, self._scale)
        sent = body.model_fields_set
        asked = Asked(
            auto_renew=body.auto_renew if "auto_renew" in sent else None,
            time_zone=body.time_zone if "time_zone" in sent else None,
            anchor_ms=None if body.anchor_at is None else milliseconds(body.anchor_at),
            metadata=body.metadata,
            has_metadata="metadata" in sent,
        )
        if asked.anchor_ms is not None and asked.anchor_ms > await self._engine.now_ms():
            return validation_problem([("/anchor_at", "must not be in the future")])
        if body.dry_run:
            return await self._try(user_id, lambda caller: self._service().assign(user_id, body.plan_id, asked, caller))
        call = keyed_call("subscribe", request, body)
        return await self._once(request, call, lambda once: self._service().assign(user_id, body.plan_id, asked, once))

    async def upgrade(self, request: Request) -> Rendered:
        """`POST /credits/subscriptions/{user_id}/upgrade`"""
        user_id, body = path_user(request), read_body(UpgradeRequest, request, self._scale)
        how = Proration(body.when, body.proration)
        if body.dry_run:
            return await self._try(user_id, lambda caller: self._service().change(user_id, body.plan_id, how, caller))
        call = keyed_call("upgrade", request, body)
        return await self._once(request, call, lambda once: self._service().change(user_id, body.plan_id, how, once))

    async def unsubscribe(self, request: Request) -> Rendered:
        """`DELETE /credits/subscriptions/{user_id}`"""
        user_id, query = path_user(request), read_query(UnsubscribeQuery, request, self._scale)
        group, when, unspent = query.plan_group, query.when, query.unspent
        call = keyed_call("unsubscribe", request)
        return await self._once(request, call, lambda once: self._service().end(user_id, group, when, unspent, once))

    async def _once(
        self, request: Request, call: KeyedCall, run: Callable[[Caller], Awaitable[SubscriptionRow | Refused]]
    ) -> Rendered:
        """The first answer of a call on a subscription, which is kept with what the call does."""

        def kept(row: SubscriptionRow) -> Sequence[Row]:
            return call.kept(answer(200, _subscription(row), exclude_unset=True), row.updated_at_ms)

        async def done() -> Rendered:
            return _answered(await run(Caller(kept, brought_id(request.headers) or None)))

        return await answered_once(self._catalog(), call, done)

    async def _try(self, user_id: str, run: Callable[[Caller], Awaitable[SubscriptionRow | Refused]]) -> Rendered:
        """What a call on a subscription would be answered, and its effect; nothing is written."""
        effect = b"null"

        async def tried(many: Sequence[Operation]) -> None:
            nonlocal effect
            effect = await self._trials.of_steps(user_id, many)

        rendered = _answered(await run(Caller(lambda _: (), tried=tried)))
        if rendered.status != 200:
            return rendered
        return rendered._replace(body=rendered.body[:-1] + b',"effect":' + effect + b"}")

    def _catalog(self) -> Store:
        return self._services.catalog("plans")

    def _service(self) -> Subscriptions:
        return Subscriptions(self._engine, self._catalog(), self._partitions)

    async def _check(self, body: PlanRequest) -> None:
        """Raises `Answered` for a plan of a rate card that there is not, or of rules that are none."""
        if body.rate_card is not None and await self._catalog().get(RateCardRow, body.rate_card) is None:
            raise Answered(validation_problem([("/rate_card", "there is no rate card of that id")]))
        if faults := faults_of(body.budgets or {}, self._scale):
            raise Answered(validation_problem(faults))

    async def _present(self, request: Request) -> PlanRow:
        plan_id = request.path["plan_id"]
        row = await self._catalog().get(PlanRow, plan_id) if OBJECT_ID.fullmatch(plan_id) else None
        if row is None or row.deleted:
            raise Answered(problem("plan-not-found", _DETAILS["plan-not-found"]))
        return row

    def _plan(self, row: PlanRow) -> Plan:
        budgets, limits = rules_in(row.rules, self._scale)
        return Plan(
            budgets=budgets,
            rate_limits=limits,
            id=row.plan_id,
            plan_id=row.plan_id,
            name=row.name,
            description=row.description,
            credit_limit=self._scale.credits(row.credit_limit),
            price=Decimal(row.price),
            billing_period=cast("BillingPeriod", row.billing_period),
            validity_days=row.validity_days,
            rollover=self._rollover(row),
            priority=row.priority,
            only=tags_in(row.only or "") or None,
            rate_card=row.rate_card,
            price_multiplier=None if row.price_multiplier is None else Decimal(row.price_multiplier) / 10**6,
            plan_group=row.plan_group,
            active=row.active,
            created_at=utc_time(row.created_at_ms),
            updated_at=utc_time(row.updated_at_ms),
        )

    def _rollover(self, row: PlanRow) -> Rollover | None:
        if row.rollover_days is None:
            return None
        most = None if row.rollover_max is None else self._scale.credits(row.rollover_max)
        return Rollover(max_amount=most, percent=row.rollover_percent, valid_days=row.rollover_days)


def _answered(found: SubscriptionRow | Refused) -> Rendered:
    if isinstance(found, SubscriptionRow):
        return answer(200, _subscription(found), exclude_unset=True)
    if found in _FAULTS:
        return validation_problem([("/plan_id", _FAULTS[found])])
    return problem(found, _DETAILS[found])


def _fingerprint(body: CreatePlanRequest) -> str:
    """What tells two bodies apart. A body of before there was such a member is the same body now."""
    left_out = {
        name
        for name in ("rollover", "only", "rate_card", "price_multiplier", "budgets", "rate_limits")
        if getattr(body, name) is None
    }
    return blake2b(body.model_dump_json(exclude=left_out).encode(), digest_size=16).hexdigest()


def _plan_row(
    body: PlanRequest, plan_id: str, created_at_ms: int, now_ms: int, version: int, scale: AmountScale
) -> PlanRow:
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
        only=only_text(body.only) if body.only else None,
        rate_card=body.rate_card,
        price_multiplier=body.price_multiplier,
        plan_group=body.plan_group,
        active=body.active,
        created_at_ms=created_at_ms,
        updated_at_ms=now_ms,
        version=version,
        rules=plan_rules_of(body.budgets, body.rate_limits, scale),
    )


def _subscription(row: SubscriptionRow) -> Subscription:
    return Subscription(
        subscription_id=row.subscription_id,
        user_id=row.user_id,
        plan_id=row.plan_id,
        plan_group=row.plan_group,
        state=cast("SubscriptionState", row.state),
        fault=row.fault,
        auto_renew=row.auto_renew,
        anchor_at=utc_time(row.anchor_at_ms),
        time_zone=row.time_zone,
        period=row.period,
        period_started_at=utc_time(row.period_started_at_ms),
        next_period_at=utc_time(row.next_period_at_ms),
        next_plan_id=row.next_plan_id,
        unspent=cast("Unspent", row.unspent),
        metadata=cast("dict[str, JsonValue] | None", row.metadata),
        created_at=utc_time(row.created_at_ms),
        updated_at=utc_time(row.updated_at_ms),
    )
