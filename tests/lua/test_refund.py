"""Giving back part of a charge: lua/operations/refund.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import balance, commit, configure, deduct, grant, refund, reserve, void
from meter.engine.upkeep import rotate
from tests.partition import DAY, HOUR, MINUTE, T0, Partition


@pytest.fixture
def charged(partition: Partition) -> Partition:
    """u had 10 credits in each of a, b and c, and spent 25 of them."""
    for name, priority in (("c", 3), ("b", 2), ("a", 1)):
        partition.run(grant("u", name, 10, priority=priority))
    partition.run(deduct("u", 25))
    return partition


def _charge(partition: Partition) -> str:
    return partition.entries()[-1].transaction_id


def test_all_of_a_charge(charged: Partition) -> None:
    charge = _charge(charged)

    answer = charged.refund("u", charge)

    assert answer.status == "ok"
    assert (answer["user_id"], answer["amount"], answer["forfeited"], answer["left"]) == ("u", 25, 0, 0)
    assert answer.balances == (30, 0, 0)
    assert charged.run(balance("u"))["spent"] == 0
    entry = charged.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, entry.detail) == ("refund", 25, {"refund_of": charge, "forfeited": 0, "left": 0})


@pytest.mark.parametrize(
    ("amount", "remaining"),
    [
        (1, {"c": 6, "a": 0, "b": 0}),
        (5, {"c": 10, "a": 0, "b": 0}),
        (6, {"b": 1, "c": 10, "a": 0}),
        (16, {"a": 1, "b": 10, "c": 10}),
    ],
)
def test_the_newest_draw_comes_back_first(charged: Partition, amount: int, remaining: dict[str, int]) -> None:
    charged.refund("u", _charge(charged), amount)

    assert charged.remaining("u") == remaining


def test_a_repeated_refund_goes_on_where_the_last_one_ended(charged: Partition) -> None:
    charge = _charge(charged)

    answers = [charged.refund("u", charge, amount) for amount in (3, 3, 10)]

    assert [answer["left"] for answer in answers] == [22, 19, 9]
    assert charged.remaining("u") == {"a": 1, "b": 10, "c": 10}
    assert charged.refund("u", charge)["amount"] == 9


def test_never_more_than_was_charged(charged: Partition) -> None:
    charge = _charge(charged)
    assert charged.refund("u", charge, 26).status == "exceeds"
    charged.refund("u", charge, 20)

    answer = charged.refund("u", charge, 6)

    assert answer.status == "exceeds"
    assert (answer["user_id"], answer["left"], answer.balances) == ("u", 5, (25, 0, 0))
    assert charged.refund("u", charge)["amount"] == 5
    assert charged.refund("u", charge).fields == {"user_id": "u", "left": 0}


def test_what_the_ledger_knows_counts_when_redis_forgot(charged: Partition) -> None:
    charge = _charge(charged)
    charged.refund("u", charge, 20)
    for day in (1, 2):
        charged.freeze(T0 + day * DAY)
        charged.run(rotate())

    assert charged.refund("u", charge, 6, refunded=20).status == "exceeds"
    assert charged.refund("u", charge, 5, refunded=20)["left"] == 0


def test_an_account_never_gets_back_more_than_it_spent(charged: Partition) -> None:
    """Neither Redis nor the caller knows of the first refund any more."""
    charge = _charge(charged)
    charged.refund("u", charge, 20)
    for day in (1, 2):
        charged.freeze(T0 + day * DAY)
        charged.run(rotate())

    answer = charged.refund("u", charge, 6, refunded=0)

    assert (answer.status, answer["left"]) == ("exceeds", 5)
    assert charged.refund("u", charge, refunded=0)["amount"] == 5
    assert charged.run(balance("u"))["spent"] == 0


def test_what_redis_knows_counts_when_the_ledger_lags(charged: Partition) -> None:
    charge = _charge(charged)
    charged.refund("u", charge, 20)

    assert charged.refund("u", charge, 6, refunded=0).status == "exceeds"


def test_a_commit_can_be_refunded(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))
    partition.run(commit("r", 50))

    assert partition.refund("u", _charge(partition), 45).balances == (95, 0, 0)


def test_a_committed_part_only(partition: Partition) -> None:
    """The draws of a commit name what was kept, not what was held."""
    partition.run(grant("u", "a", 10, priority=1))
    partition.run(grant("u", "b", 10, priority=2))
    partition.run(reserve("u", "r", 20, HOUR, chosen=True))
    partition.run(commit("r", 4))

    partition.refund("u", _charge(partition))

    assert partition.remaining("u") == {"a": 10, "b": 10}


def test_what_returns_to_ended_grants_is_forfeited(partition: Partition) -> None:
    partition.run(grant("u", "soon", 10, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "void", 10, priority=11))
    partition.run(grant("u", "keeps", 10, priority=12))
    partition.run(deduct("u", 25))
    charge = _charge(partition)
    partition.run(void("u", "void"))
    partition.freeze(T0 + MINUTE)

    answer = partition.refund("u", charge, 18)

    assert (answer["amount"], answer["forfeited"], answer["left"]) == (18, 13, 7)
    assert answer.balances == (10, 0, 0)
    assert [(entry.kind, entry.amount) for entry in partition.entries()[-3:]] == [
        ("refund", 18),
        ("grant_expired", 10),
        ("grant_expired", 3),
    ]


def test_debt_is_refunded_first(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=20))
    partition.run(grant("u", "g", 10))
    partition.run(deduct("u", 25, "overdraft"))
    charge = _charge(partition)

    assert partition.refund("u", charge, 7).balances == (0, 0, 8)
    assert partition.refund("u", charge, 10).balances == (2, 0, 0)
    assert partition.remaining("u") == {"g": 2}


def test_a_refund_to_a_grant_pays_other_debt_first(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=20))
    partition.run(grant("u", "g", 10))
    partition.run(deduct("u", 10))
    charge = _charge(partition)
    partition.run(deduct("u", 4, "overdraft"))

    assert partition.refund("u", charge).balances == (6, 0, 0)
    assert partition.remaining("u") == {"g": 6}


def test_debt_that_was_paid_since_comes_back_as_a_grant(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=20))
    partition.run(deduct("u", 15, "overdraft"))
    charge = _charge(partition)
    partition.run(grant("u", "g", 15))

    answer = partition.refund("u", charge, 6)

    assert answer.balances == (6, 0, 0)
    entry = partition.entry_of(answer["transaction_id"])
    assert [(draw.grant_id, draw.amount) for draw in entry.draws] == [(f"refund-0-{entry.seq}", 6)]
    assert partition.run(deduct("u", 6)).status == "ok"


def test_a_grant_that_redis_forgot_comes_back_as_a_new_one(charged: Partition) -> None:
    charge = _charge(charged)
    charged.freeze(T0 + DAY)

    answer = charged.refund("u", charge, 12)

    new = f"refund-0-{charged.entry_of(answer['transaction_id']).seq}"
    assert charged.remaining("u") == {"c": 10, new: 7}
    assert answer.balances == (17, 0, 0)


def test_an_exhausted_grant_lives_again(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + 3 * DAY))
    partition.run(deduct("u", 10))
    charge = _charge(partition)

    partition.refund("u", charge, 4)

    partition.freeze(T0 + 2 * DAY)
    assert partition.remaining("u") == {"g": 4}
    partition.freeze(T0 + 3 * DAY)
    assert partition.run(balance("u"))["expired"] == 4


def test_a_suspended_account_can_be_refunded(charged: Partition) -> None:
    charge = _charge(charged)
    charged.run(configure("u", suspended=True))

    assert charged.refund("u", charge).status == "ok"


def test_an_uncovered_charge_gives_back_what_it_took(partition: Partition) -> None:
    partition.run(grant("u", "g", 10))
    partition.run(deduct("u", 25, "partial"))

    assert partition.refund("u", _charge(partition))["amount"] == 10


def test_two_refunds_in_one_batch(charged: Partition) -> None:
    charge = _charge(charged)
    draws = (("a", 10), ("b", 10), ("c", 5))
    one = refund("u", charge, 15, charged=25, refunded=0, draws=draws)

    first, second = charged.batch(one, one)

    assert (first["left"], second.status, second["left"]) == (10, "exceeds", 10)


@pytest.mark.parametrize("start", [0, T0 + 2 * DAY])
def test_another_grant_that_took_the_id_of_a_forgotten_one_is_left_alone(charged: Partition, start: int) -> None:
    charge = _charge(charged)
    charged.freeze(T0 + DAY)
    charged.run(grant("u", "a", 5, effective_at_ms=start))

    answer = charged.refund("u", charge)

    new = charged.entry_of(answer["transaction_id"]).draws[-1]
    assert (new.grant_id, new.amount) == (f"refund-0-{new.grant_id.split('-')[-1]}", 20)
    assert charged.remaining("u")["a"] == 5
    charged.freeze(T0 + 3 * DAY)
    assert charged.run(deduct("u", 35)).balances == (0, 0, 0)
