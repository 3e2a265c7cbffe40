"""The calls about what an account may do."""

from __future__ import annotations

import orjson

from meter.api.services import Services, path_user
from meter.contract.requests import UserRequest
from meter.engine import operations
from meter.engine.answers import NAME, NOTHING
from meter.engine.operations import Asked, Operation
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
from meter.http.rendered import Rendered, validation_problem
from meter.store.rows import RateCardRow

_TERMS = ("rate_card", "price_multiplier")
LEVELS_MAX = 6
"""Levels of a path that can say anything of prices (lua/state/rates.lua)."""


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
        return await self._user(user_id, operations.balance(user_id))

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
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            rate_card=terms.get("rate_card", ""),
            price_multiplier=terms.get("price_multiplier", ""),
            asked=Asked(read_key(request), operations.members(body.description, None), actor=read_actor(request)),
        )
        return await self._user(user_id, one)

    async def _user(self, user_id: str, one: Operation) -> Rendered:
        line = await self._engine.run(user_id, one)
        keys = self._engine.partitions[self._engine.partition_of(user_id)]
        metadata = await self._redis.field(keys.profiles, user_id)
        text = "null" if metadata is None else metadata.decode()
        terms = await self._redis.field(keys.rates, f"u {user_id}")
        return self._renderer.user(one[NAME], line, text, (b"- -" if terms is None else terms).decode())

    async def _is_unknown(self, rate_card_id: str) -> bool:
        return await self._services.catalog("rate cards").get(RateCardRow, rate_card_id) is None


def _term(value: str | int | None) -> str:
    return NOTHING if value is None else str(value)
