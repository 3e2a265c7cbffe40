"""The handlers of auto top-up."""

from __future__ import annotations

from decimal import Decimal
from typing import cast

from meter.api.services import Services, path_user
from meter.clock import utc_time
from meter.contract.top_ups import ListedTopUp, Outcome, TopUp, TopUpRequest, TopUpsQuery, TopUpSwitchRequest
from meter.engine.answers import is_ok
from meter.engine.operations import Asked, members
from meter.engine.top_ups import OFF, TOP_UP, WAITING, Change, Terms, read_word, top_up
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key, read_query
from meter.http.rendered import Rendered, answer, model_json, page, validation_problem
from meter.store.top_up_rows import TopUpRow

_NEWEST = Cursors("top-ups", NUMBER, ID)
_WANTS_PROVIDER = "METER_PAYMENTS names no provider of payments, so nothing could be bought"


class TopUpHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._scale = services.scale
        self._renderer = services.renderer

    async def set_top_up(self, request: Request) -> Rendered:
        """`PUT /credits/users/{user_id}/top-up`"""
        user_id, body = path_user(request), read_body(TopUpRequest, request, self._scale)
        if not self._services.settings.payments:
            return validation_problem([("/payment_reference", _WANTS_PROVIDER)])
        terms = Terms(body.below, body.amount, body.most, body.period, body.payment_reference)
        return await self._changed(request, user_id, "set", terms.text)

    async def top_up(self, request: Request) -> Rendered:
        """`GET /credits/users/{user_id}/top-up`"""
        user_id = path_user(request)
        return self._shown(await self._engine.run(user_id, top_up(user_id)))

    async def switch_top_up(self, request: Request) -> Rendered:
        """`PATCH /credits/users/{user_id}/top-up`"""
        user_id, body = path_user(request), read_body(TopUpSwitchRequest, request, self._scale)
        if body.enabled and not self._services.settings.payments:
            return validation_problem([("/enabled", _WANTS_PROVIDER)])
        return await self._changed(request, user_id, "on" if body.enabled else "off", description=body.description)

    async def remove_top_up(self, request: Request) -> Rendered:
        """`DELETE /credits/users/{user_id}/top-up`"""
        return await self._changed(request, path_user(request), "remove")

    async def top_ups(self, request: Request) -> Rendered:
        """`GET /credits/top-ups`"""
        query = read_query(TopUpsQuery, request, self._scale)
        after = _NEWEST.read(query.cursor)
        wanted = {"user_id": query.user_id, "state": query.state}
        rows = await self._services.catalog("top-ups").find(
            TopUpRow,
            {name: value for name, value in wanted.items() if value is not None},
            order_by="created_at_ms",
            after=(int(after[0]), after[1]) if after else None,
            descending=True,
            limit=query.limit,
        )
        cursor = _NEWEST.write(rows[-1].created_at_ms, rows[-1].top_up_id) if len(rows) == query.limit else None
        return page([model_json(self._listed(row)) for row in rows], cursor)

    async def _changed(
        self, request: Request, user_id: str, change: Change, value: str = "", description: str | None = None
    ) -> Rendered:
        asked = Asked(read_key(request), members(description, None), actor=read_actor(request))
        return self._shown(await self._engine.run(user_id, top_up(user_id, change, value, asked)))

    def _shown(self, line: str) -> Rendered:
        if not is_ok(line):
            return self._renderer.render(TOP_UP.name, line)
        told = TOP_UP.read(line)
        word, user_id = read_word(told["top_up"]), told["user_id"]
        if word is None:
            nothing = dict.fromkeys(("below", "amount", "most", "period", "payment_reference", "top_up_id"))
            model = TopUp.model_validate({"user_id": user_id, "state": "none", **nothing})
        else:
            below, amount, most, period, reference = word.terms
            model = TopUp(
                user_id=user_id,
                state="off" if word.state == OFF else "waiting" if word.state == WAITING else "on",
                below=self._credits(below),
                amount=self._credits(amount),
                most=None if most is None else self._credits(most),
                period=period,
                payment_reference=reference,
                top_up_id=word.top_up_id,
            )
        return answer(200, model)._replace(replayed=told.replayed)

    def _listed(self, row: TopUpRow) -> ListedTopUp:
        is_open = row.state == "open"
        asked, ended, reversed_ = (
            None if ms is None else utc_time(ms) for ms in (row.asked_at_ms, row.ended_at_ms, row.reversed_at_ms)
        )
        return ListedTopUp.model_validate(
            {
                "top_up_id": row.top_up_id,
                "user_id": row.user_id,
                "amount": self._credits(row.amount),
                "state": row.state,
                "step": row.step if is_open else None,
                "outcome": cast("Outcome | None", row.outcome),
                "declines": row.declines,
                "payment_reference": row.reference,
                "payment_id": row.payment_id,
                "reason": row.error,
                "created_at": utc_time(row.created_at_ms),
                "asked_at": asked,
                "next_attempt_at": utc_time(row.next_attempt_at_ms) if is_open else None,
                "ended_at": ended,
                "reversed_at": reversed_,
            }
        )

    def _credits(self, units: int) -> Decimal:
        return self._scale.credits(units)
