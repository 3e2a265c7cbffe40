"""P8: attempts of one moment cost the store one transaction and one read, and each hears of its own row alone."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest

from meter.alerts.together import Swaps, Webhooks
from meter.errors import StoreUnavailable
from meter.store.base import Store
from meter.store.memory.store import open_memory
from meter.store.rows import DeliveryRow
from tests.store import samples


class Counting:
    """A store that counts its calls and waits in each; `away`: none is answered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.away = False

    def __getattr__(self, name: str) -> Any:
        async def call(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            await asyncio.sleep(0)
            if self.away:
                raise StoreUnavailable("away")
            return await getattr(self._store, name)(*given, **named)

        return call


@pytest.fixture
async def store() -> Counting:
    found = open_memory(f"memory://{uuid.uuid4()}", timeout_seconds=1)
    await found.open({})
    await found.insert_many([samples.delivery(f"d{n}") for n in range(9)])
    await found.insert_many([samples.webhook(f"w{n}") for n in range(9)])
    await found.insert_many([samples.webhook("off", state="disabled")])
    return Counting(found)


def claimed(number: int, version: int = 2) -> DeliveryRow:
    return samples.delivery(f"d{number}").model_copy(update={"version": version, "attempts": version})


async def test_p8_swaps_of_one_moment_are_one_transaction(store: Counting) -> None:
    swaps = Swaps(store)
    assert await asyncio.gather(*(swaps.swap(claimed(n)) for n in range(9))) == [True] * 9
    assert store.calls == {"commit": 1}
    assert await swaps.swap(claimed(0, 3)) is True
    assert store.calls == {"commit": 1, "swap": 1}


async def test_p8_what_another_process_has_is_told_to_its_own_attempt_alone(store: Counting) -> None:
    swaps = Swaps(store)
    await store.swap(claimed(4))
    assert await asyncio.gather(*(swaps.swap(claimed(n)) for n in range(9))) == [n != 4 for n in range(9)]
    assert await asyncio.gather(*(swaps.swap(claimed(n, 3)) for n in range(9))) == [True] * 9


async def test_p8_a_store_that_is_away_is_told_to_each_and_asked_again(store: Counting) -> None:
    swaps, webhooks = Swaps(store), Webhooks(store)
    store.away = True
    found = await asyncio.gather(*(swaps.swap(claimed(n)) for n in range(3)), return_exceptions=True)
    read = await asyncio.gather(*(webhooks.enabled(f"w{n}") for n in range(3)), return_exceptions=True)
    assert [type(one) for one in (*found, *read)] == [StoreUnavailable] * 6
    store.away = False
    assert await swaps.swap(claimed(0)) is True
    assert await webhooks.enabled("w0") == samples.webhook("w0")


async def test_p8_an_attempt_that_is_cut_off_takes_no_other_with_it(store: Counting) -> None:
    swaps = Swaps(store)
    first, second = (asyncio.create_task(swaps.swap(claimed(n))) for n in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is True


async def test_p8_webhooks_of_one_moment_are_one_read_and_never_older_than_the_question(store: Counting) -> None:
    webhooks = Webhooks(store)
    asked = [*(f"w{n}" for n in range(9)), "off", "none"]
    found = await asyncio.gather(*map(webhooks.enabled, asked))
    assert [row and row.webhook_id for row in found] == [*asked[:9], None, None]
    assert store.calls == {"find": 1}
    early = asyncio.create_task(webhooks.enabled("w0"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its read has begun
    await store.swap(samples.webhook("w0").model_copy(update={"state": "disabled", "version": 2}))
    assert await webhooks.enabled("w0") is None
    await early
    assert await webhooks.enabled("off") is None
