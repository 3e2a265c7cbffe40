"""The calls about grants: what there is to burn, what ends soon, and ending one early."""

from __future__ import annotations

from meter.api.services import Services, asked_of, path_id, path_user
from meter.clock import DAY_MS, NEVER_MS
from meter.contract.requests import ExpiringQuery, GrantsQuery, VoidRequest
from meter.engine import operations
from meter.http.exchange import Request
from meter.http.reading import pair_cursor, read_body, read_key, read_query, script_cursor
from meter.http.rendered import Rendered, page


class GrantHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._store = services.store
        self._scale = services.scale
        self._renderer = services.renderer

    async def grants(self, request: Request) -> Rendered:
        """`GET /credits/grants/{user_id}`: live ones from Redis, `?state=all` from the store where there is one."""
        user_id, query = path_user(request), read_query(GrantsQuery, request, self._scale)
        if query.state == "live" or self._store is None:
            one = operations.grants(user_id, query.state, script_cursor(query.cursor), query.limit)
            return self._renderer.grants(await self._engine.run(user_id, one))
        rows = await self._store.grants_of(user_id, after=pair_cursor(query.cursor), limit=query.limit)
        now_ms = await self._engine.now_ms()
        cursor = f"{rows[-1].created_at_ms}~{rows[-1].grant_id}" if len(rows) == query.limit else None
        return page([self._renderer.stored_grant(row, now_ms) for row in rows], cursor)

    async def expiring(self, request: Request) -> Rendered:
        """`GET /credits/expiring/{user_id}`"""
        user_id, query = path_user(request), read_query(ExpiringQuery, request, self._scale)
        until_ms = await self._services.now_ms(user_id) + round(query.days * DAY_MS)
        one = operations.expiring(user_id, min(until_ms, NEVER_MS), script_cursor(query.cursor), query.limit)
        return self._renderer.grants(await self._engine.run(user_id, one))

    async def void(self, request: Request) -> Rendered:
        """`POST /credits/grants/{user_id}/{grant_id}/void`"""
        body = read_body(VoidRequest, request, self._scale)
        user_id, grant_id = path_user(request), path_id(request, "grant_id")
        one = operations.void(user_id, grant_id, asked_of(body, read_key(request)))
        return self._renderer.render("void", await self._engine.run(user_id, one))
