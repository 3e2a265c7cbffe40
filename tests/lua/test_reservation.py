"""Reading one reservation: lua/operations/reservation.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import commit, grant, release, reservation, reserve
from meter.engine.upkeep import rotate
from tests.partition import DAY, HOUR, T0, Partition


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held by r for an hour."""
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    return partition


def test_open(held: Partition) -> None:
    answer = held.run(reservation("r"))

    assert answer.status == "ok"
    assert answer.fields == {
        "user_id": "u",
        "reservation_id": "r",
        "state": "open",
        "amount": 40,
        "charged": 0,
        "expires_at_ms": T0 + HOUR,
    }
    assert answer.balances == (60, 40, 0)


def test_committed(held: Partition) -> None:
    held.freeze(T0 + 1)
    held.run(commit("r", 15))

    answer = held.run(reservation("r"))

    assert (answer["state"], answer["amount"], answer["charged"]) == ("committed", 40, 15)
    assert (answer["expires_at_ms"], answer.balances) == (T0 + 1, (85, 0, 0))


def test_released(held: Partition) -> None:
    held.run(release("r"))

    assert held.run(reservation("r"))["state"] == "released"


def test_expired_by_the_clock_alone(held: Partition) -> None:
    held.freeze(T0 + HOUR)

    answer = held.run(reservation("r"))

    assert (answer["state"], answer["expires_at_ms"], answer.balances) == ("expired", T0 + HOUR, (100, 0, 0))


def test_unknown(held: Partition) -> None:
    assert held.run(reservation("nothing")).status == "not_found"


def test_a_finished_one_is_forgotten_after_two_windows_at_most(held: Partition) -> None:
    held.run(release("r"))
    held.freeze(T0 + DAY)
    held.run(rotate())
    assert held.run(reservation("r")).status == "ok"

    held.freeze(T0 + 2 * DAY)
    held.run(rotate())

    assert held.run(reservation("r")).status == "not_found"


def test_an_open_one_is_never_forgotten(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, 10 * DAY, chosen=True))
    for day in (1, 2, 3):
        partition.freeze(T0 + day * DAY)
        assert partition.run(rotate())["rotated"] == 1

    assert partition.run(reservation("r"))["state"] == "open"
    assert partition.run(reserve("u", "r", 40, 10 * DAY, chosen=True)).status == "key_reused"
