"""X10: accounts of users who never had credits are bounded: lua/state/stranger.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Operation, commit, configure, deduct, grant, reserve, void
from meter.engine.upkeep import expire, restore
from tests.partition import HOUR, MINUTE, T0, Partition, dump

MOST = 4


@pytest.fixture
def full(partition: Partition) -> Partition:
    """A partition with as many strangers as there may be."""
    partition.reservations_max = MOST
    for n in range(MOST):
        assert partition.run(configure(f"stranger-{n}", metadata='{"n":1}')).status == "ok"
    return partition


def more(partition: Partition, user: str = "one-more") -> str:
    return partition.run(configure(user, suspended=True)).status


def test_x10_one_more_is_refused_and_leaves_nothing(full: Partition) -> None:
    before = dump(full.client)
    for n in range(3):
        assert more(full, f"one-more-{n}") == "too_many"
    assert dump(full.client) == before


@pytest.mark.parametrize(
    "known", [configure("stranger-0", overdraft_limit=9), configure("rich", suspended=True), grant("new", "g", 1)]
)
def test_x10_who_is_known_or_gets_credits_goes_on(full: Partition, known: Operation) -> None:
    assert full.run(grant("rich", "g", 1)).status == "ok"
    assert full.run(known).status == "ok"


@pytest.mark.parametrize("effective", [0, T0 + HOUR])
def test_x10_credits_make_room(full: Partition, effective: int) -> None:
    full.run(grant("stranger-1", "g", 5, effective_at_ms=effective))
    assert more(full) == "ok"
    assert more(full, "another") == "too_many"


def test_x10_who_spends_on_debt_is_no_stranger(full: Partition) -> None:
    full.run(configure("stranger-1", overdraft_limit=10))
    full.run(configure("stranger-2", overdraft_limit=10))
    assert full.run(deduct("stranger-1", 0, "overdraft")).status == "ok"
    assert more(full) == "too_many", "a deduct of nothing spends nothing"
    assert full.run(deduct("stranger-1", 3, "overdraft")).status == "ok"
    assert more(full) == "ok"
    full.run(reserve("stranger-2", "r", 0, MINUTE, chosen=True))
    assert full.run(commit("r", 2, "overdraft")).status == "ok"
    assert more(full, "another") == "ok"
    assert more(full, "a-third") == "too_many"


def test_x10_a_hold_of_nothing_makes_a_stranger_that_stays(partition: Partition) -> None:
    """The hold ends and is swept away, the account is not: short holds for ever new names are bounded too."""
    partition.reservations_max = MOST
    for n in range(MOST):
        partition.freeze(T0 + 2 * n * MINUTE)
        assert partition.run(reserve(f"nobody-{n}", f"r{n}", 0, MINUTE, chosen=True)).status == "ok"
        partition.freeze(T0 + (2 * n + 1) * MINUTE)
        partition.run(expire(f"nobody-{n}"))
    assert partition.run(reserve("one-more", "s", 0, MINUTE, chosen=True)).status == "too_many"
    assert partition.run(reserve("nobody-0", "s", 0, MINUTE, chosen=True)).status == "ok"
    assert more(partition) == "too_many"


def test_x10_those_of_one_call_are_counted(partition: Partition) -> None:
    partition.reservations_max = MOST
    answers = partition.batch(*(configure(f"stranger-{n}") for n in range(MOST + 2)))
    assert [answer.status for answer in answers] == ["ok"] * MOST + ["too_many"] * 2


@pytest.mark.usefixtures("unchecked")
def test_x10_a_rebuild_counts_them_again(partition: Partition) -> None:
    partition.reservations_max = MOST
    for n in range(MOST):
        partition.run(restore(f"stranger-{n}"))
    partition.run(restore("rich", granted=5, voided=5))
    assert more(partition) == "too_many"
    partition.run(grant("stranger-0", "g", 1))
    partition.run(void("stranger-0", "g"))
    assert more(partition) == "ok", "who had credits once is none"
