"""Closing and opening a partition: lua/operations/state.lua."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from meter.engine.operations import balance, deduct, grant
from meter.engine.upkeep import clock, state
from tests.partition import Partition, dump


def test_a_lost_partition_decides_nothing(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))

    assert partition.run(state("lost")).status == "ok"

    assert partition.send("other", 1, deduct("u", 1)) == "refused lost"
    assert partition.send("other", 2, clock()) == "refused lost"


def test_only_a_repair_works_on_it_and_opens_it_again(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(state("lost"))

    answers = partition.batch(balance("u"), state("open"), mode="repair")

    assert answers[0].balances == (100, 0, 0)
    assert partition.run(deduct("u", 1)).status == "ok"


def test_what_the_same_batch_decided_before_stays(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), state("lost"))
    partition.batch(state("open"), mode="repair")

    assert partition.run(balance("u")).balances == (100, 0, 0)


def test_a_loss_of_another_epoch_is_old_news(partition: Partition) -> None:
    assert partition.run(state("lost", 7)).status == "ok"
    assert partition.run(balance("u")).balances == (0, 0, 0)

    partition.run(state("lost", 1))
    assert partition.send("other", 1, balance("u")) == "refused lost"
    partition.batch(state("open"), mode="repair")


@pytest.mark.parametrize("step", ["rebuilding", "clear", "open"])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_rebuild_that_was_overtaken_does_nothing(partition: Partition, step: str, epoch: int) -> None:
    partition.run(grant("u", "g", 100))
    before = dump(partition.client)

    with pytest.raises(ResponseError, match="is not being rebuilt"):
        partition.send("other", 1, state(step, epoch), mode="repair")

    assert dump(partition.client) == before


def test_the_steps_of_a_rebuild(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    assert partition.open(how="rebuild", watermark=(2, 0, "-")) == "opened"
    assert partition.send("other", 1, balance("u")) == "refused rebuilding"

    partition.batch(state("clear", 2), mode="repair")
    assert not any(
        partition.fields(name) for name in ("accounts", "grants", "holds", "recent:a", "recent:b", "profiles")
    )
    assert not any(partition.members(name) for name in ("order", "agenda", "due"))
    assert partition.entries() == []
    partition.batch(state("rebuilding", 2), grant("u", "h", 7), mode="repair")
    assert partition.send("other", 2, balance("u")) == "refused rebuilding"
    partition.batch(state("open", 2), mode="repair")

    assert partition.run(balance("u")).balances == (7, 0, 0)
