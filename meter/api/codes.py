"""The calls about promo codes. A text is told once and kept nowhere (meter/promo_code.py)."""

from __future__ import annotations

from functools import partial

import orjson

from meter.api.attempts import too_many
from meter.api.idempotency import KeyedCall, answered_once, keyed_call, until_first
from meter.api.services import Services
from meter.clock import milliseconds, utc_time
from meter.contract.codes import PER_USER_MAX, CodeRequest, CreatedCode, ListedCode, RedeemRequest, StopCodeRequest
from meter.contract.requests import Query
from meter.engine.answers import OK, PENDING, word_of
from meter.engine.restrictions import only_text, tags_in
from meter.failures import Failures
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem, validation_problem
from meter.http.request_id import brought_id
from meter.ledger.codes import Refused, Told, code_of, count_of, decided, grant_of, last_redemption, operation_of
from meter.ledger.pending_grants import Intake
from meter.promo_code import CODE_ID, hmacs_of, new_code_id, new_text, read_text
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.code_rows import STOPPED, CodeRow, CodeTextRow

_BY_CREATION = Cursors("promo codes", NUMBER, ID)
_DETAILS = {
    "code-not-found": "There is no such promo code.",
    "code-ended": "The promo code is not taken any more.",
    "code-used-up": "The promo code was redeemed as often as it may be.",
    "code-redeemed": "The user has had what the promo code gives.",
}


class CodeHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._settings = services.settings
        self._scale = services.scale
        self._failures = Failures(services.settings.code_failures_max)

    async def create_code(self, request: Request) -> Rendered:
        """`POST /credits/codes`"""
        body = read_body(CodeRequest, request, self._scale)
        text = new_text() if body.code is None else body.code.upper()
        found_by = self._hmacs(text)
        call = keyed_call("create_code", request, body, {} if body.code is None else {"code": found_by[0]})
        made = list[CodeRow]()

        async def once() -> Rendered | None:
            if other := await code_of(self._store(), found_by):
                return problem("code-exists", "There is a promo code of that text.", f'"code_id":"{other.code_id}"')
            row = self._new_row(body, await self._engine.now_ms())
            made[:] = [row]
            kept = answer(201, _created(row, row.created_at_ms, None, self._services))
            new = [row, CodeTextRow(hmac=found_by[0], code_id=row.code_id), *call.kept(kept, row.created_at_ms)]
            return kept if await self._store().commit(Change(new=new)) else None

        rendered = await answered_once(self._store(), call, partial(until_first, once))
        if rendered.status >= 400 or rendered.replayed:
            return rendered
        return answer(201, _created(made[0], made[0].created_at_ms, text, self._services))

    async def codes(self, request: Request) -> Rendered:
        """`GET /credits/codes`"""
        query = read_query(Query, request, self._scale)
        after = _BY_CREATION.read(query.cursor)
        behind = (int(after[0]), after[1]) if after else None
        rows = await self._store().find(CodeRow, {}, order_by="created_at_ms", after=behind, limit=query.limit)
        now_ms = await self._engine.now_ms()
        cursor = None
        if len(rows) == query.limit:
            cursor = _BY_CREATION.write(rows[-1].created_at_ms, rows[-1].code_id)
        return page([model_json(_listed(row, now_ms, self._services)) for row in rows], cursor)

    async def stop_code(self, request: Request) -> Rendered:
        """`POST /credits/codes/{code_id}/stop`: what was redeemed stays."""
        read = read_body(StopCodeRequest, request, self._scale)
        call = keyed_call("stop_code", request, read)

        async def once() -> Rendered | None:
            row, swaps = await self._present(request), list[CodeRow]()
            now_ms = await self._engine.now_ms()
            if row.state != STOPPED:
                stopped = {"state": STOPPED, "updated_at_ms": now_ms, "version": row.version + 1}
                swaps = [row := row.model_copy(update=stopped)]
            done = answer(200, _listed(row, now_ms, self._services))
            return done if await self._store().commit(Change(swaps, call.kept(done, now_ms))) else None

        return await answered_once(self._store(), call, partial(until_first, once, tries=PER_USER_MAX))

    async def redeem(self, request: Request) -> Rendered:
        """`POST /credits/redeem`: one transaction of the store, then as a grant of any other caller."""
        body, store = read_body(RedeemRequest, request, self._scale), self._store()
        if not store.has_transactions:
            raise Answered(problem("not-implemented", "Promo codes need a MongoDB with transactions: a replica set."))
        found_by = self._hmacs(read_text(body.code) or "")
        call = keyed_call("redeem", request, body, {"code": found_by[0]})
        told = Told(body.reference or call.key or brought_id(request.headers) or None, body.metadata)
        once = partial(self._redeem, body.user_id, found_by, call, told)
        kept = await answered_once(store, call, partial(until_first, once, tries=PER_USER_MAX))
        if kept.status >= 400:
            return kept
        return await self._given(body.user_id, orjson.loads(kept.body)["grant_id"], read_actor(request))

    async def _redeem(self, user_id: str, found_by: list[str], call: KeyedCall, told: Told) -> Rendered | None:
        """Writes a redemption; what is kept of its answer is which grant it gives. None where others were first."""
        store, now_ms = self._store(), await self._services.now_ms(user_id)
        if wait_ms := self._failures.wait_ms(user_id, now_ms):
            return too_many(wait_ms, "The user tried too many codes that there are not.")
        code = await code_of(store, found_by)
        last = None if code is None else await last_redemption(store, code.code_id, user_id)
        found = Refused("code-not-found") if code is None else decided(code, last, user_id, now_ms)
        if code is None or isinstance(found, Refused):
            return self._refused(user_id, found, now_ms) if isinstance(found, Refused) else None
        one = operation_of(code, found, told)
        (line,) = await self._engine.run_many(self._engine.partition_of(user_id), [one], "trial")
        if word_of(line) != OK:
            return self._services.renderer.render("grant", line)  # it has no room for it: nothing is redeemed
        row = grant_of(code, found, told, one, self._settings.partitions)
        kept = Rendered(200, orjson.dumps({"user_id": user_id, "grant_id": row.grant_id}))
        change = Change(new=[found, row, *call.kept(kept, now_ms)], counts=[count_of(code)])
        return kept if await store.commit(change) else None

    async def _given(self, user_id: str, grant_id: str, actor: str) -> Rendered:
        """Applies a grant that was promised, unless Redis has it: then its first answer."""
        store = self._store()
        row = (await store.grants([(user_id, grant_id)]))[user_id, grant_id]
        line = await Intake(self._engine, store).add(row, actor)
        if word_of(line) not in (OK, PENDING.word):  # it had room a moment ago; the sweep tries again, and alarms
            line = f"0 {PENDING.word} {user_id} {grant_id} {row.amount}"
        return self._services.renderer.render("grant", line)

    def _refused(self, user_id: str, refused: Refused, now_ms: int) -> Rendered:
        if refused.slug == "code-not-found":
            self._failures.failed(user_id, now_ms)
        members = f'"grant_id":"{refused.grant_id}"' if refused.grant_id else ""
        return problem(refused.slug, _DETAILS[refused.slug], members)

    def _new_row(self, body: CodeRequest, now_ms: int) -> CodeRow:
        """Raises `Answered`."""
        ends_ms = None if body.ends_at is None else milliseconds(body.ends_at)
        if ends_ms is not None and ends_ms <= now_ms:
            raise Answered(validation_problem([("/ends_at", "must be later than now")]))
        return CodeRow(
            code_id=new_code_id(),
            amount=body.amount,
            priority=body.priority,
            valid_days=body.valid_days,
            only=tags_in(only_text(body.only)) if body.only else None,
            max_total=body.max_total,
            max_per_user=body.max_per_user,
            starts_at_ms=now_ms if body.starts_at is None else milliseconds(body.starts_at),
            ends_at_ms=ends_ms,
            description=body.description,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )

    async def _present(self, request: Request) -> CodeRow:
        code_id = request.path["code_id"]
        row = await self._store().get(CodeRow, code_id) if CODE_ID.fullmatch(code_id) else None
        if row is None:
            raise Answered(problem("code-not-found", "There is no promo code of that id."))
        return row

    def _hmacs(self, text: str) -> list[str]:
        return list(hmacs_of(text, self._settings.code_secret))

    def _store(self) -> Store:
        return self._services.catalog("promo codes")


def _state(row: CodeRow, now_ms: int) -> str:
    if row.state == STOPPED:
        return STOPPED
    if row.ends_at_ms is not None and row.ends_at_ms <= now_ms:
        return "ended"
    if row.redeemed >= row.max_total:
        return "used_up"
    return "scheduled" if row.starts_at_ms > now_ms else "active"


_AS_STORED = ("code_id", "priority", "valid_days", "only", "max_total", "max_per_user")


def _members(row: CodeRow, now_ms: int, services: Services) -> dict[str, object]:
    return {
        **{name: getattr(row, name) for name in _AS_STORED},
        "amount": services.scale.credits(row.amount),
        "redeemed": row.redeemed,
        "starts_at": utc_time(row.starts_at_ms),
        "ends_at": None if row.ends_at_ms is None else utc_time(row.ends_at_ms),
        "state": _state(row, now_ms),
        "description": row.description,
        "created_at": utc_time(row.created_at_ms),
        "updated_at": utc_time(row.updated_at_ms),
    }


def _listed(row: CodeRow, now_ms: int, services: Services) -> ListedCode:
    return ListedCode.model_validate(_members(row, now_ms, services))


def _created(row: CodeRow, now_ms: int, text: str | None, services: Services) -> CreatedCode:
    return CreatedCode.model_validate({**_members(row, now_ms, services), "code": text})
