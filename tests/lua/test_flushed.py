"""What the store has of the outbox: lua/operations/flushed.lua."""

from __future__ import annotations

from meter.engine.operations import deduct, grant
from meter.engine.upkeep import flushed
from tests.partition import Partition


def _spend(partition: Partition, times: int) -> None:
    partition.batch(*(deduct("u", 1) for _ in range(times)))


def test_the_backlog_is_what_the_store_has_not(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    _spend(partition, 9)

    answer = partition.run(flushed(4, 0, 100))

    assert answer.status == "ok"
    assert (answer["backlog"], answer["removed"]) == (6, 0)
    assert partition.client.hget(partition.keys.meta, "flushed") == b"4"


def test_it_never_goes_back_and_never_beyond_the_end(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    _spend(partition, 9)
    partition.run(flushed(6, 0, 100))

    assert partition.run(flushed(2, 0, 100))["backlog"] == 4
    assert partition.run(flushed(99, 0, 100))["backlog"] == 0
    _spend(partition, 1)
    assert partition.run(flushed(0, 0, 100))["backlog"] == 1


def test_only_what_the_store_has_is_trimmed(partition: Partition) -> None:
    partition.run(grant("u", "g", 1000))
    _spend(partition, 399)

    answer = partition.run(flushed(300, 400, 1000))

    assert 0 < answer["removed"] < 300
    assert partition.entries()[0].seq == answer["removed"] + 1
    assert partition.entries()[-1].seq == 400


def test_a_full_outbox_opens_again_a_tenth_below_its_limit(partition: Partition) -> None:
    partition.run(grant("u", "g", 1000))
    partition.outbox_max = 20
    _spend(partition, 19)
    assert partition.run(deduct("u", 1)).status == "outbox_full"
    partition.run(flushed(0, 0, 100))

    assert partition.run(flushed(1, 0, 100))["backlog"] == 19
    assert partition.run(deduct("u", 1)).status == "outbox_full"
    assert partition.run(flushed(2, 0, 100))["backlog"] == 18
    assert partition.run(deduct("u", 1)).status == "ok"


def test_without_a_limit_it_is_never_full(partition: Partition) -> None:
    partition.run(grant("u", "g", 1000))
    _spend(partition, 50)
    partition.run(flushed(0, 0, 100))

    assert partition.run(deduct("u", 1)).status == "ok"


def test_what_the_same_batch_did_counts(partition: Partition) -> None:
    partition.run(grant("u", "g", 1000))

    answers = partition.batch(deduct("u", 1), deduct("u", 1), flushed(2, 0, 100))

    assert answers[-1]["backlog"] == 1
