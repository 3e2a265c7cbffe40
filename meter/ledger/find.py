"""Whose an id is: whatever has exactly that id, then users whose ids begin so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from meter.engine import operations
from meter.engine.answers import is_ok
from meter.engine.engine import Engine
from meter.engine.operations import RESERVATION
from meter.engine.outbox import seq_of
from meter.engine.redis import RedisGateway
from meter.keys import OBJECT_ID, USER_ID
from meter.ledger.history import History
from meter.ledger.refusals import REFUSAL
from meter.store.base import Store
from meter.store.key_rows import ApiKeyRow
from meter.store.rows import DeliveryRow, EventRow, GrantRow


class Hit(NamedTuple):
    """Something that has the id. `at_ms` is None where only Redis has it yet."""

    kind: str
    id: str
    user_id: str | None
    at_ms: int | None


class Finder:
    """Looks through the store and what it does not have yet. Raises `StoreUnavailable`."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store, history: History) -> None:
        self._engine = engine
        self._redis = redis
        self._store = store
        self._history = history

    async def find(self, text: str, limit: int) -> list[Hit]:
        """What has that id, and users below that prefix, the exact ones first."""
        asked: Sequence[tuple[bool, Callable[[str, int], Awaitable[list[Hit]]]]] = (
            (USER_ID.fullmatch(text) is not None, self._user),
            (True, self._request),
            (seq_of(text) is not None, self._transaction),
            (OBJECT_ID.fullmatch(text) is not None, self._reservation),
            (OBJECT_ID.fullmatch(text) is not None, self._grants),
            (OBJECT_ID.fullmatch(text) is not None, self._key),
            (OBJECT_ID.fullmatch(text) is not None, self._delivery),
            (True, self._refusals),
            (USER_ID.fullmatch(text) is not None, self._users),
        )
        found = await asyncio.gather(*(look(text, limit) for is_possible, look in asked if is_possible))
        hits = dict.fromkeys(hit for hits in found for hit in hits)
        users = {hit.user_id for hit in hits if hit.kind == "user" and hit.at_ms is not None}
        return [hit for hit in hits if hit.kind != "user" or hit.at_ms is not None or hit.user_id not in users][:limit]

    async def _user(self, text: str, _: int) -> list[Hit]:
        row = (await self._store.accounts([text])).get(text)
        if row is not None:
            return [Hit("user", text, text, row.updated_at_ms)]
        keys = self._engine.partitions[self._engine.partition_of(text)]
        return [Hit("user", text, text, None)] if await self._redis.field(keys.accounts, text) is not None else []

    async def _request(self, text: str, limit: int) -> list[Hit]:
        """Newest first, each user once: whoever follows it finds all that it did."""
        latest: dict[str, Hit] = {}
        for row in await self._history.traced(text, None, limit):
            latest.setdefault(row.user_id, Hit("request", text, row.user_id, row.created_at_ms))
        return list(latest.values())

    async def _transaction(self, text: str, _: int) -> list[Hit]:
        place = seq_of(text)
        if place is None or place[0] not in self._history.partitions:
            return []
        row = await self._history.transaction(text, *place)
        return [] if row is None else [Hit("transaction", text, row.user_id, row.created_at_ms)]

    async def _reservation(self, text: str, _: int) -> list[Hit]:
        row = (await self._store.reservations([text])).get(text)
        if row is not None:
            return [Hit("reservation", text, row.user_id, row.created_at_ms)]
        line = await self._engine.run_for_reservation(text, operations.reservation(text))
        return [Hit("reservation", text, RESERVATION.read(line)["user_id"], None)] if is_ok(line) else []

    async def _grants(self, text: str, limit: int) -> list[Hit]:
        rows = await self._store.find(
            GrantRow, {"grant_id": text}, order_by="created_at_ms", descending=True, limit=limit
        )
        return [Hit("grant", text, row.user_id, row.created_at_ms) for row in rows]

    async def _key(self, text: str, _: int) -> list[Hit]:
        row = await self._store.get(ApiKeyRow, text)
        return [] if row is None else [Hit("key", text, row.user_id, row.created_at_ms)]

    async def _delivery(self, text: str, _: int) -> list[Hit]:
        row = await self._store.get(DeliveryRow, text)
        return [] if row is None else [Hit("delivery", text, row.user_id, row.created_at_ms)]

    async def _refusals(self, text: str, limit: int) -> list[Hit]:
        named = {"kind": REFUSAL, "reference": text}
        rows = await self._store.find(EventRow, named, order_by="created_at_ms", descending=True, limit=limit)
        return [Hit("refusal", text, row.user_id, row.created_at_ms) for row in rows]

    async def _users(self, text: str, limit: int) -> list[Hit]:
        found: list[Hit] = []
        for number in range(len(self._engine.partitions)):
            rows = await self._store.scan_accounts(number, text, limit)
            found += [
                Hit("user", row.user_id, row.user_id, row.updated_at_ms) for row in rows if row.user_id.startswith(text)
            ]
        return sorted(found, key=lambda hit: hit.id)[:limit]
