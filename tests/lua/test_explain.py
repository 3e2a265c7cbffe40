"""What a deduct would do: lua/operations/explain.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import configure, deduct, explain, grant, reserve
from tests.partition import HOUR, MINUTE, T0, Partition, dump


@pytest.fixture
def stocked(partition: Partition) -> Partition:
    """Three grants of u burn, two are scheduled."""
    partition.run(grant("u", "c", 30, priority=3))
    partition.run(grant("u", "a", 10, priority=1))
    partition.run(grant("u", "b", 20, priority=2))
    partition.run(grant("u", "far", 5, priority=0, effective_at_ms=T0 + HOUR))
    partition.run(grant("u", "near", 7, priority=9, effective_at_ms=T0 + MINUTE))
    return partition


@pytest.mark.parametrize(
    ("amount", "would", "short", "burns"),
    [
        (0, "ok", 0, ()),
        (10, "ok", 0, (("a", "10"),)),
        (11, "ok", 0, (("a", "10"), ("b", "1"))),
        (60, "ok", 0, (("a", "10"), ("b", "20"), ("c", "30"))),
        (65, "insufficient", 5, (("a", "10"), ("b", "20"), ("c", "30"))),
    ],
)
def test_it_tells_what_the_deduct_then_does(
    stocked: Partition, amount: int, would: str, short: int, burns: tuple[tuple[str, str], ...]
) -> None:
    before = dump(stocked.client)

    answer = stocked.run(explain("u", amount))

    assert answer.status == "ok"
    assert (answer["would"], answer["short"], answer.items) == (would, short, burns)
    assert (answer["next_credits_at_ms"], answer["next_credits_amount"], answer.balances) == (
        T0 + MINUTE,
        7,
        (60, 0, 0),
    )
    assert dump(stocked.client) == before
    done = stocked.run(deduct("u", amount))
    assert done.status == would
    if done.status == "ok" and amount:
        draws = stocked.entry_of(done["transaction_id"]).draws
        assert tuple((draw.grant_id, str(draw.amount)) for draw in draws) == burns


def test_of_a_user_nobody_heard_of(partition: Partition) -> None:
    answer = partition.run(explain("u", 5))

    assert answer.fields == {
        "user_id": "u",
        "would": "insufficient",
        "short": 5,
        "next_credits_at_ms": 0,
        "next_credits_amount": 0,
        "overdraft_limit": 0,
        "violations": "credits,u,-,-,-,0,-,-,5,-,-,-",
    }
    assert partition.fields("accounts") == {}


def test_of_a_suspended_account(stocked: Partition) -> None:
    stocked.run(configure("u", suspended=True, overdraft_limit=8))

    answer = stocked.run(explain("u", 1))

    assert (answer["would"], answer["overdraft_limit"]) == ("suspended", 8)


def test_what_is_held_does_not_burn(stocked: Partition) -> None:
    stocked.run(reserve("u", "r", 25, HOUR, chosen=True))

    assert stocked.run(explain("u", 10)).items == (("b", "5"), ("c", "5"))


def test_what_is_due_counts_as_done(stocked: Partition) -> None:
    stocked.freeze(T0 + MINUTE)

    answer = stocked.run(explain("u", 67))

    assert (answer["would"], answer["next_credits_at_ms"], answer["next_credits_amount"]) == ("ok", T0 + HOUR, 5)


def test_the_next_credits_among_many_scheduled_grants(partition: Partition) -> None:
    """The one that starts first sorts last in burn order."""
    for n in range(120):
        partition.run(grant("u", f"g{n:03}", 1, effective_at_ms=T0 + HOUR))
    partition.run(grant("u", "first", 9, priority=50, effective_at_ms=T0 + MINUTE))

    answer = partition.run(explain("u", 1))

    assert (answer["next_credits_at_ms"], answer["next_credits_amount"]) == (T0 + MINUTE, 9)


def test_in_the_middle_of_a_batch(stocked: Partition) -> None:
    answers = stocked.batch(deduct("u", 15), explain("u", 20), deduct("u", 20))

    assert answers[1].items == (("b", "15"), ("c", "5"))
    assert stocked.remaining("u")["c"] == 25
