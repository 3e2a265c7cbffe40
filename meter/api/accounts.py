"""The calls about what an account may do."""

from __future__ import annotations

import orjson

from meter.api.services import Services, path_user
from meter.contract.requests import UserRequest
from meter.engine import operations
from meter.engine.answers import NAME
from meter.engine.operations import Asked, Operation
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
from meter.http.rendered import Rendered


class AccountHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
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
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            asked=Asked(read_key(request), operations.members(body.description, None), actor=read_actor(request)),
        )
        return await self._user(user_id, one)

    async def _user(self, user_id: str, one: Operation) -> Rendered:
        line = await self._engine.run(user_id, one)
        keys = self._engine.partitions[self._engine.partition_of(user_id)]
        metadata = await self._redis.field(keys.profiles, user_id)
        text = "null" if metadata is None else metadata.decode()
        return self._renderer.user(one[NAME], line, text)
