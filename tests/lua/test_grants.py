"""Listing grants: lua/operations/grants.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import deduct, grant, grants, reserve, void
from tests.partition import DAY, HOUR, MINUTE, T0, Answer, Partition


@pytest.fixture
def varied(partition: Partition) -> Partition:
    """Grants of every state: two burn, one holds only, one is scheduled, two are over, one is exhausted."""
    partition.run(grant("u", "ended", 4, priority=0, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "empty", 5, priority=0, expires_at_ms=T0 + HOUR))
    partition.run(grant("u", "held", 6, priority=1))
    partition.run(grant("u", "second", 20, priority=3, expires_at_ms=T0 + DAY))
    partition.run(grant("u", "first", 10, priority=2, source="plan:x"))
    partition.run(grant("u", "coming", 30, priority=0, effective_at_ms=T0 + HOUR))
    partition.run(grant("u", "void", 40, priority=9))
    partition.run(grant("other", "g", 40))
    partition.freeze(T0 + MINUTE)
    partition.run(deduct("u", 5))
    partition.run(reserve("u", "r", 6, HOUR, chosen=True))
    partition.run(void("u", "void"))
    return partition


def _ids(answer: Answer) -> list[str]:
    return [item[0] for item in answer.items]


def _pages(partition: Partition, state: str, limit: int) -> list[list[str]]:
    pages, cursor = [], ""
    while cursor != "-":
        answer = partition.run(grants("u", state, cursor.replace("~", " "), limit))
        pages.append(_ids(answer))
        cursor = answer["next_cursor"]
    return pages


def test_live_grants_in_burn_order(varied: Partition) -> None:
    answer = varied.run(grants("u", "live", "", 50))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["next_cursor"], answer.balances) == ("u", "-", (30, 6, 0))
    assert _ids(answer) == ["first", "second", "coming", "held"]


def test_all_grants(varied: Partition) -> None:
    answer = varied.run(grants("u", "all", "", 50))

    assert _ids(answer) == ["first", "second", "coming", "ended", "empty", "held", "void"]
    shown = {item[0]: item[1:4] + item[9:] for item in answer.items}
    assert shown == {
        "first": ("10", "10", "0", "F", "-", "plan:x"),
        "second": ("20", "20", "0", "L", "-", "api"),
        "coming": ("30", "30", "0", "S", "-", "api"),
        "ended": ("4", "0", "0", "X", "e", "api"),
        "empty": ("5", "0", "0", "X", "-", "api"),
        "held": ("6", "0", "6", "X", "-", "api"),
        "void": ("40", "0", "0", "X", "v", "api"),
    }
    assert answer.items[1][4:8] == ("3", str(T0), str(T0 + DAY), str(T0))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("state", ["live", "all"])
def test_pages_join_up(varied: Partition, state: str, limit: int) -> None:
    whole = _ids(varied.run(grants("u", state, "", 500)))

    pages = _pages(varied, state, limit)

    assert [name for page in pages for name in page] == whole
    assert all(len(page) == limit for page in pages[:-1])


def test_a_user_without_grants(partition: Partition) -> None:
    partition.run(grant("u1", "g", 5))

    answer = partition.run(grants("u", "all", "", 50))

    assert (answer.items, answer["next_cursor"]) == ((), "-")


def test_scheduled_grants_only(partition: Partition) -> None:
    for n in range(3):
        partition.run(grant("u", f"g{n}", 5, effective_at_ms=T0 + 1 + n))

    assert _pages(partition, "live", 2) == [["g0", "g1"], ["g2"]]


def test_what_the_same_batch_did_is_shown(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))

    answers = partition.batch(
        grant("u", "h", 5, priority=1), deduct("u", 5), grants("u", "all", "", 50), deduct("u", 2), void("u", "h")
    )

    assert [(item[0], item[2]) for item in answers[2].items] == [("g", "5"), ("h", "0")]
    assert partition.remaining("u") == {"g": 3, "h": 0}
