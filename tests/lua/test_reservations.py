"""Listing open reservations: lua/operations/reservations.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import commit, extend, grant, reservations, reserve
from tests.partition import HOUR, MINUTE, T0, Partition


@pytest.fixture
def several(partition: Partition) -> Partition:
    """Seven open reservations of u, between other things on the agenda and other users."""
    for n in range(7):
        partition.run(grant("u", f"g{n}", 10, expires_at_ms=T0 + HOUR + n * MINUTE))
        partition.run(grant("u", f"h{n}", 10, effective_at_ms=T0 + HOUR + n * MINUTE))
    for user in ("u", "u1", "t"):
        partition.run(grant(user, "g", 10))
    for n in (4, 0, 6, 2, 1, 5, 3):
        partition.run(reserve("u", f"r{n}", n, HOUR + n * MINUTE, chosen=True))
    partition.run(reserve("u1", "x1", 1, HOUR, chosen=True))
    partition.run(reserve("t", "x2", 1, HOUR, chosen=True))
    return partition


def test_those_that_end_first_come_first(several: Partition) -> None:
    answer = several.run(reservations("u", "", 50))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["next_cursor"]) == ("u", "-")
    assert [item[0] for item in answer.items] == [f"r{n}" for n in range(7)]
    assert answer.items[3] == ("r3", "3", str(T0 + HOUR + 3 * MINUTE), str(T0))
    assert answer.balances == (59, 21, 0)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 50])
def test_pages_join_up(several: Partition, limit: int) -> None:
    pages, cursor = [], ""
    while cursor != "-":
        answer = several.run(reservations("u", cursor.replace("~", " "), limit))
        pages.append([item[0] for item in answer.items])
        cursor = answer["next_cursor"]

    assert [name for page in pages for name in page] == [f"r{n}" for n in range(7)]
    assert all(len(page) == limit for page in pages[:-1])


def test_what_ended_is_not_listed(several: Partition) -> None:
    several.run(commit("r5"))
    several.freeze(T0 + HOUR + 2 * MINUTE)

    assert [item[0] for item in several.run(reservations("u", "", 50)).items] == ["r3", "r4", "r6"]


def test_what_the_same_batch_did_is_shown(several: Partition) -> None:
    answers = several.batch(
        commit("r0"),
        extend("r1", 9 * HOUR),
        reserve("u", "new", 1, MINUTE, chosen=True),
        reservations("u", "", 50),
        commit("r2"),
    )

    assert [item[0] for item in answers[3].items] == ["new", "r2", "r3", "r4", "r5", "r6", "r1"]


def test_of_a_user_without_any(partition: Partition) -> None:
    answer = partition.run(reservations("u", "", 50))

    assert (answer.items, answer["next_cursor"], answer.balances) == ((), "-", (0, 0, 0))
