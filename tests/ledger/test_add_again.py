"""X13: the same `add` again gets the first answer, byte for byte: pending, flushed, long after, and after a rebuild."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meter.config import Settings
from meter.engine import upkeep
from meter.ledger.rebuild import Rebuild
from meter.runtime import Runtime
from meter.store.connect import open_store
from tests.ledger.sidecar import Sidecar
from tests.partition import DAY, MINUTE, T0, Partition

BODY = {"user_id": "u", "amount": 50, "description": "paid", "metadata": {"n": 1}}
BODIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "a key": (BODY, "payment"),
    "a grant_id": ({**BODY, "grant_id": "g"}, None),
    "both": ({**BODY, "grant_id": "g", "expires_at": "2099-01-01T00:00:00Z"}, "payment"),
    "a start": ({**BODY, "grant_id": "g", "effective_at": "2023-12-01T00:00:00Z"}, "payment"),
}


def rebuild(api: Sidecar) -> None:
    async def run() -> None:
        gateway, store = api._server.gateway(), open_store(api._store_url)
        try:
            async with Runtime(Settings(redis_timeout_ms=10_000), gateway, store) as runtime:
                await Rebuild(runtime.engine, gateway, store, DAY).partition(0)
        finally:
            await store.close()
            await gateway.close()

    asyncio.run(run())


def forget(api: Sidecar, partition: Partition) -> None:
    """Redis keeps no answer that is older than its window."""
    for days in (1, 2, 3):
        partition.freeze(T0 + days * (DAY + MINUTE))
        partition.run(upkeep.rotate())
        partition.run(upkeep.expire("u"))
        api.flush()


@pytest.mark.parametrize("name", BODIES)
def test_the_first_answer_comes_again_byte_for_byte(api: Sidecar, partition: Partition, name: str) -> None:
    body, key = BODIES[name]
    first = api.call("POST", "/credits/add", body, key=key)
    assert first.status == 200 and first.body["transaction_id"]

    def again() -> None:
        answer = api.call("POST", "/credits/add", body, key=key)
        assert (answer.status, answer.raw, answer.replayed) == (200, first.raw, True)

    again()
    if name != "a start":
        api.post("/deduct", {"user_id": "u", "amount": 50})
    again()
    api.flush()
    again()
    rebuild(api)
    again()
    partition.sender = "after"
    api.post("/add", {"user_id": "u", "amount": 1})
    again()
    forget(api, partition)
    again()
    rebuild(api)
    again()
    assert len(api.rows("?kind=grant")) == 2
    other = api.call("POST", "/credits/add", {**body, "amount": 51}, key=key)
    assert other.status == (422 if key else 409)


def test_twins_get_one_answer(api: Sidecar) -> None:
    def ask(_: int) -> bytes:
        return api.call("POST", "/credits/add", BODY, key="payment").raw

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(16)))
    assert len(answers) == 1
    api.flush()
    assert {ask(0)} == answers
    assert len(api.rows("?kind=grant")) == 1
