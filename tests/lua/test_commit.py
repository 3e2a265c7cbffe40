"""Settling a reservation: lua/operations/commit.lua."""

from __future__ import annotations

from typing import cast

import pytest

from meter.engine.operations import balance, commit, configure, deduct, grant, release, reserve, void
from tests.invariants import AMOUNT_MAX
from tests.lua.levels import budget
from tests.partition import DAY, HOUR, MINUTE, T0, Answer, Partition, dump


@pytest.fixture
def held(partition: Partition) -> Partition:
    """u has 100 credits, 40 of them held by r for an hour."""
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    return partition


def _outcome(answer: Answer) -> tuple[int, int, int, int, int]:
    return tuple(answer[name] for name in ("charged", "released", "forfeited", "uncovered", "late"))


def test_all_that_is_held(held: Partition) -> None:
    answer = held.run(commit("r"))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["reservation_id"]) == ("u", "r")
    assert _outcome(answer) == (40, 0, 0, 0, 0)
    assert answer.balances == (60, 0, 0)
    entry = held.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, entry.available, entry.reserved) == ("commit", 40, 60, 0)
    assert entry.detail == {"reservation_id": "r", "released": 0, "forfeited": 0, "uncovered": 0, "late": False}


@pytest.mark.parametrize("amount", [0, 1, 39])
def test_less_than_is_held_returns_the_rest(held: Partition, amount: int) -> None:
    answer = held.run(commit("r", amount))

    assert _outcome(answer) == (amount, 40 - amount, 0, 0, 0)
    assert answer.balances == (100 - amount, 0, 0)


def test_the_first_draws_are_kept_and_the_newest_return(partition: Partition) -> None:
    for name, priority in (("c", 3), ("b", 2), ("a", 1)):
        partition.run(grant("u", name, 10, priority=priority))
    partition.run(reserve("u", "r", 25, HOUR, chosen=True))

    answer = partition.run(commit("r", 12))

    assert partition.remaining("u") == {"b": 8, "c": 10, "a": 0}
    draws = [(draw.grant_id, draw.amount) for draw in partition.entry_of(answer["transaction_id"]).draws]
    assert draws == [("a", 10), ("b", 2), ("c", 0)]


def test_more_than_is_held_takes_what_is_free(held: Partition) -> None:
    assert _outcome(held.run(commit("r", 70))) == (70, 0, 0, 0, 0)
    assert held.run(balance("u")).balances == (30, 0, 0)


def test_more_than_there_is_reports_what_is_uncovered(held: Partition) -> None:
    answer = held.run(commit("r", 130))

    assert _outcome(answer) == (100, 0, 0, 30, 0)
    assert answer.balances == (0, 0, 0)


def test_reject_keeps_the_hold(held: Partition) -> None:
    before = dump(held.client)

    answer = held.run(commit("r", 101, "reject"))

    assert answer.status == "insufficient"
    assert (answer["user_id"], answer["required"], answer.balances) == ("u", 101, (60, 40, 0))
    assert dump(held.client) == before
    assert held.run(commit("r", 100, "reject")).status == "ok"


@pytest.mark.parametrize(("limit", "charged", "uncovered"), [(0, 100, 30), (20, 120, 10), (30, 130, 0), (50, 130, 0)])
def test_overdraft_goes_up_to_the_limit(held: Partition, limit: int, charged: int, uncovered: int) -> None:
    held.run(configure("u", overdraft_limit=limit))

    answer = held.run(commit("r", 130, "overdraft"))

    assert _outcome(answer) == (charged, 0, 0, uncovered, 0)
    assert answer.balances == (0, 0, charged - 100)


@pytest.mark.parametrize("shortfall", ["partial", "reject"])
def test_p20_hold_only_is_never_more_than_was_held(partition: Partition, shortfall: str) -> None:
    """P20: 30 held, 20 free; commit of 31."""
    partition.run(grant("u", "g", 50))
    partition.run(configure("u", overdraft_limit=100))
    partition.run(reserve("u", "r", 30, HOUR, chosen=True))
    before = dump(partition.client)

    answer = partition.run(commit("r", 31, "hold_only", shortfall=shortfall))

    assert (answer.status, answer["required"], answer.balances) == ("insufficient", 31, (20, 30, 0))
    assert dump(partition.client) == before
    assert _outcome(partition.run(commit("r", 30, "hold_only", shortfall=shortfall))) == (30, 0, 0, 0, 0)
    assert partition.run(commit("r", 30, "hold_only")).replayed


