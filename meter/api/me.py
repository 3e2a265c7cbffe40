"""What users ask about themselves: who that is, their own API key says, whose scope is `read:self`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from meter.api.credits import CreditHandlers
from meter.api.keys import KeyHandlers
from meter.api.refusals import DETAILS
from meter.api.reports import ReportHandlers
from meter.api.services import Services
from meter.contract.me import MyUsageQuery
from meter.contract.requests import Query
from meter.engine.answers import NOTHING, is_ok
from meter.engine.api_keys import IDENTIFY, identify
from meter.engine.presented import READ_SELF
from meter.http.credentials import brought_key
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Answered, Rendered, problem


class MeHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credits = CreditHandlers(services)
        self._reports = ReportHandlers(services)
        self._keys = KeyHandlers(services)

    async def my_balance(self, request: Request) -> Rendered:
        """`GET /me/balance`"""
        return await self._as_user(request, await self._me(request), self._credits.balance_at, request.query)

    async def my_history(self, request: Request) -> Rendered:
        """`GET /me/history`"""
        return await self._as_user(request, await self._me(request), self._credits.history, request.query)

    async def my_usage(self, request: Request) -> Rendered:
        """`GET /me/usage`"""
        user_id = await self._me(request)
        query = read_query(MyUsageQuery, request, self._services.scale)
        asked = {name: value for name, value in query.model_dump(mode="json", by_alias=True).items() if value}
        if query.is_of_figures:
            whose = {"path": user_id, "group_by": ",".join(query.group_by or ())}
        else:
            whose = {"user_id": user_id, "by": query.by or "day"}
        told = {name: str(value) for name, value in {**asked, **whose}.items() if value}
        return await self._as_user(request, user_id, self._reports.usage, urlencode(told))

    async def my_keys(self, request: Request) -> Rendered:
        """`GET /me/keys`"""
        user_id = await self._me(request)
        query = read_query(Query, request, self._services.scale)
        asked = {"limit": str(query.limit), "cursor": query.cursor, "user_id": user_id}
        return await self._as_user(request, user_id, self._keys.keys, urlencode(asked))

    async def _me(self, request: Request) -> str:
        """Whose the key of the request is. Raises `Answered`."""
        text = brought_key(request.headers)
        if not text:
            raise Answered(problem("missing-identity", "The request needs an API key: Authorization: Bearer mk_…"))
        attempts = self._services.attempts
        key = attempts.read(request.source, text)
        engine = self._services.engine
        (line,) = await engine.run_many(key.root % len(engine.partitions), [identify(key)])
        told = IDENTIFY.read(line) if is_ok(line) else None
        if told is None or told["user_id"] == NOTHING:
            raise attempts.refused(request.source, key)
        attempts.let_in(key)
        if READ_SELF not in told["scopes"].split(","):
            raise Answered(problem("key-not-allowed", DETAILS["key-not-allowed"], f'"scope":"{READ_SELF}"'))
        return told["user_id"]

    async def _as_user(
        self, request: Request, user_id: str, run: Callable[[Request], Awaitable[Rendered]], query: str = ""
    ) -> Rendered:
        return await run(Request({"user_id": user_id}, query, request.headers))
