"""A user who buys, on a partition above a store, with a bank."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from meter.amount import AmountScale
from meter.engine.operations import balance, deduct, grant
from meter.engine.redis import RedisGateway
from meter.engine.top_ups import Terms, read_word, top_up
from meter.ledger.pending_grants import Intake
from meter.store.base import Store
from meter.store.rows import AlertRow, GrantRow
from meter.store.top_up_rows import TopUpRow
from meter.top_ups.carrying import TopUps
from meter.top_ups.provider import PaymentEvent
from tests.ledger import conftest as ledgers
from tests.ledger.ground import Ground
from tests.partition import HOUR, T0
from tests.top_ups.bank import Bank

TERMS = Terms(below=50, amount=200, most=None, period="month", reference="cus_1:pm_1")

empty_sqlite, store, ground = ledgers.empty_sqlite, ledgers.store, ledgers.ground


@dataclass
class Shop:
    """u has 100 units, and 200 more are bought at 50."""

    ground: Ground
    bank: Bank
    top_ups: TopUps
    now_ms: int = T0

    def again(self) -> TopUps:
        """Another worker, as after the death of one."""
        engine, kept = self.ground.engine, self.ground.store
        return TopUps(engine, kept, Intake(engine, kept), AmountScale(6), self.bank)

    async def spend(self, amount: int) -> None:
        self.ground.run(deduct("u", amount))
        await self.ground.drain()

    async def work(self, *, hours: float = 0) -> int:
        """What a worker does until nothing is due, so many hours later; answers how many steps that were."""
        self.now_ms += int(hours * HOUR)
        self.ground.partition.freeze(self.now_ms)
        done = 0
        for _ in range(50):
            moved, more = await self.top_ups.page()
            done += moved
            await self.ground.drain()
            if not more:
                return done
        raise AssertionError("it does not end")

    async def tell(self, state: str, key: str, payment_id: str | None = None) -> bool:
        """The bank tells."""
        self.bank.events.append(PaymentEvent(key, state, payment_id or f"pi_{key}"))  # type: ignore[arg-type]
        return await self.top_ups.heard({"signed": "yes"}, str(len(self.bank.events) - 1).encode())

    async def rows(self) -> list[TopUpRow]:
        return await self.ground.store.find(TopUpRow, {}, order_by="created_at_ms", limit=50)

    async def row(self) -> TopUpRow:
        (row,) = await self.rows()
        return row

    async def bought(self) -> list[GrantRow]:
        return [row for row in await self.ground.store.grants_of("u", limit=50) if row.source == "top_up"]

    async def told(self) -> list[str]:
        rows = await self.ground.store.find(AlertRow, {"user_id": "u"}, order_by="created_at_ms", limit=50)
        return sorted(row.kind for row in rows if row.kind.startswith("top_up"))

    def available(self) -> int:
        balances = self.ground.run(balance("u")).balances
        assert balances is not None
        return balances[0]

    def state(self) -> str:
        word = read_word(self.ground.run(top_up("u"))["top_up"])
        assert word is not None
        return word.state


@pytest.fixture
async def shop(ground: Ground, gateway: RedisGateway, store: Store) -> AsyncIterator[Shop]:
    del gateway, store
    bank = Bank()
    intake = Intake(ground.engine, ground.store)
    found = Shop(ground, bank, TopUps(ground.engine, ground.store, intake, AmountScale(6), bank))
    ground.partition.batch(grant("u", "g", 100), top_up("u", "set", TERMS.text))
    yield found
