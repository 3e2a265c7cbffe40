"""The calls that bring credits in, durable first where there is a store, and the one that sets right what there is."""

from __future__ import annotations

import secrets
import time

from meter.api.services import Services, asked_of
from meter.api.trials import Trials
from meter.clock import NEVER_MS, milliseconds
from meter.contract.requests import AddRequest, AdjustRequest
from meter.engine import operations
from meter.engine.answers import KEY_REUSED, word_of
from meter.engine.asked import UNKEYED, Asked
from meter.engine.operations import ADJUST, ADJUSTMENT, GRANT, Operation
from meter.engine.restrictions import only_text
from meter.errors import StoreUnavailable
from meter.http.exchange import Request
from meter.http.reading import read_body, read_key
from meter.http.rendered import Rendered
from meter.ledger.pending_grants import Intake, grant_id_of, pending_row
from meter.store.catalog import Plain
from meter.store.rows import GrantRow


class AddHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._store = services.store
        self._settings = services.settings
        self._scale = services.scale
        self._renderer = services.renderer
        self._trials = Trials(services)
        self._intake = None if services.store is None else Intake(services.engine, services.store)

    async def add(self, request: Request) -> Rendered:
        """`POST /credits/add`"""
        body, key = read_body(AddRequest, request, self._scale), read_key(request)
        return await self._give(body, "api", key, request)

    async def adjust(self, request: Request) -> Rendered:
        """`POST /credits/adjust`: a grant, or what lua/operations/adjust.lua takes."""
        body, key = read_body(AdjustRequest, request, self._scale), read_key(request)
        given = AddRequest.model_construct(
            user_id=body.user_id,
            amount=body.amount,
            grant_id=body.grant_id,
            description=body.reason,
            reference=body.reference,
            metadata=body.metadata,
            dry_run=body.dry_run,
        )
        if body.amount > 0:
            if not body.dry_run and await self._has_taken(body.user_id, key):
                return self._renderer.render(GRANT.name, f"0 {KEY_REUSED.word}")
            return await self._give(given, ADJUSTMENT, key, request)
        if not body.dry_run and await self._has_given(body.user_id, key):
            return self._renderer.render(ADJUST.name, f"0 {KEY_REUSED.word}")
        asked = asked_of(given, key, request, begins=True)
        one = operations.adjust(body.user_id, body.grant_id or "", -body.amount, UNKEYED if body.dry_run else asked)
        if body.dry_run:
            return await self._trials.answer(body.user_id, one)
        return self._renderer.render(ADJUST.name, await self._engine.run(body.user_id, one))

    async def _give(self, body: AddRequest, source: str, key: str, request: Request) -> Rendered:
        chosen = body.grant_id is not None
        grant_id = body.grant_id or self._new_grant_id(body, key)
        body = body.model_copy(update={"reference": body.reference or key or None})  # Redis has it under another key:
        asked = asked_of(body, key or f"grant {body.user_id} {grant_id}", request, begins=True)  # blanks: no caller's
        one = _grant_of(body, grant_id, source, UNKEYED if body.dry_run else asked, chosen=chosen)
        if body.dry_run:
            return await self._trials.answer(body.user_id, one)
        if self._intake is None:
            return self._renderer.render(GRANT.name, await self._engine.run(body.user_id, one))
        row = pending_row(one, self._settings.partitions, key, time.time_ns() // 1_000_000).model_copy(
            update={
                "description": body.description,
                "metadata": body.metadata,
                "reference": body.reference or asked.request_id or None,
            }
        )
        return self._renderer.render(GRANT.name, await self._intake.add(row, asked.actor))

    def _new_grant_id(self, body: AddRequest, key: str) -> str:
        if not key or self._intake is None or body.dry_run:
            return f"g_{secrets.token_urlsafe(12)}"
        return grant_id_of(body.user_id, key)

    async def _has_taken(self, user_id: str, key: str) -> bool:
        """Whether the key is that of an adjustment which took. Redis knows those by it, and no grant of a store."""
        if not key or self._store is None:
            return False
        one = operations.adjust(user_id, "", 0, Asked(key))
        (line,) = await self._engine.run_many(self._engine.partition_of(user_id), [one], "trial")
        return word_of(line) == KEY_REUSED.word

    async def _has_given(self, user_id: str, key: str) -> bool:
        """Whether the key is that of a grant. The store knows those by it; where it is away nobody can tell."""
        if not key or self._store is None:
            return False
        place: dict[str, Plain] = {"partition": self._engine.partition_of(user_id), "operation_id": key}
        try:
            return bool(await self._store.find(GrantRow, place, order_by="created_at_ms", limit=1))
        except StoreUnavailable:
            return False


def _grant_of(body: AddRequest, grant_id: str, source: str, asked: Asked, *, chosen: bool) -> Operation:
    return operations.grant(
        body.user_id,
        grant_id,
        body.amount,
        priority=body.priority,
        effective_at_ms=0 if body.effective_at is None else milliseconds(body.effective_at),
        expires_at_ms=NEVER_MS if body.expires_at is None else milliseconds(body.expires_at),
        source=source,
        only=only_text(body.only or ()),
        chosen=chosen,
        asked=asked,
    )
