"""History, past balances and what ends soon, through the HTTP API: a caller reads its own writes, flushed or not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from meter.config import Settings
from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.errors import StoreUnavailable
from meter.ledger import history, tail
from meter.runtime import Runtime
from meter.store.base import Store
from tests.api.sidecar import balances
from tests.ledger.ground import open_at
from tests.ledger.sidecar import URL, Sidecar
from tests.ledger.test_flusher import poison
from tests.partition import DAY, MINUTE, T0, Partition
from tests.servers import Server


def test_a_caller_reads_its_own_writes_before_any_flush(api: Sidecar) -> None:
    for n in range(3):
        added = api.post("/add", {"user_id": "u", "amount": 1, "description": f"d{n}"}, key=f"k{n}")
        (row, *_) = api.rows()
        assert (row["transaction_id"], row["description"], row["reference"]) == (
            added["transaction_id"],
            f"d{n}",
            f"k{n}",
        ) or row["transaction_id"] == added["transaction_id"]


@pytest.mark.parametrize("flushed", [0, 1, 7, 12, 100])
def test_pages_cross_the_seam_between_store_and_redis(api: Sidecar, flushed: int) -> None:
    """Nothing twice, nothing left out, whatever part is in the store, and while the flush goes on between two pages."""
    api.post("/add", {"user_id": "u", "amount": 100})
    for n in range(11):
        api.post("/deduct", {"user_id": "u", "amount": 1, "metadata": {"n": n}})
        api.post("/add", {"user_id": "v", "amount": 1})
    before = api.rows("?limit=500")
    whole = [row["seq"] for row in before]
    assert len(whole) == 12
    if flushed:
        api.flush(flushed)
    assert api.rows("?limit=500") == before
    for limit in (1, 2, 5, 12, 13):
        assert api.all_pages("", limit) == whole
    assert api.all_pages("&kind=grant", 5) == whole[-1:]
    first = api.get(f"{URL}?limit=5")
    api.flush()
    api.post("/deduct", {"user_id": "u", "amount": 1})
    rest = api.get(f"{URL}?limit=50&cursor={first['next_cursor']}")
    assert [row["seq"] for row in first["items"] + rest["items"]] == whole


def test_filters_are_the_same_on_both_sides(api: Sidecar) -> None:
    api.post("/add", {"user_id": "u", "amount": 100})
    for _ in range(6):
        api.advance(1)
        api.post("/deduct", {"user_id": "u", "amount": 1})
    queries = ["?kind=deduct", "?kind=grant", "?from=2023-11-14T22:13:22Z&to=2023-11-14T22:13:25Z", "?limit=2"]
    before = [api.rows(query) for query in queries]
    assert [len(rows) for rows in before] == [6, 1, 3, 2]
    api.flush(4)
    assert [api.rows(query) for query in queries] == before
    api.flush()
    assert [api.rows(query) for query in queries] == before


def test_a_past_balance_is_the_same_on_both_sides(api: Sidecar) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    api.advance(10)
    api.post("/deduct", {"user_id": "u", "amount": 4})
    api.advance(10)
    for flushed in (0, 1, 1):
        if flushed:
            assert api.flush(flushed) == 1
        at = "/balance/u?at=2023-11-14T22:13:"
        assert api.get(f"{at}19Z") == {"user_id": "u", **balances(0)}
        assert api.get(f"{at}20Z") == api.get(f"{at}29.999Z") == {"user_id": "u", **balances(10)}
        assert api.get(f"{at}30Z") == {"user_id": "u", **balances(6)}


def test_what_is_due_is_in_the_history_though_nobody_swept(api: Sidecar) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "expires_at": "2023-11-14T22:13:30Z"})
    api.post("/reservations", {"user_id": "u", "amount": 4, "ttl_seconds": 5}, status=201)
    api.flush()
    api.advance(60)
    assert api.get("/balance/u?at=2023-11-14T22:13:31Z") == {"user_id": "u", **balances(0)}
    assert [row["kind"] for row in api.rows()] == ["grant_expired", "reservation_expired", "reserve", "grant"]
    assert api.get("/balance/u?at=2023-11-14T22:13:26Z") == {"user_id": "u", **balances(10)}


def test_what_ends_soon(api: Sidecar) -> None:
    for days in (1, 3, 8):
        body = {"user_id": "u", "amount": days, "grant_id": f"g{days}", "expires_at": f"2023-11-{14 + days}T22:13:20Z"}
        api.post("/add", body)
    for _ in range(2):
        assert [item["grant_id"] for item in api.get("/expiring/u?days=7")["items"]] == ["g1", "g3"]
        api.flush()


def test_grants_and_reservations_that_have_ended_are_read_from_the_store(api: Sidecar) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "g"})
    api.post("/reservations", {"user_id": "u", "amount": 10, "reservation_id": "r"}, status=201)
    api.post("/reservations/r/commit", {})
    api.flush()
    assert api.get("/grants/u")["items"] == []
    (grant,) = api.get("/grants/u?state=all")["items"]
    assert (grant["grant_id"], grant["state"], grant["remaining"]) == ("g", "exhausted", 0)
    (held,) = api.get("/reservations?user_id=u&state=committed")["items"]
    assert (held["reservation_id"], held["state"], held["charged"]) == ("r", "committed", 10)


def test_a_charge_that_only_the_store_has_is_refunded(api: Sidecar) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    charge = api.post("/deduct", {"user_id": "u", "amount": 6})
    api.flush()
    api.client.xtrim(api.keys.outbox, maxlen=0)
    body = {"user_id": "u", "transaction_id": charge["transaction_id"], "amount": 4}
    assert api.post("/refund", body)["available"] == 8
    api.flush()
    for recent in ("meter:{p0}:recent:a", "meter:{p0}:recent:b"):  # forgotten, after the window
        api.client.hdel(recent, *[field for field in api.client.hkeys(recent) if field], "none")
    assert api.refused(409, "refund-exceeds-charge", "POST", "/refund", {**body, "amount": 3}) is not None
    assert api.available("u") == Decimal(8)


def test_a_poison_entry_does_not_hide_the_others(api: Sidecar, partition: Partition, unchecked: None) -> None:
    for n in range(3):
        api.post("/add", {"user_id": "u", "amount": 1, "grant_id": f"g{n}"})

    class Broken:
        client = api.client
        partition: Any

    Broken.partition = partition
    ground: Any = Broken
    poison(ground, 2, b'{"broken": "u"')
    assert [row["seq"] for row in api.rows()] == [3, 1]


def reader_of(engine: Engine, gateway: RedisGateway, store: Store | None) -> history.History:
    return history.History(tail.Tail(engine, gateway, store), store)


@pytest.fixture
async def reader(server: Server, gateway: RedisGateway, partition: Partition) -> Any:
    """A history reader above a store that is far behind."""
    for n in range(30):
        partition.run(operations.grant("u", f"g{n}", 1))
    store: Store = await open_at("memory://")
    async with Runtime(Settings(redis_timeout_ms=10_000), gateway, store) as runtime:
        yield lambda which: reader_of(runtime.engine, gateway, store if which else None)


async def test_a_history_that_is_too_far_behind_is_refused_not_cut(
    reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "ENTRIES_MAX", 20)
    with pytest.raises(StoreUnavailable, match="30 transactions behind"):
        await reader(True).page("u", history.Filter(), 5)
    assert [row.seq for row in await reader(False).page("u", history.Filter(), 50)] == list(range(30, 10, -1))


async def test_many_pages_of_the_outbox_are_read(reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "PAGE", 7)
    assert [row.seq for row in await reader(True).page("u", history.Filter(), 50)] == list(range(30, 0, -1))
    found = await reader(True).at("u", T0 + DAY + MINUTE)
    assert found is not None and found.available_after == 30
