"""Making or checking a partition: lua/open.lua."""

from __future__ import annotations

import time

import pytest

from meter.engine.operations import balance, deduct, grant, reserve
from tests.partition import DAY, HOUR, T0, Partition, dump
from tests.servers import Server

NAMES = (
    *("accounts", "grants", "order", "holds", "agenda", "due", "recent:a", "recent:b", "outbox", "profiles", "rates"),
    "keys",
)


@pytest.fixture
def closed(server: Server) -> Partition:
    """A partition that Redis has nothing of."""
    return Partition(server.client)


def test_an_empty_redis_gets_a_partition(closed: Partition) -> None:
    before = int(time.time() * 1000)

    assert closed.open(decimal_places=3, partitions=4) == "opened"

    meta = {name.decode(): text.decode() for name, text in closed.client.hgetall(closed.keys.meta).items()}
    assert before - 1 <= int(meta.pop("recent_since")) <= time.time() * 1000 + 1
    assert meta == {
        "schema": "2",
        "decimal_places": "3",
        "partitions": "4",
        "state": "open",
        "epoch": "1",
        "seq": "0",
        "head": "-",
        "recent": "a",
        "flushed": "0",
        "sentinels": "4",
        "recent_seq": "0",
    }


def test_opening_again_changes_nothing(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    before = dump(partition.client)

    assert partition.open() == "present"
    assert dump(partition.client) == before


@pytest.mark.parametrize(
    ("other", "answer"),
    [
        ({"decimal_places": 2}, "mismatch decimal_places 6"),
        ({"partitions": 2}, "mismatch partitions 1"),
        ({"schema": "3"}, "mismatch schema 2"),
    ],
)
def test_other_settings_are_refused(partition: Partition, other: dict[str, int], answer: str) -> None:
    before = dump(partition.client)

    assert partition.open(**other) == answer  # type: ignore[arg-type]
    assert dump(partition.client) == before


@pytest.mark.parametrize("left", ["accounts", "outbox"])
def test_data_without_meta_are_a_loss_and_not_a_beginning(partition: Partition, left: str, unchecked: None) -> None:
    partition.run(grant("u", "g", 5))
    for key in partition.keys.all:
        if not key.endswith(left):
            partition.client.delete(key)

    assert partition.open() == "lost missing meta"
    assert partition.client.keys() == [f"meter:{{p0}}:{left}".encode()]


def test_an_empty_redis_is_a_loss_when_the_store_knows_better(closed: Partition) -> None:
    assert closed.open(watermark=(1, 7, "0-7-x-1")) == "lost missing meta"
    assert closed.client.keys() == []


@pytest.mark.parametrize("watermark", [(1, 3, "0-3-own-9"), (1, 2, "0-2-other-1"), (2, 1, "0-1-own-1")])
def test_a_history_that_is_not_the_stores_is_closed(partition: Partition, watermark: tuple[int, int, str]) -> None:
    partition.run(grant("u", "g", 5))
    partition.run(deduct("u", 5))

    epoch, seq, head = watermark
    why = f"lost behind {epoch} {seq} {head} in the store, at 1 2 {partition.told[2]}"
    assert partition.open(watermark=watermark) == why
    assert partition.send("own", 9, balance("u")) == f"refused {why}"
    assert partition.open() == why


def test_a_store_that_lags_is_no_loss(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id
    assert partition.open(watermark=(1, 1, head)) == "present"
    partition.run(deduct("u", 5))

    assert partition.open(watermark=(1, 1, head)) == "present"


def test_a_check_makes_nothing(closed: Partition) -> None:
    assert closed.open(how="check") == "lost missing meta"
    assert closed.client.keys() == []
    assert closed.open() == "opened"
    assert closed.open(how="check") == "present"


def test_a_history_that_goes_on_from_another_head_is_closed(partition: Partition) -> None:
    """The store has another entry 1 than the one that entry 2 follows."""
    partition.run(grant("u", "g", 5))
    partition.run(deduct("u", 5))

    assert partition.open(watermark=(1, 1, "0-1-other-1")).startswith("lost behind 1 1 0-1-other-1 in the store")


def test_entries_that_the_store_lacks_and_redis_dropped_are_a_loss(partition: Partition, unchecked: None) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id
    partition.run(deduct("u", 1))
    partition.run(deduct("u", 1))
    partition.client.xdel(partition.keys.outbox, "2-0")

    assert partition.open(watermark=(1, 1, head)).startswith("lost behind 1 1 ")


def test_a_rebuild_closes_whatever_is_there(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id

    assert partition.open(how="rebuild", watermark=(3, 1, head)) == "opened"

    assert partition.send("own", 9, balance("u")) == "refused rebuilding"
    assert partition.open(how="rebuild", watermark=(2, 1, head)) == "lost to a later rebuild"
    assert partition.client.hmget(partition.keys.meta, "epoch", "seq", "state") == [b"3", b"1", b"rebuilding"]


# A partition that was made before its keys had sentinels


@pytest.fixture
def old(partition: Partition) -> Partition:
    """Spent, held and waiting credits; all that begins or ends is due some time. Made by an earlier version."""
    partition.batch(
        grant("u", "g", 50, expires_at_ms=T0 + DAY),
        grant("u", "h", 50, expires_at_ms=T0 + 2 * DAY),
        reserve("u", "r", 5, HOUR, chosen=True),
        deduct("u", 1),
    )
    _without_sentinels(partition)
    return partition


def _without_sentinels(partition: Partition) -> None:
    partition.client.hdel(partition.keys.meta, "sentinels")
    for key in partition.keys.all[1:]:
        kind = partition.client.type(key)
        if kind == b"hash":
            partition.client.hdel(key, "")
        if kind == b"zset":
            partition.client.zrem(key, "")


def test_an_old_partition_gets_its_sentinels_when_it_is_opened(old: Partition) -> None:
    """U1: what a deployment has made before goes on, and is guarded from then on (the checker looks for sentinels)."""
    before = {name: old.fields(name) for name in ("accounts", "grants", "holds", "recent:a")}
    assert not old.client.exists(old.keys.profiles)

    assert old.open() == "present"

    assert {name: old.fields(name) for name in before} == before
    assert old.run(balance("u")).balances == (94, 5, 0)


def test_an_old_partition_without_anything_is_no_loss(partition: Partition) -> None:
    _without_sentinels(partition)
    partition.client.delete(partition.keys.outbox)

    assert partition.open() == "present"


@pytest.mark.parametrize("name", ["accounts", "grants", "order", "agenda", "due", "outbox"])
def test_what_an_old_partition_has_lost_is_not_taken_for_empty(old: Partition, name: str, unchecked: None) -> None:
    """U1: as far as the other keys tell."""
    old.client.delete(f"{old.keys.prefix}:{name}")

    assert old.open() == f"lost missing {name}"
    assert old.send("sender", 1, balance("u")) == f"refused lost missing {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_that_has_lost_a_key_is_closed_when_it_is_opened(
    partition: Partition, name: str, unchecked: None
) -> None:
    """U1: of each key, also where it held nothing but its sentinel."""
    partition.client.delete(f"{partition.keys.prefix}:{name}")

    assert partition.open() == f"lost missing {name}"
