"""The sweep: what is due for idle accounts is settled, in batches, once, in every partition."""

from __future__ import annotations

import pytest

from meter.engine import operations
from meter.errors import PartitionRefused
from meter.keys import partition_of
from meter.worker.context import Context
from meter.worker.jobs import expire
from tests.partition import HOUR, SECOND, T0, Partition

USERS = [f"user-{n}" for n in range(330)]


def fill(partitions: list[Partition], users: list[str] = USERS) -> None:
    """Each user gets a grant that ends in an hour, one that begins before that, and a hold that ends in a second."""
    for partition in partitions:
        many = []
        for user in users:
            if partition_of(user, len(partitions)) == partition.number:
                many += [
                    operations.grant(user, "ends", 10, expires_at_ms=T0 + HOUR),
                    operations.grant(user, "begins", 5, effective_at_ms=T0 + HOUR // 2),
                    operations.reserve(user, f"hold-of-{user}", 4, SECOND, chosen=True),
                ]
        assert {answer.status for answer in (partition.batch(*many) if many else ())} <= {"ok"}


def kinds(partitions: list[Partition]) -> dict[str, int]:
    """How many transactions of each kind were booked."""
    found = [kind for partition in partitions for kind in partition.kinds()]
    return {kind: found.count(kind) for kind in sorted(set(found))}


async def test_hundreds_of_idle_accounts_are_settled_in_every_partition(
    ctx: Context, partitions: list[Partition]
) -> None:
    fill(partitions)
    for partition in partitions:
        partition.advance(2 * HOUR)
    assert await expire(ctx) == 3 * len(USERS)
    assert kinds(partitions) == {
        "grant": 660,
        "grant_expired": 330,
        "grant_started": 330,
        "reserve": 330,
        "reservation_expired": 330,
    }
    assert not any(partition.fields("holds") for partition in partitions)


async def test_a_second_run_finds_nothing_to_do(ctx: Context, partitions: list[Partition]) -> None:
    fill(partitions, USERS[:40])
    for partition in partitions:
        partition.advance(SECOND)
    assert await expire(ctx) == 40
    before = kinds(partitions)
    assert await expire(ctx) == 0
    assert kinds(partitions) == before


async def test_what_is_not_due_yet_is_left_alone(ctx: Context, partitions: list[Partition]) -> None:
    fill(partitions, USERS[:9])
    for partition in partitions:
        partition.advance(SECOND - 1)
    assert await expire(ctx) == 0
    for partition in partitions:
        partition.advance(1)
    assert await expire(ctx) == 9


async def test_a_run_that_was_cut_off_is_caught_up_by_the_next(
    ctx: Context, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(partitions)
    for partition in partitions:
        partition.advance(SECOND)
    monkeypatch.setattr("meter.jobs.PAGES_MAX", 1)
    monkeypatch.setattr("meter.jobs.SCRIPT_CALLS_PER_PAGE", 1)
    monkeypatch.setattr("meter.ledger.sweep.USERS_PER_CALL", 10)
    assert await expire(ctx) == 30
    monkeypatch.undo()
    assert await expire(ctx) == len(USERS) - 30
    assert kinds(partitions)["reservation_expired"] == len(USERS)


async def test_a_touched_account_is_not_settled_again(ctx: Context, partitions: list[Partition]) -> None:
    fill(partitions, USERS[:3])
    for partition in partitions:
        partition.advance(SECOND)
    for user in USERS[:3]:
        partition = partitions[partition_of(user, len(partitions))]
        assert partition.run(operations.balance(user)).balances == (10, 0, 0)
    assert await expire(ctx) == 0


async def test_a_partition_that_was_lost_is_told_and_not_made_anew(
    ctx: Context, partitions: list[Partition], unchecked: None
) -> None:
    fill(partitions, USERS[:3])
    partitions[0].client.flushall()
    with pytest.raises(PartitionRefused):
        await expire(ctx)
    assert partitions[0].client.keys("*") == []
