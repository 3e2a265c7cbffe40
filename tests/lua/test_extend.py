"""More time or more credits for a reservation: lua/operations/extend.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import (
    balance,
    commit,
    configure,
    deduct,
    extend,
    grant,
    release,
    reservation,
    reserve,
)
from tests.lua.levels import budget
from tests.partition import HOUR, MINUTE, T0, Partition, dump


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held by r for an hour."""
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    return partition


def test_time_counts_from_now(held: Partition) -> None:
    held.freeze(T0 + MINUTE)

    answer = held.run(extend("r", 2 * HOUR))

    assert answer.status == "ok"
    assert answer.fields == {
        "user_id": "u",
        "reservation_id": "r",
        "amount": 40,
        "expires_at_ms": T0 + MINUTE + 2 * HOUR,
        "expires_in_ms": 2 * HOUR,
    }
    assert answer.balances == (60, 40, 0)
    entry = held.entries()[-1]
    assert (entry.kind, entry.amount) == ("extend", 0)
    assert entry.detail == {"reservation_id": "r", "expires_at": T0 + MINUTE + 2 * HOUR, "held": 40}


def test_the_old_end_is_forgotten(held: Partition) -> None:
    held.run(extend("r", 2 * HOUR))

    held.freeze(T0 + 2 * HOUR - 1)
    assert held.run(reservation("r"))["state"] == "open"
    held.freeze(T0 + 2 * HOUR)
    assert held.run(reservation("r"))["state"] == "expired"


def test_time_can_be_cut_short(held: Partition) -> None:
    held.run(extend("r", MINUTE))
    held.freeze(T0 + MINUTE)

    assert held.run(balance("u")).balances == (100, 0, 0)


def test_credits_are_added_and_the_time_stays(held: Partition) -> None:
    held.freeze(T0 + MINUTE)

    answer = held.run(extend("r", add_amount=25))

    assert (answer["amount"], answer["expires_at_ms"], answer["expires_in_ms"]) == (65, T0 + HOUR, HOUR - MINUTE)
    assert answer.balances == (35, 65, 0)
    assert held.run(commit("r"))["charged"] == 65


def test_added_credits_are_the_newest_draws(partition: Partition) -> None:
    partition.run(grant("u", "b", 10, priority=2))
    partition.run(reserve("u", "r", 5, HOUR, chosen=True))
    partition.run(grant("u", "a", 10, priority=1))
    partition.run(extend("r", add_amount=12))

    partition.run(commit("r", 6))

    assert partition.remaining("u") == {"a": 9, "b": 5}


def test_nothing_asked_for_changes_nothing_but_the_ledger(held: Partition) -> None:
    assert held.run(extend("r")).fields["expires_at_ms"] == T0 + HOUR
    assert held.kinds()[-1] == "extend"


def test_more_than_is_available(held: Partition) -> None:
    before = dump(held.client)

    answer = held.run(extend("r", 5 * HOUR, 61))

    assert answer.status == "insufficient"
    assert (answer["user_id"], answer["required"], answer.balances) == ("u", 61, (60, 40, 0))
    assert dump(held.client) == before


def test_a_suspended_account_gets_time_but_no_credits(held: Partition) -> None:
    held.run(configure("u", suspended=True))

    assert held.run(extend("r", HOUR, 1)).status == "suspended"
    assert held.run(extend("r", 2 * HOUR)).status == "ok"


def test_of_an_unknown_reservation(partition: Partition) -> None:
    assert partition.run(extend("nothing", HOUR)).status == "not_found"


def test_after_its_end(held: Partition) -> None:
    held.freeze(T0 + HOUR)

    answer = held.run(extend("r", HOUR))

    assert answer.status == "finished"
    assert answer.fields == {"state": "expired", "user_id": "u", "charged": 0}


def test_after_a_commit_or_a_release(held: Partition) -> None:
    held.run(reserve("u", "s", 1, HOUR, chosen=True))
    held.run(commit("r", 15))
    held.run(release("s"))

    assert held.run(extend("r", HOUR)).fields == {"state": "committed", "user_id": "u", "charged": 15}
    assert held.run(extend("s", HOUR)).fields == {"state": "released", "user_id": "u", "charged": 0}


def test_several_times_in_one_batch(held: Partition) -> None:
    held.batch(extend("r", MINUTE), extend("r", HOUR, 10), extend("r", 3 * HOUR, 10), deduct("u", 40))

    held.freeze(T0 + 2 * HOUR)
    assert held.run(balance("u")).balances == (0, 60, 0)


def test_a_budget_bounds_what_is_added(partition: Partition) -> None:
    partition.batch(grant("t/a", "g", 100), budget("t", 10), reserve("t/a", "r", 6, HOUR, chosen=True))

    assert partition.run(extend("r", None, 5)).status == "budget_reached"
    assert partition.run(extend("r", None, 4)).status == "ok"
    assert partition.run(extend("r", HOUR)).status == "ok"
    assert partition.entries()[-2].detail["counters"] == [["t", 0, 10, 1, 1]]
