"""Holds that are charged when nobody settles them: `at_end` of lua/operations/reserve.lua."""

from __future__ import annotations

from meter.engine.operations import balance, commit, deduct, extend, grant, release, reservation, reserve
from meter.engine.upkeep import expire
from tests.partition import HOUR, MINUTE, T0, Partition


def held(partition: Partition, amount: int = 30, at_end: str = "charge") -> None:
    partition.run(grant("u", "g", 100))
    assert partition.run(reserve("u", "r", amount, MINUTE, chosen=True, at_end=at_end)).status == "ok"


def test_an_unsettled_hold_is_charged_at_its_end(partition: Partition) -> None:
    held(partition)
    partition.advance(2 * MINUTE)

    assert partition.run(balance("u")).balances == (70, 0, 0)
    assert partition.kinds() == ["grant", "reserve", "commit"]
    entry = partition.entries()[-1]
    assert (entry.amount, entry.created_at_ms) == (30, T0 + MINUTE)
    assert (entry.detail["at_end"], entry.detail["late"], entry.detail["reservation_id"]) == ("charge", False, "r")
    assert [(draw.grant_id, draw.amount, draw.reserved) for draw in entry.draws] == [("g", 30, 0)]
    state = partition.run(reservation("r"))
    assert (state["state"], state["charged"], state["expires_at_ms"]) == ("committed", 30, T0 + MINUTE)


def test_other_holds_are_released_at_their_end(partition: Partition) -> None:
    held(partition, at_end="release")
    partition.advance(2 * MINUTE)

    assert partition.run(balance("u")).balances == (100, 0, 0)
    assert partition.kinds()[-1] == "reservation_expired"


def test_a_hold_that_is_settled_in_time_is_charged_for_its_use_only(partition: Partition) -> None:
    held(partition)

    assert partition.run(commit("r", 10))["charged"] == 10
    partition.advance(HOUR)

    assert partition.run(balance("u")).balances == (90, 0, 0)
    assert partition.kinds() == ["grant", "reserve", "commit"]


def test_a_released_hold_is_not_charged(partition: Partition) -> None:
    held(partition)

    assert partition.run(release("r")).status == "ok"
    partition.advance(HOUR)

    assert partition.run(balance("u")).balances == (100, 0, 0)


def test_the_end_that_counts_is_the_extended_one_with_all_that_was_added(partition: Partition) -> None:
    held(partition)
    assert partition.run(extend("r", HOUR, 20)).status == "ok"
    partition.advance(2 * MINUTE)
    assert partition.run(balance("u")).balances == (50, 50, 0)
    partition.advance(HOUR)

    assert partition.run(expire("u"))["transactions"] == 1
    assert partition.run(balance("u")).balances == (50, 0, 0)
    assert partition.entries()[-1].amount == 50


def test_the_charge_stands_against_a_later_commit(partition: Partition) -> None:
    held(partition)
    partition.advance(2 * MINUTE)

    same, other = partition.run(commit("r", 30)), partition.run(commit("r", 10))

    assert (same.status, same.replayed, same["charged"], same["late"]) == ("ok", True, 30, 0)
    assert (other.status, other["state"], other["charged"]) == ("finished", "committed", 30)
    assert partition.run(release("r")).status == "finished"


def test_a_charge_at_the_end_is_kept_from_grants_that_ended_meanwhile(partition: Partition) -> None:
    partition.run(grant("u", "short", 30, expires_at_ms=T0 + MINUTE // 2))
    partition.run(reserve("u", "r", 30, MINUTE, chosen=True, at_end="charge"))
    partition.advance(2 * MINUTE)

    assert partition.run(deduct("u", 1)).status == "insufficient"
    assert partition.kinds()[2:] == ["commit"]


def test_a_hold_of_nothing_is_charged_nothing(partition: Partition) -> None:
    held(partition, 0)
    partition.advance(2 * MINUTE)

    assert partition.run(balance("u")).balances == (100, 0, 0)
    assert partition.run(reservation("r"))["state"] == "committed"
