"""U7: a store knows which Redis serves it; no rebuild on another one takes the ledger away unless it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.ledger.serving import ServedElsewhere, address_of, check_served_here, claim
from meter.store.connect import open_store

HERE, THERE = "redis://user:hunter2@localhost:41234/0", "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", "h:6379/0"),
        ("redis://:secret@localhost:7000/2", "127.0.0.1:7000/2"),
        ("rediss://u:p@h:1/", "h:1/0"),
        ("unix://u:p@/run/redis.sock?db=1", "unix:/run/redis.sock?db=1"),
    ],
)
def test_u7_an_address_has_no_password(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_u7_the_last_redis_that_served_a_store_is_known(kind: str, tmp_path: Path) -> None:
    store = open_store("memory://" if kind == "memory" else f"sqlite:///{tmp_path}/m.db")
    await store.open({"partitions": "1", "decimal_places": "6"})
    await check_served_here(store, THERE, None)  # of a store that was never claimed nothing is known
    await claim(store, HERE, 1_800_000_000_000)
    await claim(store, HERE, 1_800_000_000_001)
    await check_served_here(store, HERE, None)
    with pytest.raises(
        ServedElsewhere, match=r"127\.0\.0\.1:41234/0 \(since 2027-01-15T08:00:00Z\).*127\.0\.0\.1:6379/0"
    ):
        await check_served_here(store, THERE, None)
    await claim(store, THERE, 1_700_000_000_000)  # by a clock that is behind
    await check_served_here(store, THERE, None)
    with pytest.raises(ServedElsewhere):
        await check_served_here(store, HERE, None)
    await store.open({"partitions": "1", "decimal_places": "6"})  # the rows are no settings
    await store.close()
