"""Making or checking a partition: lua/open.lua."""

from __future__ import annotations

import time

import pytest

from meter.engine.operations import balance, deduct, grant
from tests.partition import Partition, dump
from tests.servers import Server


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
        "schema": "1",
        "decimal_places": "3",
        "partitions": "4",
        "state": "open",
        "epoch": "1",
        "seq": "0",
        "head": "-",
        "recent": "a",
        "flushed": "0",
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
        ({"schema": "2"}, "mismatch schema 1"),
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

    assert partition.open() == "lost"
    assert partition.client.keys() == [f"meter:{{p0}}:{left}".encode()]


def test_an_empty_redis_is_a_loss_when_the_store_knows_better(closed: Partition) -> None:
    assert closed.open(watermark=(1, 7, "0-7-x-1")) == "lost"
    assert closed.client.keys() == []


@pytest.mark.parametrize("watermark", [(1, 3, "0-3-own-9"), (1, 2, "0-2-other-1"), (2, 1, "0-1-own-1")])
def test_a_history_that_is_not_the_stores_is_closed(partition: Partition, watermark: tuple[int, int, str]) -> None:
    partition.run(grant("u", "g", 5))
    partition.run(deduct("u", 5))

    assert partition.open(watermark=watermark) == "lost"
    assert partition.send("own", 9, balance("u")) == "refused lost"
    assert partition.open() == "lost"


def test_a_store_that_lags_is_no_loss(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id
    assert partition.open(watermark=(1, 1, head)) == "present"
    partition.run(deduct("u", 5))

    assert partition.open(watermark=(1, 1, head)) == "present"


def test_a_check_makes_nothing(closed: Partition) -> None:
    assert closed.open(how="check") == "lost"
    assert closed.client.keys() == []
    assert closed.open() == "opened"
    assert closed.open(how="check") == "present"


def test_a_history_that_goes_on_from_another_head_is_closed(partition: Partition) -> None:
    """The store has another entry 1 than the one that entry 2 follows."""
    partition.run(grant("u", "g", 5))
    partition.run(deduct("u", 5))

    assert partition.open(watermark=(1, 1, "0-1-other-1")) == "lost"


def test_entries_that_the_store_lacks_and_redis_dropped_are_a_loss(partition: Partition, unchecked: None) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id
    partition.batch(deduct("u", 1), deduct("u", 1))
    partition.client.xdel(partition.keys.outbox, "2-0")

    assert partition.open(watermark=(1, 1, head)) == "lost"


def test_a_rebuild_closes_whatever_is_there(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    head = partition.entries()[-1].transaction_id

    assert partition.open(how="rebuild", watermark=(3, 1, head)) == "opened"

    assert partition.send("own", 9, balance("u")) == "refused rebuilding"
    assert partition.open(how="rebuild", watermark=(2, 1, head)) == "lost"
    assert partition.client.hmget(partition.keys.meta, "epoch", "seq", "state") == [b"3", b"1", b"rebuilding"]
