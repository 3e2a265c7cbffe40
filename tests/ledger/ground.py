"""What the tests of the flush stand on: one partition on a server, a store, and what compares the two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meter.config import Settings
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.engine.redis import RedisGateway
from meter.ledger.flusher import Flusher
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.connect import open_store
from meter.store.rows import TransactionRow
from tests import invariants
from tests.partition import Answer, Partition, read_answer
from tests.servers import Server

DEADLINE_SECONDS = 20.0
AGREED = {"decimal_places": "6", "partitions": "1"}


async def until(condition: Callable[[], object], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Returns when the condition is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.005)


async def open_at(url: str) -> Store:
    """The store at a URL, opened as a deployment of one partition."""
    store = open_store(url)
    await store.open(AGREED)
    return store


@dataclass
class Ground:
    """Partition 0 of a server, driven straight (`partition`) or through an engine, above a store."""

    server: Server
    partition: Partition
    gateway: RedisGateway
    store: Store
    runtime: Runtime
    settings: Settings
    flushers: list[Flusher] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        return self.runtime.engine

    @property
    def client(self) -> Any:
        return self.server.client

    def run(self, one: Operation) -> Answer:
        """One operation that must be accepted."""
        answer = self.partition.run(one)
        assert answer.status == "ok", answer
        return answer

    async def ask(self, user_id: str, one: Operation) -> Answer:
        """One operation by way of the engine, which is not the partition's own sender."""
        return read_answer(one[0], await self.engine.run(user_id, one))

    def flusher(self, store: Store | None = None, gateway: RedisGateway | None = None, **changed: object) -> Flusher:
        """A new flusher, as after a restart of its worker."""
        settings = self.settings.model_copy(update={"outbox_retention_seconds": 0, **changed})
        return Flusher(gateway or self.gateway, self.engine, store or self.store, self.engine.partitions[0], settings)

    async def drain(self, flusher: Flusher | None = None) -> int:
        """Flushes all there is; answers how many transactions that were."""
        flusher, total = flusher or self.flusher(), 0
        for _ in range(1_000):
            flushed = await flusher.step()
            total += flushed
            if not flushed and await self.behind() == 0:
                return total
        raise AssertionError("the flush does not end")

    async def behind(self) -> int:
        """How many transactions the store does not have."""
        watermark = await self.store.watermark(0)
        return int(self.client.hget(self.partition.keys.meta, "seq")) - (watermark.seq if watermark else 0)

    async def transactions(self) -> list[TransactionRow]:
        """Everything that the store has, by seq."""
        return await all_transactions(self.store)

    async def check(self) -> None:
        """The store is what Redis is, account by account, grant by grant, hold by hold; no seq is missing or double."""
        await same_on_both_sides(self.client, self.store)

    def lose_everything(self) -> None:
        """Redis comes back with nothing."""
        self.client.flushall()


async def all_transactions(store: Store, partition: int = 0) -> list[TransactionRow]:
    """Every transaction of a partition, by seq."""
    rows: list[TransactionRow] = []
    after = ""
    while accounts := await store.scan_accounts(partition, after, 500):
        for account in accounts:
            rows += await store.history(account.user_id, limit=1_000_000)
        after = accounts[-1].user_id
    return sorted(rows, key=lambda row: row.seq)


async def same_on_both_sides(client: Any, store: Store, *, poison: int = 0) -> None:
    """Compares Redis, read raw, with the rows of the store. `poison` entries are in quarantine instead."""
    state = invariants._read(client, "meter:{p0}", "0")
    rows = await all_transactions(store)
    watermark = await store.watermark(0)
    assert watermark is not None
    assert (watermark.seq, watermark.head) == (int(state.meta["seq"]), state.meta["head"])
    assert watermark.epoch == int(state.meta["epoch"])
    if not poison:
        assert [row.seq for row in rows] == list(range(1, watermark.seq + 1)), "a gap, or a transaction twice"
    assert len(rows) == watermark.seq - poison
    assert len({row.transaction_id for row in rows}) == len(rows)
    used = [row.operation_id for row in rows if row.operation_id]
    assert len(used) == len(set(used)), "a key was applied twice"

    accounts = await store.accounts(list(state.accounts))
    after, known = "", set()
    while page := await store.scan_accounts(0, after, 500):
        known |= {row.user_id for row in page}
        after = page[-1].user_id
    assert known <= set(state.accounts) and set(accounts) == known
    for user, account in state.accounts.items():
        if user not in accounts:
            continue
        row = accounts[user]
        for name in ("available", "reserved", "debt", "granted", "spent", "expired", "voided", "overdraft_limit"):
            assert getattr(row, name) == getattr(account, name), (user, name)
        grants = {grant.grant_id: grant for grant in await store.live_grants([user])}
        live = {g.id: g for g in account.grants.values() if g.remaining or g.reserved}
        assert set(grants) == set(live), user
        for grant_id, g in live.items():
            stored = grants[grant_id]
            assert (stored.amount, stored.remaining, stored.reserved) == (g.amount, g.remaining, g.reserved), grant_id
            assert (stored.priority, stored.effective_at_ms) == (g.priority, g.effective), grant_id
            assert (stored.expires_at_ms, stored.at_end or "") == (g.expires, g.at_end), grant_id
            assert (stored.state == "scheduled") == (g.cls == "S"), grant_id
        holds = {hold.reservation_id: hold for hold in await store.open_reservations([user])}
        assert set(holds) == set(account.holds), user
        for hold_id, hold in account.holds.items():
            held = holds[hold_id]
            assert (held.amount, held.expires_at_ms) == (hold.amount, hold.ends), hold_id
            assert [tuple(draw) for draw in held.draws] == hold.draws, hold_id  # type: ignore[arg-type,union-attr]
