"""The calls about what an account may do."""

from __future__ import annotations

import re

import orjson

from meter.api.services import Services, path_user
from meter.contract.requests import UserRequest
from meter.contract.rules import RULE_ID, BudgetChange, RateLimitChange, VelocityChange
from meter.engine import operations, upkeep
from meter.engine.answers import NAME, NO_RULE, NOTHING, is_ok, word_of
from meter.engine.behind import NOTHING_BEHIND, read_behind, read_whole
from meter.engine.operations import Asked, Operation
from meter.engine.rules import BEGUN_ANEW, KEPT, LEVELS_MAX, change_words
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
from meter.http.rendered import Rendered, problem, validation_problem
from meter.store.rows import RateCardRow

MILLION = 1_000_000
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
        if faults := [f"/budgets/{name}/limit" for name, change in budgets.items() if self._is_part(change)]:
            return validation_problem([(fault, "must be whole: it counts requests") for fault in faults])
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            rate_card=terms.get("rate_card", ""),
            price_multiplier=terms.get("price_multiplier", ""),
            budgets=change_words({name: self._budget(change) for name, change in budgets.items()}),
            rate_limits=change_words({name: _limit(change) for name, change in limits.items()}),
            pool=body.pool,
            use_pools=body.use_pools,
            velocity=_velocity(body.velocity) if "velocity" in body.model_fields_set else "",
            asked=Asked(read_key(request), operations.members(body.description, None), actor=read_actor(request)),
        )
        zones = {change.time_zone for change in budgets.values() if change is not None and change.time_zone}
        return await self._changed(user_id, one, zones - {"UTC"})

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

    async def _changed(self, user_id: str, one: Operation, zones: set[str]) -> Rendered:
        """`zones`: time zones that a budget names, whose calendars Redis has to have first."""
        calendars = [upkeep.calendars(sorted(zones))] if zones else []
        line = (await self._engine.run_many(self._engine.partition_of(user_id), [*calendars, one]))[-1]
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

    def _is_part(self, change: BudgetChange | None) -> bool:
        """Whether a budget of requests has a limit that is not whole."""
        if change is None or change.unit != "requests" or change.limit is None:
            return False
        return bool(change.limit % self._scale.units_per_credit)

    def _budget(self, change: BudgetChange | None) -> tuple[str, ...] | None:
        """The members of a budget as a change names them (lua/state/editing.lua); of one that is null its default."""
        if change is None:
            return None
        said, limit = change.model_fields_set, KEPT
        if change.limit is not None:
            count, rest = divmod(change.limit, self._scale.units_per_credit)
            limit = f"{change.limit}:" + ("" if rest else str(count))
        window = change.window or KEPT
        zone = (change.time_zone or "UTC") if "time_zone" in said else KEPT
        mode = (change.mode or "enforce")[0] if "mode" in said else KEPT
        unit = (change.unit or "credits")[0] if "unit" in said else KEPT
        parts = sorted({round(part * MILLION) for part in change.alert_at or ()})
        alerts = ("+".join(map(str, parts)) or NOTHING) if "alert_at" in said else KEPT
        return limit, window, zone, mode, unit, KEPT, alerts

    async def _is_unknown(self, rate_card_id: str) -> bool:
        return await self._services.catalog("rate cards").get(RateCardRow, rate_card_id) is None


def _limit(change: RateLimitChange | None) -> tuple[str, ...] | None:
    """The members of a rate limit likewise."""
    if change is None:
        return None
    said = change.model_fields_set
    kind, limit = (KEPT if value is None else str(value) for value in (change.kind, change.limit))
    per_ms = str((change.per_seconds or 60) * 1000) if "per_seconds" in said else KEPT
    burst = ("*" if change.burst is None else str(change.burst)) if "burst" in said else KEPT
    return kind, limit, per_ms, burst, KEPT, KEPT, KEPT


def _velocity(change: VelocityChange | None) -> str:
    """A breaker as the script reads it (lua/state/breaker.lua)."""
    if change is None:
        return NOTHING
    pause_ms = (change.pause_seconds or change.per_seconds) * 1000
    return f"{change.limit},{change.per_seconds * 1000},{change.action[0]},{pause_ms}"


def _term(value: str | int | None) -> str:
    return NOTHING if value is None else str(value)