@pytest.mark.parametrize(
    ("limit", "amount", "debt"), [(0, 91, None), (20, 111, None), (20, 110, 20), (20, 120, None), (50, 120, 30)]
)
def test_p20_an_overdraft_that_does_not_cover_it_all_can_be_refused(
    partition: Partition, limit: int, amount: int, debt: int | None
) -> None:
    """P20: 90 granted, 40 held, so 50 free; what the limit does not cover of the amount is a reason to refuse."""
    partition.run(grant("u", "g", 90))
    partition.run(configure("u", overdraft_limit=limit))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    before = dump(partition.client)

    answer = partition.run(commit("r", amount, "overdraft", shortfall="reject"))

    if debt is None:
        assert (answer.status, answer["required"], answer.balances) == ("insufficient", amount, (50, 40, 0))
        assert dump(partition.client) == before
    else:
        assert _outcome(answer) == (amount, 0, 0, 0, 0)
        assert answer.balances == (0, 0, debt)


def test_p20_a_cap_that_does_not_cover_it_all_can_be_refused(held: Partition) -> None:
    assert held.run(commit("r", 101, "cap", shortfall="reject")).status == "insufficient"
    assert _outcome(held.run(commit("r", 100, "cap", shortfall="reject"))) == (100, 0, 0, 0, 0)


@pytest.mark.parametrize(("amount", "status"), [(40, "ok"), (41, "insufficient")])
def test_p20_a_late_commit_of_the_hold_only_is_of_what_was_held(held: Partition, amount: int, status: str) -> None:
    held.advance(HOUR + MINUTE)

    assert held.run(commit("r", amount, "hold_only")).status == status


def test_overdraft_with_debt_already(partition: Partition) -> None:
    partition.run(grant("u", "g", 40))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    partition.run(configure("u", overdraft_limit=30))
    partition.run(deduct("u", 20, "overdraft"))

    answer = partition.run(commit("r", 60, "overdraft"))

    assert _outcome(answer) == (50, 0, 0, 10, 0)
    assert answer.balances == (0, 0, 30)


def test_what_returns_pays_debt_first(partition: Partition) -> None:
    partition.run(grant("u", "g", 40))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    partition.run(configure("u", overdraft_limit=30))
    partition.run(deduct("u", 20, "overdraft"))

    assert partition.run(commit("r", 10)).balances == (10, 0, 0)


def test_the_sum_of_all_charges_stays_exact(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=10))
    partition.run(grant("u", "g", AMOUNT_MAX))
    partition.run(reserve("u", "r", 5, HOUR, chosen=True))
    partition.run(deduct("u", AMOUNT_MAX, "overdraft"))

    assert partition.run(commit("r")).status == "overflow"
    assert partition.run(commit("r", 0)).status == "ok"


def test_a_second_commit_of_the_same_amount_answers_as_the_first(held: Partition) -> None:
    first = held.run(commit("r", 25))
    held.run(deduct("u", 1))
    before = held.entries()

    again = held.run(commit("r", 25))

    assert again.replayed
    assert again.line[1:] == first.line[1:]
    assert held.entries() == before


def test_a_second_commit_without_amount_means_all_again(held: Partition) -> None:
    first = held.run(commit("r"))

    assert held.run(commit("r")).line[1:] == first.line[1:]
    assert held.run(commit("r", 40)).replayed


def test_a_second_capped_commit_answers_as_the_first(held: Partition) -> None:
    first = held.run(commit("r", 130))

    assert held.run(commit("r", 130)).line[1:] == first.line[1:]
    assert held.run(commit("r", 100)).status == "finished"


def test_a_second_commit_of_another_amount_is_refused(held: Partition) -> None:
    held.run(commit("r", 25))

    answer = held.run(commit("r", 26))

    assert answer.status == "finished"
    assert answer.fields == {"state": "committed", "user_id": "u", "charged": 25}


def test_after_a_release(held: Partition) -> None:
    held.run(release("r"))

    answer = held.run(commit("r"))

    assert answer.status == "finished"
    assert answer.fields == {"state": "released", "user_id": "u", "charged": 0}


def test_of_an_unknown_reservation(partition: Partition) -> None:
    assert partition.run(commit("nothing")).status == "not_found"


@pytest.mark.parametrize("late_by", [0, 1, HOUR])
def test_a_late_commit_within_the_grace_is_charged(held: Partition, late_by: int) -> None:
    held.freeze(T0 + HOUR + late_by)

    answer = held.run(commit("r", 25))

    assert _outcome(answer) == (25, 0, 0, 0, 1)
    assert answer.balances == (75, 0, 0)
    assert held.kinds()[-2:] == ["reservation_expired", "commit"]
    assert [entry.created_at_ms for entry in held.entries()[-2:]] == [T0 + HOUR, T0 + HOUR + late_by]


