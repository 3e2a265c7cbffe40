"""X4: a hold whose caller was refused meanwhile is as if it had never been: lua/operations/withdraw.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import UNKEYED, commit, grant, release, reservation, reserve, reserve_for_request
from meter.engine.upkeep import withdraw
from tests.partition import HOUR, MINUTE, T0, Answer, Partition


def ask(partition: Partition, amount: int = 40, ttl_ms: int = HOUR) -> Answer:
    """The request q asks."""
    return partition.run(reserve_for_request("u", "q", amount, ttl_ms, at_end="release", asked=UNKEYED))


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held for the request q for an hour."""
    partition.run(grant("u", "g", 100))
    ask(partition)
    return partition


def test_x4_everything_returns_and_nothing_remembers_it(held: Partition) -> None:
    answer = held.run(withdraw("q", T0 + HOUR))

    assert answer.status == "ok"
    assert (answer["released"], answer["forfeited"], answer.balances) == (40, 0, (100, 0, 0))
    entry = held.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount) == ("release", 40)
    assert entry.detail == {"reservation_id": "q", "forfeited": 0, "withdrawn": True}
    for again in (withdraw("q", T0 + HOUR), reservation("q"), release("q"), commit("q", 5)):
        assert held.run(again).status == "not_found"


def test_x4b_the_same_request_is_served_after_that(held: Partition) -> None:
    held.run(withdraw("q", T0 + HOUR))

    again = ask(held)

    assert (again.status, again.replayed, again.balances) == ("ok", False, (60, 40, 0))
    assert held.run(commit("q", 7)).balances == (93, 0, 0)


def test_x4_a_hold_that_was_asked_for_again_stays(held: Partition) -> None:
    """Another sidecar was asked the same before this one took it back."""
    again = ask(held)

    assert (again.status, again.replayed, again["amount"], again["expires_at_ms"]) == ("ok", True, 40, T0 + HOUR + 1)
    assert held.run(withdraw("q", T0 + HOUR)).status == "not_found"
    assert held.run(reservation("q"))["state"] == "open"
    assert held.kinds() == ["grant", "reserve", "extend"]


def test_whoever_asked_last_can_take_it_back(held: Partition) -> None:
    assert held.run(withdraw("q", ask(held)["expires_at_ms"])).balances == (100, 0, 0)


def test_one_of_any_end_can_be_taken_back(held: Partition) -> None:
    assert held.run(withdraw("q", None)).status == "ok"


def test_a_repeat_under_its_key_is_answered_as_before(held: Partition) -> None:
    first = held.run(withdraw("q", None, "key"))
    ask(held)

    again = held.run(withdraw("q", None, "key"))

    assert (again.replayed, again.line[1:]) == (True, first.line[1:])
    assert held.run(reservation("q"))["state"] == "open"


def test_what_was_settled_is_not_taken_back(held: Partition) -> None:
    held.run(commit("q", 7))

    assert held.run(withdraw("q", T0 + HOUR)).status == "not_found"
    assert held.run(reservation("q"))["charged"] == 7


def test_its_own_end_comes_first(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, MINUTE, chosen=False))
    partition.advance(MINUTE)

    assert partition.run(withdraw("r", T0 + MINUTE)).status == "not_found"
    assert partition.kinds()[-1] == "reservation_expired"
