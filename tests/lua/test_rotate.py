"""Forgetting stored answers: lua/operations/rotate.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, commit, deduct, grant, reserve
from meter.engine.upkeep import flushed, rotate
from tests.partition import DAY, HOUR, T0, Partition


def _rotate_at(partition: Partition, time: int) -> int:
    partition.freeze(time)
    answer = partition.run(rotate())
    assert answer.status == "ok"
    rotated: int = answer["rotated"]
    return rotated


def test_at_most_once_per_window(partition: Partition) -> None:
    times = [T0, T0 + DAY - 1, T0 + DAY, T0 + DAY + 1, T0 + 2 * DAY - 1, T0 + 2 * DAY]

    assert [_rotate_at(partition, time) for time in times] == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("used_at", [T0, T0 + DAY - 1])
def test_an_answer_is_kept_for_one_window_and_dropped_after_two(partition: Partition, used_at: int) -> None:
    partition.run(grant("u", "g", 100))
    partition.freeze(used_at)
    first = partition.run(deduct("u", 1, asked=Asked("key")))
    _rotate_at(partition, T0 + DAY)
    partition.freeze(used_at + DAY)
    assert partition.run(deduct("u", 1, asked=Asked("key"))).line[1:] == first.line[1:]

    _rotate_at(partition, T0 + 2 * DAY)

    assert not partition.run(deduct("u", 1, asked=Asked("key"))).replayed


def test_everything_recent_is_dropped_and_nothing_else(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "open", 10, 9 * DAY, chosen=True))
    partition.run(reserve("u", "done", 10, HOUR, chosen=True))
    partition.run(commit("done"))
    charge = partition.entries()[-1].transaction_id
    partition.refund("u", charge, 1)
    recent = partition.fields("recent:a")
    assert {name[:2] for name in recent} == {b"c ", b"r ", b"f ", b"l ", b"a "}

    _rotate_at(partition, T0 + DAY)
    _rotate_at(partition, T0 + 2 * DAY)

    assert partition.fields("recent:a") == partition.fields("recent:b") == {}
    assert list(partition.fields("holds")) == [b"open"]


def test_in_the_middle_of_a_batch(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.freeze(T0 + DAY)

    first, _, again, third = partition.batch(
        deduct("u", 1, asked=Asked("a")), rotate(), deduct("u", 1, asked=Asked("a")), deduct("u", 2, asked=Asked("b"))
    )

    assert (again.replayed, again.line[1:]) == (True, first.line[1:])
    assert third.balances == (97, 0, 0)
    assert partition.client.hexists("meter:{p0}:recent:a", "k a")
    assert partition.client.hexists("meter:{p0}:recent:b", "k b")


# What the store does not have yet (P15)


def test_nothing_is_forgotten_that_the_store_does_not_have(partition: Partition) -> None:
    """P15: the store was away for two windows, and a charge that was refunded is refunded once."""
    partition.run(grant("u", "g", 100))
    charge = partition.run(deduct("u", 30, asked=Asked("key")))
    assert partition.refund("u", charge["transaction_id"], 30).status == "ok"
    for window in (1, 2, 3):
        partition.freeze(T0 + window * DAY)
        assert partition.run(rotate(waits=True))["rotated"] == (window == 1), "the first drops what is empty"

    assert partition.refund("u", charge["transaction_id"], 1).status == "exceeds"
    assert partition.run(deduct("u", 30, asked=Asked("key"))).replayed
    partition.run(flushed(3, 0, 100))
    assert partition.run(rotate(waits=True))["rotated"] == 1
    assert not partition.run(deduct("u", 30, asked=Asked("key"))).replayed


def test_a_grant_that_the_store_may_not_know_is_not_forgotten(partition: Partition) -> None:
    """P15: its pending row would be applied again."""
    partition.run(grant("u", "g", 5))
    partition.run(flushed(1, 0, 100))
    partition.run(deduct("u", 5))
    partition.freeze(T0 + DAY)
    partition.run(rotate(waits=True))

    assert list(partition.remaining("u")) == ["g"]

    partition.run(flushed(2, 0, 100))
    partition.freeze(T0 + 2 * DAY)
    assert list(partition.remaining("u")) == []
