"""The calls about rate cards, and the quote."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from meter.api.idempotency import KeyedCall, answered_once, keyed_call, until_first
from meter.api.services import Services, asked_by, tags_of, usage_of, user_of
from meter.clock import milliseconds, utc_time
from meter.contract.rates import (
    ACTIVATIONS_MAX,
    ActivateRequest,
    ListedRateCard,
    RateCard,
    RateCardRequest,
    RateLineRequest,
)
from meter.contract.requests import Query, QuoteRequest
from meter.engine import priced
from meter.engine.presented import PresentedOperation
from meter.engine.prices import Activation, activations_text
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_key, read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem, validation_problem
from meter.keys import OBJECT_ID
from meter.ledger.rate_cards import DUE, activations_of, apply_card
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.rows import ActivationRow, RateCardRow, RateCardVersionRow

_BY_ID = Cursors("rate cards", ID)
_BY_NUMBER = Cursors("versions of a rate card", NUMBER)
_NOT_FOUND = "There is no rate card of that id."


class RateCardHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._scale = services.scale
        self._renderer = services.renderer

    async def quote(self, request: Request) -> Rendered:
        """`POST /credits/quote`"""
        body = read_body(QuoteRequest, request, self._scale)
        read_key(request)
        amount = body.amount if body.usage is None else body.amount_without_price
        if body.api_key is None:
            user_id = user_of(body)
            one = priced.quote(user_id, usage=usage_of(body), amount=amount, tags=tags_of(body))
            one = one if request.caller is None else asked_by(request.caller, one, user_id)
        else:
            user_id, presented = await self._services.payer_of(body.api_key)
            asked = priced.quote(user_id, usage=usage_of(body), amount=amount, tags=tags_of(body))
            one = PresentedOperation.of(asked, presented)
        return self._renderer.quote(await self._engine.run(user_id, one))

    async def put_rate_card(self, request: Request) -> Rendered:
        """`PUT /credits/rate-cards/{rate_card_id}`: its next version."""
        body, rate_card_id = read_body(RateCardRequest, request, self._scale), _path_id(request)
        call = keyed_call("put_rate_card", request, body)

        async def once() -> Rendered | None:
            now_ms, present = await self._engine.now_ms(), await self._store().get(RateCardRow, rate_card_id)
            number = 1 if present is None else present.latest + 1
            version = RateCardVersionRow(
                rate_card_id=rate_card_id, number=number, body=_kept(body), created_at_ms=now_ms
            )
            effective_ms = now_ms if body.effective_at is None else max(now_ms, milliseconds(body.effective_at))
            return await self._activate(call, present, version, effective_ms, now_ms)

        return await self._applied(rate_card_id, call, partial(until_first, once))

    async def activate_rate_card(self, request: Request) -> Rendered:
        """`POST /credits/rate-cards/{rate_card_id}/activate`: a version that there is, back as well."""
        body, rate_card_id = read_body(ActivateRequest, request, self._scale), _path_id(request)
        call = keyed_call("activate_rate_card", request, body)

        async def once() -> Rendered | None:
            now_ms, present = await self._engine.now_ms(), await self._present(rate_card_id)
            version = await self._store().get(RateCardVersionRow, rate_card_id, body.version)
            if version is None:
                return problem("rate-card-version-not-found", f"The rate card has versions 1 to {present.latest}.")
            effective_ms = now_ms if body.effective_at is None else max(now_ms, milliseconds(body.effective_at))
            return await self._activate(call, present, version, effective_ms, now_ms)

        return await self._applied(rate_card_id, call, partial(until_first, once))

    async def rate_cards(self, request: Request) -> Rendered:
        """`GET /credits/rate-cards`"""
        query, now_ms = read_query(Query, request, self._scale), await self._engine.now_ms()
        after = _BY_ID.read(query.cursor) or None
        rows = await self._store().find(RateCardRow, {}, order_by="rate_card_id", after=after, limit=query.limit)
        cursor = _BY_ID.write(rows[-1].rate_card_id) if len(rows) == query.limit else None
        return page([model_json(await self._listed(row, now_ms)) for row in rows], cursor)

    async def rate_card(self, request: Request) -> Rendered:
        """`GET /credits/rate-cards/{rate_card_id}`: the version that prices now, else the youngest."""
        row, now_ms = await self._present(_path_id(request)), await self._engine.now_ms()
        activations = await activations_of(self._store(), row.rate_card_id)
        number = _active(activations, now_ms) or row.latest
        version = await self._store().get(RateCardVersionRow, row.rate_card_id, number)
        if version is None:
            raise Answered(problem("rate-card-not-found", _NOT_FOUND))
        return answer(200, self._card(version, activations, now_ms))

    async def rate_card_versions(self, request: Request) -> Rendered:
        """`GET /credits/rate-cards/{rate_card_id}/versions`"""
        query, row = read_query(Query, request, self._scale), await self._present(_path_id(request))
        now_ms, activations = await self._engine.now_ms(), await activations_of(self._store(), row.rate_card_id)
        read = _BY_NUMBER.read(query.cursor, row.rate_card_id)
        after = (int(read[0]), row.rate_card_id) if read else None
        equal = {"rate_card_id": row.rate_card_id}
        rows = await self._store().find(RateCardVersionRow, equal, order_by="number", after=after, limit=query.limit)
        cursor = _BY_NUMBER.write(rows[-1].number, scope=row.rate_card_id) if len(rows) == query.limit else None
        return page([model_json(self._card(version, activations, now_ms)) for version in rows], cursor)

    async def _activate(
        self,
        call: KeyedCall,
        present: RateCardRow | None,
        version: RateCardVersionRow,
        effective_ms: int,
        now_ms: int,
    ) -> Rendered | None:
        """Commits a version, where it is new, with its activation; None when another process was first."""
        rate_card_id, activations = version.rate_card_id, await activations_of(self._store(), version.rate_card_id)
        if sum(one.effective_at_ms > now_ms for one in activations) >= ACTIVATIONS_MAX:
            return validation_problem([("/effective_at", f"{ACTIVATIONS_MAX} activations are still to come")])
        card = RateCardRow(
            rate_card_id=rate_card_id,
            latest=version.number if present is None else max(present.latest, version.number),
            state=DUE,
            created_at_ms=now_ms if present is None else present.created_at_ms,
            updated_at_ms=now_ms,
            version=1 if present is None else present.version + 1,
        )
        activation = ActivationRow(
            rate_card_id=rate_card_id,
            number=card.version,
            rate_card_version=version.number,
            effective_at_ms=effective_ms,
            created_at_ms=now_ms,
        )
        done = answer(200, self._card(version, [*activations, Activation(version.number, effective_ms)], now_ms))
        is_new = present is None or version.number > present.latest
        new = [activation, *([version] if is_new else []), *call.kept(done, now_ms)]
        swaps = [] if present is None else [card]
        return done if await self._store().commit(Change(swaps, [*([card] if present is None else []), *new])) else None

    async def _applied(self, rate_card_id: str, call: KeyedCall, run: Any) -> Rendered:
        """The first answer of a call, once every partition has what it did."""
        rendered = await answered_once(self._store(), call, run)
        if rendered.status < 400:
            row = await self._present(rate_card_id)
            if row.state == DUE:
                await apply_card(self._engine, self._store(), row)
        return rendered

    def _store(self) -> Store:
        return self._services.catalog("rate cards")

    async def _present(self, rate_card_id: str) -> RateCardRow:
        row = await self._store().get(RateCardRow, rate_card_id)
        if row is None:
            raise Answered(problem("rate-card-not-found", _NOT_FOUND))
        return row

    async def _listed(self, row: RateCardRow, now_ms: int) -> ListedRateCard:
        return ListedRateCard(
            rate_card_id=row.rate_card_id,
            version=row.latest,
            active_version=_active(await activations_of(self._store(), row.rate_card_id), now_ms),
            created_at=utc_time(row.created_at_ms),
            updated_at=utc_time(row.updated_at_ms),
        )

    def _card(self, row: RateCardVersionRow, activations: Sequence[Activation], now_ms: int) -> RateCard:
        kept = cast("dict[str, Any]", row.body)
        own = [one.effective_at_ms for one in activations if one.version == row.number]
        return RateCard(
            rate_card_id=row.rate_card_id,
            version=row.number,
            active_version=_active(activations, now_ms),
            effective_at=utc_time(own[-1] if own else row.created_at_ms),
            models={model: self._line(told) for model, told in kept["models"].items()},
            minimum=self._scale.credits(kept["minimum"]),
            per_request=self._scale.credits(kept["per_request"]),
            created_at=utc_time(row.created_at_ms),
        )

    def _line(self, told: dict[str, Any]) -> dict[str, Any]:
        line: dict[str, Any] = self._credits(told.get("rates", {}))
        line |= {name: value for name, value in told.items() if name in ("free", "max_output", "aliases")}
        if "above_input" in told:
            above = told["above_input"]
            line["above_input"] = {"over": above["over"], "rates": self._credits(above["rates"])}
        return line

    def _credits(self, rates: dict[str, int]) -> dict[str, Any]:
        return {name: self._scale.credits(units) for name, units in rates.items()}


def _path_id(request: Request) -> str:
    rate_card_id = request.path["rate_card_id"]
    if not OBJECT_ID.fullmatch(rate_card_id):
        raise Answered(validation_problem([("/rate_card_id", "must be 1 to 128 of A-Z a-z 0-9 . _ : -")]))
    return rate_card_id


def _active(activations: Sequence[Activation], now_ms: int) -> int | None:
    """The version that prices now."""
    first = activations_text(activations, now_ms).split()[:2]
    return int(first[0]) if first and first[1] == "0" else None


def _kept(body: RateCardRequest) -> dict[str, Any]:
    """What the store keeps of a version: amounts in units, and no member that says nothing."""
    models = {model: _kept_line(line) for model, line in body.models.items()}
    return {"models": models, "minimum": body.minimum, "per_request": body.per_request}


def _kept_line(line: RateLineRequest) -> dict[str, Any]:
    told: dict[str, Any] = {"rates": line.rates} if line.rates else {}
    told |= {"free": True} if line.free else {}
    told |= {} if line.max_output is None else {"max_output": line.max_output}
    told |= {"aliases": list(line.aliases)} if line.aliases else {}
    if line.above_input is not None:
        told["above_input"] = {"over": line.above_input.over, "rates": line.above_input.rates}
    return told
