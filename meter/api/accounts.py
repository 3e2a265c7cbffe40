"""The calls about what an account may do."""

from __future__ import annotations

import orjson

from meter.api.services import Services, path_user
from meter.contract.requests import UserRequest
from meter.contract.rules import BudgetChange, RateLimitChange
from meter.engine import operations, upkeep
from meter.engine.answers import NAME, NOTHING, is_ok
from meter.engine.behind import NOTHING_BEHIND, read_behind, read_whole
from meter.engine.operations import Asked, Operation
from meter.engine.rules import KEPT, LEVELS_MAX, change_words
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
from meter.http.rendered import Rendered, validation_problem
from meter.store.rows import RateCardRow

_TERMS = ("rate_card", "price_multiplier")


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
        rules = [name for name in ("budgets", "rate_limits", "pool", "use_pools") if getattr(body, name) is not None]
        if rules and user_id.count("/") >= LEVELS_MAX:
            return validation_problem([(f"/{name}", f"are of no use below {LEVELS_MAX} levels") for name in rules])
        budgets, limits = body.budgets or {}, body.rate_limits or {}
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            rate_card=terms.get("rate_card", ""),
            price_multiplier=terms.get("price_multiplier", ""),
            budgets=change_words({name: _budget(change) for name, change in budgets.items()}),
            rate_limits=change_words({name: _limit(change) for name, change in limits.items()}),
            pool=body.pool,
            use_pools=body.use_pools,
            asked=Asked(read_key(request), operations.members(body.description, None), actor=read_actor(request)),
        )
        zones = {change.time_zone for change in budgets.values() if change is not None and change.time_zone}
        return await self._changed(user_id, one, zones - {"UTC"})

    async def _changed(self, user_id: str, one: Operation, zones: set[str]) -> Rendered:
        """`zones`: time zones that a budget names, whose calendars Redis has to have first."""
        calendars = [upkeep.calendars(sorted(zones))] if zones else []
        line = (await self._engine.run_many(self._engine.partition_of(user_id), [*calendars, one]))[-1]
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


def _budget(change: BudgetChange | None) -> tuple[str, ...] | None:
    """The members of a budget as a change names them (lua/state/editing.lua); of one that is null its default."""
    if change is None:
        return None
    said = change.model_fields_set
    limit, window = (KEPT if value is None else str(value) for value in (change.limit, change.window))
    zone = (change.time_zone or "UTC") if "time_zone" in said else KEPT
    return limit, window, zone, KEPT, KEPT, KEPT, KEPT


def _limit(change: RateLimitChange | None) -> tuple[str, ...] | None:
    """The members of a rate limit likewise."""
    if change is None:
        return None
    said = change.model_fields_set
    kind, limit = (KEPT if value is None else str(value) for value in (change.kind, change.limit))
    per_ms = str((change.per_seconds or 60) * 1000) if "per_seconds" in said else KEPT
    burst = ("*" if change.burst is None else str(change.burst)) if "burst" in said else KEPT
    return kind, limit, per_ms, burst, KEPT, KEPT, KEPT


def _term(value: str | int | None) -> str:
    return NOTHING if value is None else str(value)
