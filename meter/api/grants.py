"""The calls about grants: what there is to burn, what ends soon, and ending one early."""

from __future__ import annotations

from meter.api.services import Services, asked_of, lists_of, path_id, path_user
from meter.api.trials import Trials
from meter.clock import DAY_MS, NEVER_MS
from meter.contract.requests import ExpiringQuery, GrantsQuery, VoidRequest
from meter.engine import operations
from meter.engine.operations import UNKEYED
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_key, read_query
from meter.http.rendered import Rendered, page

# Positions of the first two as the scripts have them.
BY_BURN_ORDER = Cursors("grants", r"(\.|[A-Z0-9]{1,4} [0-9]{45} [A-Za-z0-9_.:-]{1,128})")
BY_END = Cursors("expiring", r"([0-9]{13} [a-z] [A-Za-z0-9_.:-]{1,128})")
BY_CREATION = Cursors("all grants", NUMBER, ID)


class GrantHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._lists = lists_of(services)
        self._scale = services.scale
        self._renderer = services.renderer
        self._trials = Trials(services)

    async def grants(self, request: Request) -> Rendered:
        """`GET /credits/grants/{user_id}`: live ones in burn order, all of them by their making."""
        user_id, query = path_user(request), read_query(GrantsQuery, request, self._scale)
        if query.state == "live" or self._lists is None:
            [position] = BY_BURN_ORDER.read(query.cursor, user_id) or [""]
            operation = operations.grants(user_id, query.state, position, query.limit)
            return self._renderer.grants(await self._engine.run(user_id, operation), BY_BURN_ORDER)
        after = BY_CREATION.read(query.cursor, user_id)
        rows = await self._lists.grants(user_id, (int(after[0]), after[1]) if after else None, query.limit)
        now_ms = await self._services.now_ms(user_id)
        last = rows[-1] if len(rows) == query.limit else None
        cursor = None if last is None else BY_CREATION.write(last.created_at_ms, last.grant_id, scope=user_id)
        return page([self._renderer.stored_grant(row, now_ms) for row in rows], cursor)

    async def expiring(self, request: Request) -> Rendered:
        """`GET /credits/expiring/{user_id}`"""
        user_id, query = path_user(request), read_query(ExpiringQuery, request, self._scale)
        until_ms = await self._services.now_ms(user_id) + round(query.days * DAY_MS)
        [position] = BY_END.read(query.cursor, user_id) or [""]
        operation = operations.expiring(user_id, min(until_ms, NEVER_MS), position, query.limit)
        return self._renderer.grants(await self._engine.run(user_id, operation), BY_END)

    async def void(self, request: Request) -> Rendered:
        """`POST /credits/grants/{user_id}/{grant_id}/void`"""
        body = read_body(VoidRequest, request, self._scale)
        user_id, grant_id = path_user(request), path_id(request, "grant_id")
        asked = asked_of(body, read_key(request), request, begins=True)
        one = operations.void(user_id, grant_id, UNKEYED if body.dry_run else asked)
        if body.dry_run:
            return await self._trials.answer(user_id, one)
        return self._renderer.render("void", await self._engine.run(user_id, one))
