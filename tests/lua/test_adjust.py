"""Setting right what a user has: lua/operations/adjust.lua takes, lua/operations/grant.lua gives."""

from __future__ import annotations

import pytest

from meter.engine.operations import (
    ADJUSTMENT,
    adjust,
    balance,
    configure,
    deduct,
    grant,
    refund,
    release,
    reserve,
    void,
)
from tests.partition import HOUR, MINUTE, T0, Partition


def test_free_credits_are_taken_in_burn_order(partition: Partition) -> None:
    for n in range(3):
        partition.run(grant("u", f"g{n}", 10, priority=n))

    answer = partition.run(adjust("u", "", 15))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["amount"], answer.balances) == ("u", -15, (15, 0, 0))
    assert partition.remaining("u") == {"g0": 0, "g1": 5, "g2": 10}
    entry = partition.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, [draw[:2] for draw in entry.draws]) == ("adjust", -15, [("g0", 10), ("g1", 5)])
    read = partition.run(balance("u"))
    assert (read["granted"], read["spent"], read["voided"]) == (15, 0, 0), "nobody spent them"


@pytest.mark.parametrize("grant_id", ["g0", "g2"])
def test_of_a_grant_that_is_named_and_of_no_other(partition: Partition, grant_id: str) -> None:
    """The one that burns next, and one that waits."""
    for n in range(3):
        partition.run(grant("u", f"g{n}", 10, priority=n))

    assert partition.run(adjust("u", grant_id, 10)).balances == (20, 0, 0)

    assert partition.remaining("u") == {f"g{n}": 0 if f"g{n}" == grant_id else 10 for n in range(3)}
    assert partition.run(deduct("u", 20)).status == "ok"


def test_no_more_than_is_free(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=100))
    partition.run(grant("u", "g", 10))
    partition.run(grant("u", "other", 10, priority=99))
    partition.run(reserve("u", "r", 4, HOUR, chosen=True))

    answer = partition.run(adjust("u", "", 17))
    of_the_grant = partition.run(adjust("u", "g", 7))

    assert (answer.status, answer["left"], answer.balances) == ("exceeds", 16, (16, 4, 0))
    assert (of_the_grant.status, of_the_grant["left"]) == ("exceeds", 6)
    assert partition.run(adjust("u", "g", 6)).balances == (10, 4, 0)
    assert partition.run(release("r")).balances == (14, 0, 0), "what was held comes back to it"


@pytest.mark.parametrize("state", ["expired", "voided"])
def test_of_a_grant_that_has_ended(partition: Partition, state: str) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + HOUR))
    if state == "voided":
        partition.run(void("u", "g"))
    partition.freeze(T0 + HOUR)

    answer = partition.run(adjust("u", "g", 1))

    assert (answer.status, answer["state"]) == ("over", state)


def test_of_a_grant_that_there_is_not(partition: Partition) -> None:
    partition.run(grant("other", "g", 10))

    assert partition.run(adjust("u", "g", 1)).status == "not_found"


def test_one_that_has_not_begun_has_nothing_to_take(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, effective_at_ms=T0 + MINUTE))

    assert partition.run(adjust("u", "g", 1)).status == "exceeds"


def test_what_was_spent_can_still_be_refunded(partition: Partition) -> None:
    partition.run(grant("u", "g", 10))
    charge = partition.run(deduct("u", 6))["transaction_id"]
    partition.run(adjust("u", "", 4))

    assert partition.run(refund("u", charge, 6, charged=6, refunded=0, draws=(("g", 6),))).balances == (6, 0, 0)


def test_it_is_told_that_credits_are_used_up_and_when_some_come_again(partition: Partition) -> None:
    partition.run(configure("u", thresholds=(5,)))
    partition.run(grant("u", "g", 10))

    partition.run(adjust("u", "", 5))
    partition.run(adjust("u", "", 5))
    partition.run(grant("u", "h", 10, source=ADJUSTMENT))
    partition.run(adjust("u", "", 10))

    told = [entry.detail.get("alerts") for entry in partition.entries()]
    assert told == [
        None,
        None,
        [["low_credits", 5]],
        [["credits_exhausted", 0]],
        None,
        [["low_credits", 5], ["credits_exhausted", 0]],
    ]


def test_what_it_gives_is_a_grant_whose_row_says_so(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=10))
    partition.run(deduct("u", 4, "overdraft"))

    answer = partition.run(grant("u", "g", 10, source=ADJUSTMENT))

    entry = partition.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, answer.balances) == ("adjust", 10, (6, 0, 0)), "debt first"
    assert partition.run(balance("u"))["granted"] == 10
