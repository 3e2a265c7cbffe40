"""X4c: what is held is charged at its end only when its caller was told of it: lua/operations/confirm.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import commit, grant, reserve
from meter.engine.upkeep import confirm, expire
from tests.partition import HOUR, MINUTE, Partition


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held by r for a minute, to be charged then if that is confirmed."""
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, MINUTE, chosen=False, at_end="confirm"))
    return partition


def test_x4c_what_nobody_confirmed_is_released_at_its_end(held: Partition) -> None:
    held.advance(MINUTE)

    assert held.run(expire("u")).balances == (100, 0, 0)
    assert held.kinds()[-1] == "reservation_expired"


def test_x4c_what_was_confirmed_is_charged_at_its_end(held: Partition) -> None:
    answer = held.run(confirm("r"))
    assert (answer.status, answer.fields) == ("ok", {"user_id": "u", "reservation_id": "r"})
    assert held.run(confirm("r")).status == "ok"

    held.advance(MINUTE)

    assert held.run(expire("u")).balances == (60, 0, 0)
    assert held.kinds() == ["grant", "reserve", "commit"]  # confirming is no transaction


def test_it_changes_nothing_about_a_hold_that_asked_for_nothing(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, MINUTE, chosen=False))
    before = partition.client.hgetall(partition.keys.holds)

    assert partition.run(confirm("r")).status == "ok"

    assert partition.client.hgetall(partition.keys.holds) == before


def test_what_has_ended_meanwhile_is_told(held: Partition) -> None:
    assert held.run(confirm("x")).status == "not_found"
    held.run(commit("r", 5))
    finished = held.run(confirm("r"))
    assert (finished.status, finished["state"], finished["charged"]) == ("finished", "committed", 5)


def test_its_own_end_comes_first(held: Partition) -> None:
    held.advance(HOUR)

    assert held.run(confirm("r"))["state"] == "expired"