def test_a_late_commit_counts_from_the_end_however_late_it_was_noticed(held: Partition) -> None:
    held.freeze(T0 + 3 * HOUR)

    answer = held.run(commit("r"))

    assert answer.status == "finished"
    assert answer.fields == {"state": "expired", "user_id": "u", "charged": 0}


def test_after_the_grace(held: Partition) -> None:
    held.freeze(T0 + HOUR)
    held.run(balance("u"))
    held.freeze(T0 + 2 * HOUR + 1)

    assert held.run(commit("r")).status == "finished"


def test_a_late_commit_without_amount_means_what_was_held(held: Partition) -> None:
    held.freeze(T0 + HOUR)

    first = held.run(commit("r"))

    assert _outcome(first) == (40, 0, 0, 0, 1)
    again = held.run(commit("r"))
    assert (again.replayed, again.line[1:]) == (True, first.line[1:])
    assert held.run(commit("r", 1)).status == "finished"


def test_a_late_commit_of_more_than_there_is(held: Partition) -> None:
    held.run(deduct("u", 55))
    held.run(configure("u", overdraft_limit=10))
    held.freeze(T0 + HOUR)

    assert held.run(commit("r", 70, "reject")).status == "insufficient"
    assert _outcome(held.run(commit("r", 70, "overdraft"))) == (55, 0, 0, 15, 1)
    assert held.run(balance("u")).balances == (0, 0, 10)


def test_what_returns_to_an_expired_grant_is_forfeited(partition: Partition) -> None:
    partition.run(grant("u", "soon", 10, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "keeps", 10))
    partition.run(reserve("u", "r", 16, HOUR, chosen=True))
    partition.freeze(T0 + MINUTE)

    answer = partition.run(commit("r", 7))

    assert _outcome(answer) == (7, 9, 3, 0, 0)
    assert answer.balances == (10, 0, 0)
    assert partition.run(balance("u"))["expired"] == 3
    booked = partition.entries()[-1]
    assert (booked.kind, booked.amount, booked.created_at_ms) == ("grant_expired", 3, T0 + MINUTE)
    assert booked.detail == {"grant_id": "soon"}


def test_what_returns_to_a_voided_grant_is_forfeited(held: Partition) -> None:
    held.run(void("u", "g"))

    answer = held.run(commit("r", 15))

    assert _outcome(answer) == (15, 25, 25, 0, 0)
    assert answer.balances == (0, 0, 0)
    read = held.run(balance("u"))
    assert (read["voided"], read["expired"], read["spent"]) == (60, 25, 15)


def test_a_forfeit_beside_debt(partition: Partition) -> None:
    """Two grants in one hold, one ended: the live one's part pays the debt, the other's is lost."""
    partition.run(grant("u", "soon", 10, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "keeps", 10))
    partition.run(reserve("u", "r", 20, HOUR, chosen=True))
    partition.run(configure("u", overdraft_limit=30))
    partition.run(deduct("u", 8, "overdraft"))
    partition.freeze(T0 + MINUTE)

    answer = partition.run(commit("r", 0))

    assert _outcome(answer) == (0, 20, 10, 0, 0)
    assert answer.balances == (2, 0, 0)


def test_a_hold_outlives_the_grant_it_was_drawn_from(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + MINUTE))
    partition.run(reserve("u", "r", 10, HOUR, chosen=True))
    partition.freeze(T0 + MINUTE)

    assert partition.run(balance("u")).balances == (0, 10, 0)
    assert _outcome(partition.run(commit("r", 10))) == (10, 0, 0, 0, 0)


def test_a_suspended_account_can_still_settle(held: Partition) -> None:
    held.run(configure("u", suspended=True))

    assert held.run(commit("r")).status == "ok"


def test_finished_reservations_are_remembered_for_the_window(held: Partition) -> None:
    held.run(commit("r"))
    held.freeze(T0 + DAY - 1)

    assert held.run(commit("r")).replayed


def test_a_budget_bounds_what_is_beyond_the_hold_and_never_the_hold(partition: Partition) -> None:
    partition.batch(
        grant("t/a", "g", 100), budget("t", 10), reserve("t/a", "r", 6, HOUR, chosen=True), deduct("t/a", 3)
    )

    assert partition.run(commit("r", 9, "reject")).status == "budget_reached"
    partition.run(budget("t", 1))
    answer = partition.run(commit("r", 9))
    assert (answer["charged"], answer["uncovered"], answer.line.endswith(" !b")) == (6, 3, True)
    assert partition.entries()[-1].detail["limited_by"] == "b"
    (counted,) = cast("list[list[object]]", partition.entries()[-1].detail["counters"])
    assert counted[:5] == ["t", 9, 0, 0, 2]  # behind it the terms, in which the budget is told to be reached
