"""The calls about what was refused, and how a kept refusal is told."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from meter.api.services import Services, path_user
from meter.clock import DAY_MS, HOUR_MS, milliseconds, time_text, utc_time
from meter.contract.requests import Query
from meter.contract.search import RefusalCount, RefusalsQuery
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Answered, Rendered, json_text, model_json, page, validation_problem
from meter.ledger.refusal_counts import ROWS_MAX, TooMany, counted
from meter.ledger.refusals import KEPT_OF_A_USER, REFUSAL
from meter.store.base import Store
from meter.store.rows import EventRow

_BY_COUNT = Cursors("refusals", NUMBER)
_BY_TIME = Cursors("refusals of a user", NUMBER, NUMBER, ID)


class RefusalHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale

    async def refusals(self, request: Request) -> Rendered:
        """`GET /credits/refusals`"""
        query, store = read_query(RefusalsQuery, request, self._scale), await self._store()
        now_ms = await self._services.engine.now_ms()
        to_ms = now_ms + 1 if query.to is None else milliseconds(query.to)
        from_ms = to_ms - DAY_MS if query.from_ is None else milliseconds(query.from_)
        from_ms, to_ms = from_ms - from_ms % HOUR_MS, to_ms - to_ms % -HOUR_MS
        found = await counted(store, query.group_by, max(0, from_ms), to_ms)
        if isinstance(found, TooMany):
            fault = f"more than {ROWS_MAX} users, reasons and hours: narrow the span, or leave user out"
            raise Answered(validation_problem([("/from", fault)]))
        scope = f"{query.group_by} {query.from_} {query.to}"
        [place] = _BY_COUNT.read(query.cursor, scope) or ["0"]
        until = int(place) + query.limit
        items = [_count(words, refusals) for words, refusals in found[int(place) : until]]
        return page(items, _BY_COUNT.write(until, scope=scope) if until < len(found) else None)

    async def refusals_of(self, request: Request) -> Rendered:
        """`GET /credits/refusals/{user_id}`"""
        user_id, query, store = path_user(request), read_query(Query, request, self._scale), await self._store()
        place = _BY_TIME.read(query.cursor, user_id)
        told = int(place[0]) if place else 0
        before = (int(place[1]), place[2]) if place else None
        limit = min(query.limit, KEPT_OF_A_USER - told)
        rows = await store.events(kind=REFUSAL, user_id=user_id, before=before, limit=limit) if limit > 0 else []
        following = None
        if len(rows) == query.limit and told + len(rows) < KEPT_OF_A_USER:
            following = _BY_TIME.write(told + len(rows), rows[-1].created_at_ms, rows[-1].event_id, scope=user_id)
        return page([refused_json(row) for row in rows], following)

    async def _store(self) -> Store:
        """The store, which has what this process has refused."""
        store = self._services.catalog("refusals")
        if self._services.refusals is not None:
            await self._services.refusals.flush()
        return store


def _count(words: Mapping[str, str | int], refusals: int) -> str:
    told: dict[str, object] = {name: utc_time(int(value)) if name == "hour" else value for name, value in words.items()}
    return model_json(RefusalCount.model_validate({**told, "refusals": refusals}), exclude_unset=True)


def refused_json(row: EventRow) -> str:
    """What was refused, with the figures of its moment."""
    detail = row.detail if isinstance(row.detail, dict) else {}

    def text(name: str) -> str:
        return json_text(detail.get(name))

    def number(name: str) -> str:
        value = detail.get(name)
        return "null" if value is None else str(value)

    told = detail.get("violations")
    violations = [_violation(one) for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return (
        f'{{"kind":"refusal","refusal_id":"{row.event_id}","user_id":{json_text(row.user_id)},'
        f'"operation":{text("operation")},"reason":{text("refusal")},"amount":{number("amount")},'
        f'"available":{number("available")},"violations":{orjson.dumps(violations).decode()},"reservation_id":{text("reservation_id")},'
        f'"reference":{json_text(row.reference)},"actor":{text("actor")},"key_id":{text("key_id")},'
        f'"created_at":{time_text(row.created_at_ms)}}}'
    )


def _violation(told: Mapping[str, object]) -> dict[str, object]:
    """A rule that refused, with amounts as numbers, digit by digit."""
    amounts = {name: told[name] for name in ("limit", "used", "reserved", "required") if name in told}
    return {**told, **{name: orjson.Fragment(str(value)) for name, value in amounts.items()}}
