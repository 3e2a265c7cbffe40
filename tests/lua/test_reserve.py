"""Holding an amount: lua/operations/reserve.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, balance, commit, configure, deduct, grant, release, reserve
from tests.partition import HOUR, MINUTE, T0, Partition, dump


def test_a_hold_leaves_what_is_available(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))

    answer = partition.run(reserve("u", "r", 30, MINUTE, chosen=True))

    assert answer.status == "ok"
    assert answer.fields == {
        "user_id": "u",
        "reservation_id": "r",
        "amount": 30,
        "expires_at_ms": T0 + MINUTE,
        "expires_in_ms": MINUTE,
    }
    assert answer.balances == (70, 30, 0)
    entry = partition.entries()[-1]
    assert (entry.kind, entry.amount, entry.available, entry.reserved) == ("reserve", 30, 70, 30)
    assert entry.detail["reservation_id"] == "r"
    assert entry.detail["expires_at"] == T0 + MINUTE


def test_a_hold_draws_in_burn_order(partition: Partition) -> None:
    partition.run(grant("u", "second", 50, priority=2))
    partition.run(grant("u", "first", 20, priority=1))

    partition.run(reserve("u", "r", 30, MINUTE, chosen=True))

    draws = [(d.grant_id, d.amount, d.remaining, d.reserved) for d in partition.entries()[-1].draws]
    assert draws == [("first", 20, 0, 20), ("second", 10, 40, 10)]


def test_more_than_is_available_is_refused(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    before = dump(partition.client)

    answer = partition.run(reserve("u", "r", 101, MINUTE, chosen=True))

    assert answer.status == "insufficient"
    assert (answer["required"], answer.balances) == (101, (100, 0, 0))
    assert dump(partition.client) == before


def test_a_refusal_does_not_use_up_the_id(partition: Partition) -> None:
    assert partition.run(reserve("u", "r", 5, MINUTE, chosen=True)).status == "insufficient"
    partition.run(grant("u", "g", 100))

    assert partition.run(reserve("u", "r", 5, MINUTE, chosen=True)).status == "ok"


def test_a_suspended_account_reserves_nothing(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(configure("u", suspended=True))

    assert partition.run(reserve("u", "r", 0, MINUTE, chosen=True)).status == "suspended"


def test_an_account_has_a_limit_of_open_holds(partition: Partition) -> None:
    partition.reservations_max = 2
    partition.run(grant("u", "g", 100))
    for name in ("r1", "r2"):
        assert partition.run(reserve("u", name, 1, MINUTE, chosen=True)).status == "ok"

    assert partition.run(reserve("u", "r3", 1, MINUTE, chosen=True)).status == "too_many"
    partition.run(release("r1"))
    assert partition.run(reserve("u", "r3", 1, MINUTE, chosen=True)).status == "ok"


def test_a_full_outbox_takes_no_new_holds(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 1, MINUTE, chosen=True))
    partition.outbox_max = 2

    assert partition.run(reserve("u", "s", 1, MINUTE, chosen=True)).status == "outbox_full"
    assert partition.run(reserve("u", "r", 1, MINUTE, chosen=True)).replayed
    assert partition.run(commit("r")).status == "ok"


def test_the_same_id_and_body_answer_as_the_first_time(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    first = partition.run(reserve("u", "r", 30, MINUTE, chosen=True))
    partition.run(deduct("u", 5))

    again = partition.run(reserve("u", "r", 30, MINUTE, chosen=True))

    assert again.replayed
    assert again.line[1:] == first.line[1:]
    assert partition.run(balance("u")).balances == (65, 30, 0)


def test_the_same_id_answers_as_the_first_time_after_its_end_too(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    first = partition.run(reserve("u", "r", 30, MINUTE, chosen=True))
    partition.run(commit("r"))

    assert partition.run(reserve("u", "r", 30, MINUTE, chosen=True)).line[1:] == first.line[1:]


@pytest.mark.parametrize(
    ("user", "amount", "ttl", "extra"),
    [("other", 30, MINUTE, ""), ("u", 31, MINUTE, ""), ("u", 30, HOUR, ""), ("u", 30, MINUTE, '"description":"x"')],
)
def test_the_same_id_with_another_body_is_refused(
    partition: Partition, user: str, amount: int, ttl: int, extra: str
) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 30, MINUTE, chosen=True))

    answer = partition.run(reserve(user, "r", amount, ttl, chosen=True, asked=Asked(extra=extra)))

    assert answer.status == "key_reused"
    assert answer.balances is None


def test_an_id_that_the_caller_did_not_choose_is_no_key(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "made-by-us", 30, MINUTE, chosen=False))

    assert partition.run(reserve("u", "made-by-us", 30, MINUTE, chosen=True)).status == "key_reused"


def test_a_key_covers_ids_of_our_own_making(partition: Partition) -> None:
    """A retry makes another id; the key says that it is the same call."""
    partition.run(grant("u", "g", 100))
    first = partition.run(reserve("u", "r1", 30, MINUTE, chosen=False, asked=Asked("key")))

    again = partition.run(reserve("u", "r2", 30, MINUTE, chosen=False, asked=Asked("key")))

    assert (again.replayed, again["reservation_id"]) == (True, "r1")
    assert again.line[1:] == first.line[1:]


def test_zero_anchors_a_later_commit(partition: Partition) -> None:
    answer = partition.run(reserve("u", "r", 0, MINUTE, chosen=True))
    assert answer.status == "ok"
    partition.run(grant("u", "g", 100))

    assert partition.run(commit("r", 40)).balances == (60, 0, 0)


def test_a_hold_that_ended_returns_on_the_next_touch(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 100, MINUTE, chosen=True))

    partition.freeze(T0 + MINUTE - 1)
    assert partition.run(reserve("u", "r2", 1, MINUTE, chosen=True)).status == "insufficient"
    partition.freeze(T0 + MINUTE)
    assert partition.run(reserve("u", "r3", 100, MINUTE, chosen=True)).balances == (0, 100, 0)
    assert partition.kinds()[-2:] == ["reservation_expired", "reserve"]


def test_many_holds_on_many_grants(partition: Partition) -> None:
    for n in range(12):
        partition.run(grant("u", f"g{n:02}", 5))
    for n in range(20):
        partition.run(reserve("u", f"r{n}", 3, MINUTE + n, chosen=True))
    for n in range(0, 20, 2):
        partition.run(release(f"r{n}"))

    assert partition.run(balance("u")).balances == (30, 30, 0)
    assert partition.run(deduct("u", 30)).balances == (0, 30, 0)
