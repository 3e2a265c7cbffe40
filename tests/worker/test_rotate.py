"""The rotation: answers are kept for one window at least and forgotten after two."""

from __future__ import annotations

from meter.engine import operations
from meter.engine.operations import Asked
from meter.worker.context import Context
from meter.worker.jobs import rotate
from tests.partition import T0, WINDOW, Partition


def probe(partition: Partition) -> bool:
    """Whether the key of a probe is remembered; it is used by this if it was not."""
    return partition.run(operations.deduct("u", 0, asked=Asked("key"))).replayed


async def test_each_partition_rotates_once_per_window(ctx: Context, partitions: list[Partition]) -> None:
    assert await rotate(ctx) == 0
    for partition in partitions:
        partition.freeze(T0 + WINDOW - 1)
    assert await rotate(ctx) == 0
    partitions[1].freeze(T0 + WINDOW)
    assert await rotate(ctx) == 1
    for partition in partitions:
        partition.freeze(T0 + WINDOW)
    assert await rotate(ctx) == 2
    assert await rotate(ctx) == 0


async def test_an_answer_is_kept_for_a_window_and_dropped_after_two(ctx: Context, partitions: list[Partition]) -> None:
    partition = partitions[0]
    partition.freeze(T0 + WINDOW - 1)
    assert (probe(partition), probe(partition)) == (False, True)
    partition.freeze(T0 + WINDOW)
    assert await rotate(ctx) == 1
    assert probe(partition)
    partition.freeze(T0 + 2 * WINDOW)
    assert await rotate(ctx) == 1
    assert (probe(partition), probe(partition)) == (False, True)


async def test_a_rotation_that_was_missed_for_long_forgets_what_is_old_in_two_runs(
    ctx: Context, partitions: list[Partition]
) -> None:
    partition = partitions[0]
    probe(partition)
    partition.freeze(T0 + 10 * WINDOW)
    assert (await rotate(ctx), await rotate(ctx)) == (1, 0)
    partition.freeze(T0 + 11 * WINDOW)
    assert await rotate(ctx) == 1
    assert not probe(partition)
