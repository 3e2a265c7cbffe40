"""Ending a grant early: lua/operations/void.lua."""

from __future__ import annotations

from meter.engine.operations import balance, configure, deduct, grant, release, reserve, void
from tests.partition import HOUR, MINUTE, T0, Partition


def test_the_free_rest_is_void(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(deduct("u", 30))

    answer = partition.run(void("u", "g"))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["grant_id"], answer["voided"], answer.balances) == ("u", "g", 70, (0, 0, 0))
    assert partition.run(balance("u"))["voided"] == 70
    entry = partition.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount) == ("void", 70)
    assert entry.detail == {"grant_id": "g", "voided": 70, "alerts": [["credits_exhausted", 0]]}
    assert partition.run(deduct("u", 1)).status == "insufficient"


def test_the_next_grant_burns(partition: Partition) -> None:
    for n in range(12):
        partition.run(grant("u", f"g{n:02}", 10, priority=n))

    partition.batch(void("u", "g01"), void("u", "g00"), deduct("u", 11), void("u", "g03"))

    assert partition.remaining("u") == {f"g{n:02}": 10 for n in range(4, 12)} | {"g00": 0, "g01": 0, "g02": 0, "g03": 0}


def test_what_is_held_stays_held(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, HOUR, chosen=True))

    assert partition.run(void("u", "g")).balances == (0, 40, 0)
    assert partition.run(release("r")).balances == (0, 0, 0)
    assert partition.run(balance("u"))["expired"] == 40


def test_a_scheduled_grant_never_starts(partition: Partition) -> None:
    partition.run(grant("u", "g", 100, effective_at_ms=T0 + MINUTE, expires_at_ms=T0 + HOUR))

    answer = partition.run(void("u", "g"))

    assert (answer["voided"], answer.balances) == (100, (0, 0, 0))
    assert partition.entries()[-1].amount == 0
    partition.freeze(T0 + 2 * HOUR)
    read = partition.run(balance("u"))
    assert (read.balances, read["scheduled"], read["voided"], read["granted"]) == ((0, 0, 0), 0, 0, 0)


def test_an_exhausted_grant(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + HOUR))
    partition.run(deduct("u", 10))

    assert partition.run(void("u", "g"))["voided"] == 0


def test_of_a_voided_grant(partition: Partition) -> None:
    partition.run(grant("u", "g", 10))
    partition.run(void("u", "g"))

    answer = partition.run(void("u", "g"))

    assert answer.status == "over"
    assert (answer["user_id"], answer["state"], answer.balances) == ("u", "voided", (0, 0, 0))


def test_of_an_expired_grant(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + HOUR))
    partition.freeze(T0 + HOUR)

    answer = partition.run(void("u", "g"))

    assert (answer.status, answer["state"]) == ("over", "expired")


def test_of_an_unknown_grant(partition: Partition) -> None:
    partition.run(grant("other", "g", 10))

    assert partition.run(void("u", "g")).status == "not_found"


def test_a_voided_grant_does_not_expire_too(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + HOUR))
    partition.run(void("u", "g"))
    partition.freeze(T0 + HOUR)

    assert partition.run(balance("u"))["expired"] == 0
    assert partition.kinds() == ["grant", "void"]


def test_under_debt(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=10))
    partition.run(deduct("u", 10, "overdraft"))
    partition.run(grant("u", "g", 25))

    assert partition.run(void("u", "g"))["voided"] == 15
