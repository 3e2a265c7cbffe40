"""Giving a reservation back: lua/operations/release.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import balance, commit, configure, deduct, extend, grant, release, reserve, void
from tests.partition import HOUR, MINUTE, T0, Partition


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held by r for an hour."""
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    return partition


def test_everything_returns(held: Partition) -> None:
    answer = held.run(release("r"))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["reservation_id"], answer["released"], answer["forfeited"]) == ("u", "r", 40, 0)
    assert answer.balances == (100, 0, 0)
    entry = held.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, entry.detail) == ("release", 40, {"reservation_id": "r", "forfeited": 0})


def test_each_grant_gets_its_own_part_back(partition: Partition) -> None:
    for name, priority in (("c", 3), ("b", 2), ("a", 1)):
        partition.run(grant("u", name, 10, priority=priority))
    partition.run(reserve("u", "r", 25, HOUR, chosen=True))

    partition.run(release("r"))

    assert partition.remaining("u") == {"a": 10, "b": 10, "c": 10}


def test_a_second_release_answers_as_the_first(held: Partition) -> None:
    first = held.run(release("r"))
    held.run(deduct("u", 1))

    again = held.run(release("r"))

    assert (again.replayed, again.line[1:]) == (True, first.line[1:])
    assert held.kinds() == ["grant", "reserve", "release", "deduct"]


def test_after_a_commit(held: Partition) -> None:
    held.run(commit("r", 15))

    answer = held.run(release("r"))

    assert answer.status == "finished"
    assert answer.fields == {"state": "committed", "user_id": "u", "charged": 15}


def test_after_its_end(held: Partition) -> None:
    held.freeze(T0 + HOUR)

    assert held.run(release("r")).fields == {"state": "expired", "user_id": "u", "charged": 0}
    assert held.run(balance("u")).balances == (100, 0, 0)


def test_of_an_unknown_reservation(partition: Partition) -> None:
    assert partition.run(release("nothing")).status == "not_found"


def test_what_returns_to_ended_grants_is_forfeited(partition: Partition) -> None:
    partition.run(grant("u", "soon", 10, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "void", 10, priority=11))
    partition.run(grant("u", "keeps", 10, priority=12))
    partition.run(reserve("u", "r", 25, HOUR, chosen=True))
    partition.run(void("u", "void"))
    partition.freeze(T0 + MINUTE)

    answer = partition.run(release("r"))

    assert (answer["released"], answer["forfeited"], answer.balances) == (25, 20, (10, 0, 0))
    assert [(entry.kind, entry.amount) for entry in partition.entries()[-3:]] == [
        ("release", 25),
        ("grant_expired", 10),
        ("grant_expired", 10),
    ]


def test_what_returns_pays_debt_first(held: Partition) -> None:
    held.run(configure("u", overdraft_limit=50))
    held.run(deduct("u", 110, "overdraft"))

    assert held.run(release("r")).balances == (0, 0, 10)


def test_of_nothing(partition: Partition) -> None:
    partition.run(reserve("u", "r", 0, HOUR, chosen=True))

    assert partition.run(release("r")).balances == (0, 0, 0)


def test_after_an_extension(held: Partition) -> None:
    held.run(extend("r", add_amount=20))

    assert held.run(release("r"))["released"] == 60
