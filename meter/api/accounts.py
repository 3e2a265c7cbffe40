"""The calls about what an account may do."""

from __future__ import annotations

import re

import orjson

from meter.api.rule_words import budget_members, is_part, limit_members
from meter.api.services import Services, path_user
from meter.contract.requests import UserRequest
from meter.contract.rules import RULE_ID, VelocityChange
from meter.engine import operations, upkeep
from meter.engine.answers import NAME, NO_RULE, NOTHING, is_ok, word_of
from meter.engine.behind import NOTHING_BEHIND, read_behind, read_whole
from meter.engine.operations import Asked, Operation
from meter.engine.rules import BEGUN_ANEW, LEVELS_MAX, change_words
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
from meter.http.rendered import Rendered, problem, validation_problem
from meter.ledger.plan_rules import telling_of
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import RateCardRow

PLAN_GROUPS_MAX = 100
"""Of one account, which may be told."""
_TERMS = ("rate_card", "price_multiplier")
_RULES = ("budgets", "rate_limits", "velocity", "pool", "use_pools")


class AccountHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._redis = services.redis
        self._scale = services.scale
        self._renderer = services.renderer

    async def user(self, request: Request) -> Rendered:
        """`GET /credits/users/{user_id}`"""
        user_id = path_user(request)
        one = operations.balance(user_id)
        lines = await self._engine.run_many(self._engine.partition_of(user_id), [one, upkeep.rules(user_id)])
        return await self._as_it_is(user_id, one, *lines)

    async def configure(self, request: Request) -> Rendered:
        """`PATCH /credits/users/{user_id}`"""
        user_id, body = path_user(request), read_body(UserRequest, request, self._scale)
        thresholds = body.low_credit_thresholds
        terms = {name: _term(getattr(body, name)) for name in _TERMS if name in body.model_fields_set}
        if terms and user_id.count("/") >= LEVELS_MAX:
            fault = f"is of no use below {LEVELS_MAX} levels: deeper paths are priced as those are"
            return validation_problem([(f"/{name}", fault) for name in terms])
        if body.rate_card is not None and await self._is_unknown(body.rate_card):
            return validation_problem([("/rate_card", "there is no rate card of that id")])
        rules = [name for name in _RULES if getattr(body, name) is not None]
        if rules and user_id.count("/") >= LEVELS_MAX:
            return validation_problem([(f"/{name}", f"are of no use below {LEVELS_MAX} levels") for name in rules])
        budgets, limits = body.budgets or {}, body.rate_limits or {}
        if faults := [f"/budgets/{name}/limit" for name, change in budgets.items() if is_part(change, self._scale)]:
            return validation_problem([(fault, "must be whole: it counts requests") for fault in faults])
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            rate_card=terms.get("rate_card", ""),
            price_multiplier=terms.get("price_multiplier", ""),
            budgets=change_words({name: budget_members(change, self._scale) for name, change in budgets.items()}),
            rate_limits=change_words({name: limit_members(change) for name, change in limits.items()}),
            pool=body.pool,
            use_pools=body.use_pools,
            velocity=_velocity(body.velocity) if "velocity" in body.model_fields_set else "",
            asked=Asked(read_key(request), operations.members(body.description, None), actor=read_actor(request)),
        )
        changes = [change for change in budgets.values() if change is not None]
        zones = sorted({change.time_zone for change in changes if change.time_zone} - {"UTC"})
        first = [upkeep.calendars(zones)] if zones else []
        if periods := [name for name, change in budgets.items() if change is not None and change.window == "period"]:
            telling = await self._periods(user_id)
            if not telling:
                fault = "the account has no subscription whose period it could be"
                return validation_problem([(f"/budgets/{name}/window", fault) for name in periods])
            first += telling
        return await self._changed(user_id, one, first)

    async def reset_budget(self, request: Request) -> Rendered:
        """`POST /credits/users/{user_id}/budgets/{budget_id}/reset`"""
        user_id, budget_id = path_user(request), request.path["budget_id"]
        missing = problem("budget-not-found", "The account has no budget of that id.")
        if not re.fullmatch(RULE_ID, budget_id):
            return missing
        again = change_words({budget_id: (BEGUN_ANEW,)})
        one = operations.configure(user_id, budgets=again, asked=Asked(read_key(request), actor=read_actor(request)))
        line = await self._engine.run(user_id, one)
        if word_of(line) == NO_RULE.word:
            return missing
        return await self._told(user_id, one, line)

    async def _periods(self, user_id: str) -> list[Operation]:
        """What tells Redis of the subscriptions that an account has; empty without any."""
        rows = await self._services.catalog("subscriptions").find(
            SubscriptionRow, {"user_id": user_id}, order_by="plan_group", limit=PLAN_GROUPS_MAX
        )
        return [one for row in rows if row.state != "ended" for one in telling_of(row)]

    async def _changed(self, user_id: str, one: Operation, first: list[Operation]) -> Rendered:
        """`first`: what Redis has to know before, of calendars and periods that a budget names."""
        line = (await self._engine.run_many(self._engine.partition_of(user_id), [*first, one]))[-1]
        return await self._told(user_id, one, line)

    async def _told(self, user_id: str, one: Operation, line: str) -> Rendered:
        told, behind = read_behind(line) if is_ok(line) else (line, NOTHING_BEHIND)
        if behind.whole:
            terms, rules, metadata = read_whole(user_id, behind.whole)
            return self._renderer.user(one[NAME], told, rules, metadata, terms)
        return await self._as_it_is(user_id, one, told, await self._engine.run(user_id, upkeep.rules(user_id)))

    async def _as_it_is(self, user_id: str, one: Operation, line: str, rules: str) -> Rendered:
        keys = self._engine.partitions[self._engine.partition_of(user_id)]
        metadata = await self._redis.field(keys.profiles, user_id)
        terms = await self._redis.field(keys.rates, f"u {user_id}")
        text, prices = (
            none if found is None else found.decode() for none, found in (("null", metadata), ("- -", terms))
        )
        return self._renderer.user(one[NAME], line, rules, text, prices)

    async def _is_unknown(self, rate_card_id: str) -> bool:
        return await self._services.catalog("rate cards").get(RateCardRow, rate_card_id) is None


def _velocity(change: VelocityChange | None) -> str:
    """A breaker as the script reads it (lua/state/breaker.lua)."""
    if change is None:
        return NOTHING
    pause_ms = (change.pause_seconds or change.per_seconds) * 1000
    return f"{change.limit},{change.per_seconds * 1000},{change.action[0]},{pause_ms}"


def _term(value: str | int | None) -> str:
    return NOTHING if value is None else str(value)
