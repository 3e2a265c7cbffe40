"""A process that dies while a code is redeemed leaves nothing, or a grant that arrives: no count without a grant."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.errors import StoreUnavailable
from meter.store.catalog import Change
from meter.store.code_rows import CodeRow
from meter.store.memory.store import MemoryStore, open_memory
from meter.testing import fake_redis, fake_settings
from tests.api.sidecar import problem_members
from tests.codes.conftest import Booth
from tests.servers import fake_server


class Dying(MemoryStore):
    """A store whose process ends before or behind a change that counts."""

    dies = ""

    async def commit(self, change: Change) -> bool:
        if self.dies == "before" and change.counts:
            raise StoreUnavailable("gone")
        done = await super().commit(change)
        if self.dies == "behind" and change.counts:
            raise StoreUnavailable("gone")
        return done


@pytest.fixture
def store() -> Dying:
    found = open_memory("memory://", timeout_seconds=1)
    assert isinstance(found, MemoryStore)
    return Dying(found._tables)


@pytest.fixture
def booth(store: Dying) -> Iterator[Booth]:
    server = fake_server()
    with TestClient(create_app(fake_settings(), fake_redis(server.fake), store)) as http:
        found = Booth(http, server.client)
        assert found.call("PUT", "/test-clock", {"now": "2030-01-01T12:00:00Z"}).status == 200
        yield found


async def redeemed(store: Dying) -> int:
    (code,) = await store.find(CodeRow, {}, order_by="created_at_ms", limit=2)
    return code.redeemed


@pytest.mark.parametrize("key", [None, "k"])
async def test_before_the_change_nothing_is_left(booth: Booth, store: Dying, key: str | None) -> None:
    booth.make()
    store.dies = "before"
    assert problem_members(booth.redeem("u", key=key), 503, "metering-unavailable")["reason"] == "store"
    assert await redeemed(store) == 0

    store.dies = ""

    assert booth.redeem("u", key=key).body["available"] == 5
    assert await redeemed(store) == 1


async def test_behind_the_change_the_same_call_gives_it(booth: Booth, store: Dying) -> None:
    booth.make()
    store.dies = "behind"
    assert booth.redeem("u", key="k").status == 503
    assert booth.available("u") == 0

    store.dies = ""
    again = booth.redeem("u", key="k")

    assert (again.status, again.body["available"]) == (200, 5)
    assert booth.redeem("u", key="k").body == again.body
    assert (await redeemed(store), booth.available("u")) == (1, Decimal(5))


async def test_behind_the_change_the_sweep_gives_it(booth: Booth, store: Dying) -> None:
    """Who calls again without a key is told which grant is on its way."""
    made = booth.make(valid_days=1)
    store.dies = "behind"
    assert booth.redeem("u").status == 503
    store.dies = ""
    assert problem_members(booth.redeem("u"), 409, "code-redeemed") == {"grant_id": f"{made['code_id']}_1"}

    booth.advance(31)
    assert booth.post("/jobs/pending")["applied"] == 1

    assert (await redeemed(store), booth.available("u")) == (1, Decimal(5))


async def test_a_redis_that_is_away_redeems_nothing(booth: Booth, store: Dying) -> None:
    booth.make()
    booth.client.connection_pool.connection_kwargs["server"].connected = False

    assert booth.redeem("u").status == 503

    booth.client.connection_pool.connection_kwargs["server"].connected = True
    assert await redeemed(store) == 0
    assert booth.redeem("u").status == 200
