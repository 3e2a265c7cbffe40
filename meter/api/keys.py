"""The calls about API keys. A text is told once and kept nowhere (meter/api_key.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from meter.api.idempotency import KeyedCall, answered_once, keyed_call, until_first
from meter.api.refusals import DETAILS
from meter.api.services import Services
from meter.api_key import KEY_ID, ApiKey, new_api_key
from meter.clock import HOUR_MS, milliseconds, utc_time
from meter.contract.keys import (
    OPERATORS,
    IssuedKey,
    KeyChanges,
    KeyRequest,
    KeysQuery,
    ListedKey,
    RevokeKeyRequest,
    RotateKeyRequest,
    UsedKey,
)
from meter.engine import operations
from meter.engine.api_keys import REVOKED as REVOKED_TERMS
from meter.engine.api_keys import change_key, put_keys
from meter.engine.operations import Asked
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_body, read_query
from meter.http.rendered import Answered, Rendered, answer, model_json, page, problem, validation_problem
from meter.ledger.api_keys import ACTIVE, DUE, EVERYWHERE, apply_keys, words_of
from meter.store.base import Store
from meter.store.catalog import Change, Plain
from meter.store.key_rows import REVOKED, ApiKeyRow
from meter.store.usage_rows import UsageRow

_BY_CREATION = Cursors("API keys", NUMBER, ID)
_USERS_SCOPES = ("spend", "read:self")
_OVER = problem("key-over", "The key has ended: it was revoked, or its expires_at has passed.")

_Changes = list[tuple[ApiKeyRow, str]]
"""Rows with what changed of each."""


class KeyHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._settings = services.settings
        self._scale = services.scale

    async def create_key(self, request: Request) -> Rendered:
        """`POST /credits/keys`"""
        body = read_body(KeyRequest, request, self._scale)
        call = keyed_call("create_key", request, body)

        async def once(issued: _Issued) -> Rendered | None:
            now_ms = await self._now_ms(body.user_id)
            ends_ms = None if body.expires_at is None else _future_ms(milliseconds(body.expires_at), now_ms)
            if await self._is_full(body.user_id):
                return problem("too-many-keys", f"There are {self._settings.keys_max} of them already; revoke some.")
            row = self._new_row(issued, body.user_id, now_ms).model_copy(
                update={
                    "name": body.name,
                    "scopes": list(body.scopes or _USERS_SCOPES),
                    "models": None if body.models is None else list(body.models),
                    "expires_at_ms": ends_ms,
                }
            )
            issued.changes = [(row, "issue")]
            kept = answer(201, _issued(row, now_ms))
            return kept if await self._store().commit(Change(new=[row, *call.kept(kept, now_ms)])) else None

        return await self._issue(call, once)

    async def keys(self, request: Request) -> Rendered:
        """`GET /credits/keys`"""
        query = read_query(KeysQuery, request, self._scale)
        scope = query.user_id or ""
        after = _BY_CREATION.read(query.cursor, scope)
        behind = (int(after[0]), after[1]) if after else None
        equal = {} if query.user_id is None else {"user_id": query.user_id}
        rows = await self._store().find(ApiKeyRow, equal, order_by="created_at_ms", after=behind, limit=query.limit)
        now_ms = await self._now_ms(query.user_id)
        cursor = None
        if len(rows) == query.limit:
            cursor = _BY_CREATION.write(rows[-1].created_at_ms, rows[-1].key_id, scope=scope)
        return page([model_json(await self._used(row, now_ms)) for row in rows], cursor)

    async def _used(self, row: ApiKeyRow, now_ms: int) -> UsedKey:
        """A key of a list. It acts as the path that it names, so that its charges are among the figures of that one."""
        found: list[UsageRow] = []
        if row.user_id is not None:
            mine: dict[str, Plain] = {"path": row.user_id, "key_id": row.key_id}
            found = await self._store().find(UsageRow, mine, order_by="bucket_ms", descending=True, limit=1)
        last_ms = found[0].bucket_ms - found[0].bucket_ms % HOUR_MS if found else None
        return UsedKey.model_validate(
            {**_members(row, now_ms), "last_used": None if last_ms is None else utc_time(last_ms)}
        )

    async def change_key(self, request: Request) -> Rendered:
        """`PATCH /credits/keys/{key_id}`"""
        body, key_id = read_body(KeyChanges, request, self._scale), _path_id(request)
        call = keyed_call("change_key", request, body)
        changed: _Changes = []

        async def once() -> Rendered | None:
            row, now_ms = await self._live(key_id)
            changes = self._changes(body, row, now_ms)
            row = row.model_copy(update={**changes, **_next(row, now_ms)})
            changed[:] = [(row, "change")]
            done = answer(200, _listed(row, now_ms))
            return done if await self._store().commit(Change([row], call.kept(done, now_ms))) else None

        rendered = await answered_once(self._store(), call, partial(until_first, once))
        if rendered.status < 400 and not rendered.replayed:
            await apply_keys(self._engine, self._store(), changed, _asked(call))
        return rendered

    async def rotate_key(self, request: Request) -> Rendered:
        """`POST /credits/keys/{key_id}/rotate`"""
        body, key_id = read_body(RotateKeyRequest, request, self._scale), _path_id(request)
        call = keyed_call("rotate_key", request, body)

        async def once(issued: _Issued) -> Rendered | None:
            old, now_ms = await self._live(key_id)
            ends_ms = now_ms + round(body.overlap_seconds * 1000)
            row = self._new_row(issued, old.user_id, now_ms).model_copy(
                update={
                    **{name: getattr(old, name) for name in ("name", "scopes", "models", "expires_at_ms")},
                    "rotated_from": old.key_id,
                }
            )
            last_ms = ends_ms if old.expires_at_ms is None else min(ends_ms, old.expires_at_ms)
            old = old.model_copy(update={"expires_at_ms": last_ms, **_next(old, now_ms)})
            issued.changes = [(row, "issue"), (old, "rotate")]
            kept = answer(201, _issued(row, now_ms))
            change = Change([old], [row, *call.kept(kept, now_ms)])
            return kept if await self._store().commit(change) else None

        return await self._issue(call, once)

    async def revoke_key(self, request: Request) -> Rendered:
        """`POST /credits/keys/{key_id}/revoke`: Redis first, so that nothing is answered by it once it is answered."""
        body, key_id = read_body(RevokeKeyRequest, request, self._scale), _path_id(request)
        call = keyed_call("revoke_key", request, body)

        async def once() -> Rendered | None:
            row, swaps = await self._present(key_id), list[ApiKeyRow]()
            await self._revoke_in_redis(row, replace(_asked(call), extra=_reason(body)))
            now_ms = await self._now_ms(row.user_id)
            if row.state != REVOKED:
                row = row.model_copy(update={**_next(row, now_ms), "state": REVOKED})
                swaps = [row]
            done = answer(200, _listed(row, now_ms))
            return done if await self._store().commit(Change(swaps, call.kept(done, now_ms))) else None

        return await answered_once(self._store(), call, partial(until_first, once))

    async def _issue(self, call: KeyedCall, once: Callable[[_Issued], Awaitable[Rendered | None]]) -> Rendered:
        """The answer of a call that makes a key, with its text where it made it just now."""
        issued = _Issued()
        rendered = await answered_once(self._store(), call, partial(until_first, partial(once, issued)))
        if rendered.status >= 400 or rendered.replayed:
            return rendered
        row = issued.changes[0][0]
        if not await apply_keys(self._engine, self._store(), issued.changes, _asked(call)):
            await self._store().remove(call.kept_answer(rendered, row.created_at_ms))
            return problem("too-many-accounts", DETAILS["too-many-accounts"])
        return answer(201, _issued(row, row.created_at_ms, issued.text))

    def _new_row(self, issued: _Issued, user_id: str | None, now_ms: int) -> ApiKeyRow:
        key = issued.draw(user_id or "", is_test=self._settings.test_clock)
        return ApiKeyRow(
            key_id=key.key_id,
            hash=key.hash,
            user_id=user_id,
            partition=EVERYWHERE if user_id is None else self._engine.partition_of(user_id),
            state=DUE,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )

    def _changes(self, body: KeyChanges, row: ApiKeyRow, now_ms: int) -> dict[str, object]:
        """The columns that a change sets. Raises `Answered`."""
        given = body.model_fields_set
        changes: dict[str, object] = {"name": body.name} if "name" in given else {}
        if "scopes" in given:
            scopes = body.scopes or _USERS_SCOPES
            if (row.user_id is None) is not OPERATORS.issuperset(scopes) or (
                row.user_id is not None and not OPERATORS.isdisjoint(scopes)
            ):
                raise Answered(validation_problem([("/scopes", "are not of this kind of key")]))
            changes["scopes"] = list(scopes)
        if "models" in given:
            if row.user_id is None and body.models is not None:
                raise Answered(validation_problem([("/models", "an operator's key is for no models")]))
            changes["models"] = None if body.models is None else list(body.models)
        if "expires_at" in given:
            at_ms = None if body.expires_at is None else _future_ms(milliseconds(body.expires_at), now_ms)
            changes["expires_at_ms"] = at_ms
        return changes

    async def _revoke_in_redis(self, row: ApiKeyRow, asked: Asked) -> None:
        if row.user_id is None:
            for number in range(len(self._engine.partitions)):
                await self._engine.run_many(number, [put_keys([(row.key_id, row.version, REVOKED_TERMS)])])
        else:
            one = change_key(row.user_id, row.key_id, "revoke", row.version, REVOKED_TERMS, asked)
            await self._engine.run(row.user_id, one)

    async def _is_full(self, user_id: str | None) -> bool:
        whose: dict[str, Plain] = {"partition": EVERYWHERE} if user_id is None else {"user_id": user_id}
        equal = {**whose, "state": ACTIVE}
        most = self._settings.keys_max
        return len(await self._store().find(ApiKeyRow, equal, order_by="created_at_ms", limit=most)) == most

    async def _live(self, key_id: str) -> tuple[ApiKeyRow, int]:
        """A key that still works, and the time. Raises `Answered`."""
        row = await self._present(key_id)
        now_ms = await self._now_ms(row.user_id)
        if _state(row, now_ms) != ACTIVE:
            raise Answered(_OVER)
        return row, now_ms

    async def _present(self, key_id: str) -> ApiKeyRow:
        row = await self._store().get(ApiKeyRow, key_id)
        if row is None:
            raise Answered(problem("key-not-found", "There is no API key of that id."))
        return row

    async def _now_ms(self, user_id: str | None) -> int:
        return await self._engine.now_ms(0 if user_id is None else self._engine.partition_of(user_id))

    def _store(self) -> Store:
        return self._services.catalog("API keys")


class _Issued:
    """A key that is being made: its text, and the rows of it and of the one that it takes the place of."""

    def __init__(self) -> None:
        self.text = ""
        self.changes: _Changes = []

    def draw(self, user_id: str, *, is_test: bool) -> ApiKey:
        self.text, key = new_api_key(user_id, is_test=is_test)
        return key


def _path_id(request: Request) -> str:
    key_id = request.path["key_id"]
    if not KEY_ID.fullmatch(key_id):
        raise Answered(problem("key-not-found", "There is no API key of that id."))
    return key_id


def _future_ms(at_ms: int, now_ms: int) -> int:
    """An end that is still to come. Raises `Answered`."""
    if at_ms <= now_ms:
        raise Answered(validation_problem([("/expires_at", "must be later than now")]))
    return at_ms


def _next(row: ApiKeyRow, now_ms: int) -> dict[str, object]:
    """What every change of a row sets."""
    return {"state": DUE, "updated_at_ms": now_ms, "version": row.version + 1}


def _asked(call: KeyedCall) -> Asked:
    return Asked(request_id=str(call.told["request_id"] or ""), actor=str(call.told["actor"] or ""))


def _reason(body: RevokeKeyRequest) -> str:
    return "" if body.reason is None else operations.members(body.reason, None)


def _state(row: ApiKeyRow, now_ms: int) -> str:
    if row.state == REVOKED:
        return REVOKED
    return ACTIVE if row.expires_at_ms is None or row.expires_at_ms > now_ms else "expired"


def _members(row: ApiKeyRow, now_ms: int) -> dict[str, object]:
    return {
        "key_id": row.key_id,
        "user_id": row.user_id,
        "name": row.name,
        "scopes": words_of(row.scopes),
        "models": words_of(row.models) or None,
        "expires_at": None if row.expires_at_ms is None else utc_time(row.expires_at_ms),
        "state": _state(row, now_ms),
        "rotated_from": row.rotated_from,
        "created_at": utc_time(row.created_at_ms),
        "updated_at": utc_time(row.updated_at_ms),
    }


def _listed(row: ApiKeyRow, now_ms: int) -> ListedKey:
    return ListedKey.model_validate(_members(row, now_ms))


def _issued(row: ApiKeyRow, now_ms: int, text: str | None = None) -> IssuedKey:
    return IssuedKey.model_validate({**_members(row, now_ms), "key": text})
