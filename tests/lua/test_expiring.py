"""Grants that end before a time: lua/operations/expiring.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import deduct, expiring, grant, reserve, void
from tests.partition import HOUR, MINUTE, T0, Partition


@pytest.fixture
def varied(partition: Partition) -> Partition:
    """Seven grants of u end within the hour, one an hour later, one never; others are over or another's."""
    for n in (3, 0, 6, 1, 5, 2, 4):
        partition.run(grant("u", f"g{n}", 10, priority=9 - n, expires_at_ms=T0 + (n + 1) * MINUTE))
    partition.run(grant("u", "later", 10, expires_at_ms=T0 + HOUR))
    partition.run(grant("u", "never", 10))
    partition.run(grant("u", "void", 10, priority=0, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "empty", 5, priority=0, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u1", "g", 10, expires_at_ms=T0 + MINUTE))
    partition.run(reserve("u", "r", 5, HOUR, chosen=True))
    partition.batch(void("u", "void"))
    return partition


def _pages(partition: Partition, until: int, limit: int) -> list[list[str]]:
    pages, cursor = [], ""
    while cursor != "-":
        answer = partition.run(expiring("u", until, cursor.replace("~", " "), limit))
        assert answer.status == "ok"
        pages.append([item[0] for item in answer.items])
        cursor = answer["next_cursor"]
    return pages


def test_those_that_end_first_come_first_and_those_with_holds_too(varied: Partition) -> None:
    answer = varied.run(expiring("u", T0 + HOUR, "", 50))

    assert (answer.status, answer["next_cursor"], answer.balances) == ("ok", "-", (90, 5, 0))
    assert [item[0] for item in answer.items] == ["empty", *(f"g{n}" for n in range(7))]
    assert answer.items[0][1:4] == ("5", "0", "5")


@pytest.mark.parametrize(("until", "last"), [(2 * MINUTE, "g0"), (2 * MINUTE + 1, "g1"), (HOUR + 1, "later")])
def test_the_end_of_the_time_is_exclusive(varied: Partition, until: int, last: str) -> None:
    assert _pages(varied, T0 + until, 50)[0][-1] == last


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9])
def test_pages_join_up(varied: Partition, limit: int) -> None:
    pages = _pages(varied, T0 + HOUR, limit)

    assert [name for page in pages for name in page] == ["empty", *(f"g{n}" for n in range(7))]
    assert all(len(page) == limit for page in pages[:-1])


def test_what_is_spent_or_over_is_not_listed(varied: Partition) -> None:
    varied.run(deduct("u", 21))
    varied.freeze(T0 + MINUTE)

    assert _pages(varied, T0 + HOUR, 50) == [["g1", "g2", "g3", "g4"]]


def test_of_a_user_without_any(partition: Partition) -> None:
    assert _pages(partition, T0 + HOUR, 50) == [[]]
