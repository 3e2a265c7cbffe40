"""The call that tells what ends soon, of everybody."""

from __future__ import annotations

from meter.api.services import Services
from meter.clock import DAY_MS, NEVER_MS, utc_time
from meter.contract.requests import ExpiringQuery
from meter.contract.search import EndingGrant
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Rendered, json_text, model_json, page
from meter.store.base import Store
from meter.store.catalog import Plain
from meter.store.rows import GrantRow

_BY_END = Cursors("ending", NUMBER, r"([A-Za-z0-9_.:@/-]{1,128})", ID)
PAGE = 500
GRANTS_MAX = 20_000
"""Grants that are added up at once."""

_Place = tuple[int, str, str]


class EndingHandler:
    """From what the store has."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale

    async def ending(self, request: Request) -> Rendered:
        """`GET /credits/expiring`"""
        query, store = read_query(ExpiringQuery, request, self._scale), self._services.catalog("reports")
        now_ms = await self._services.engine.now_ms()
        until_ms = min(now_ms + round(query.days * DAY_MS), NEVER_MS - 1)
        scope = str(query.days)
        place = _BY_END.read(query.cursor, scope)
        after = (int(place[0]), place[1], place[2]) if place else (now_ms, "\x7f", "")
        rows = await _page(store, after, until_ms, query.limit)
        following = None
        if len(rows) == query.limit:
            last = rows[-1]
            following = _BY_END.write(last.expires_at_ms, last.user_id, last.grant_id, scope=scope)
        credits_, users = await _sum(store, (now_ms, "\x7f", ""), until_ms)
        amount = "null" if credits_ is None else format(self._scale.credits(credits_), "f")
        return page([self._item(row) for row in rows], following, f',"credits":{amount},"users":{json_text(users)}')

    def _item(self, row: GrantRow) -> str:
        told = EndingGrant(
            user_id=row.user_id,
            grant_id=row.grant_id,
            remaining=self._scale.credits(row.remaining),
            expires_at=utc_time(row.expires_at_ms),
        )
        return model_json(told)


async def _page(store: Store, after: _Place, until_ms: int, limit: int) -> list[GrantRow]:
    live: dict[str, Plain] = {"state": "active", "pending": False}
    return await store.find(GrantRow, live, order_by="expires_at_ms", after=after, until=until_ms, limit=limit)


async def _sum(store: Store, after: _Place, until_ms: int) -> tuple[int | None, int | None]:
    """Units, and of how many users; None for more than can be added up."""
    units, users = 0, set[str]()
    for _ in range(GRANTS_MAX // PAGE):
        rows = await _page(store, after, until_ms, PAGE)
        units += sum(row.remaining for row in rows)
        users.update(row.user_id for row in rows)
        if len(rows) < PAGE:
            return units, len(users)
        after = (rows[-1].expires_at_ms, rows[-1].user_id, rows[-1].grant_id)
    return None, None
