"""Reading an account: lua/operations/balance.lua."""

from __future__ import annotations

from meter.engine.operations import balance, configure, deduct, grant, reserve, void
from tests.partition import HOUR, MINUTE, T0, Partition, dump


def test_a_user_nobody_heard_of_has_zeros_and_gets_no_account(partition: Partition) -> None:
    before = dump(partition.client)

    answer = partition.run(balance("u"))

    assert answer.status == "ok"
    assert answer.fields == {
        "user_id": "u",
        "overdraft_limit": 0,
        "suspended": "-",
        "low_credit_thresholds": "-",
        "granted": 0,
        "scheduled": 0,
        "spent": 0,
        "expired": 0,
        "voided": 0,
        "reservations": 0,
    }
    assert answer.balances == (0, 0, 0)
    assert dump(partition.client) == before


def test_every_counter(partition: Partition) -> None:
    partition.run(grant("u", "main", 100))
    partition.run(grant("u", "soon", 7, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "later", 5, effective_at_ms=T0 + HOUR))
    partition.run(grant("u", "void", 3, priority=99))
    partition.run(configure("u", overdraft_limit=9, suspended=False, thresholds=(50,)))
    partition.run(reserve("u", "r", 10, HOUR, chosen=True))
    partition.run(deduct("u", 20))
    partition.run(void("u", "void"))

    answer = partition.run(balance("u"))

    assert answer.balances == (77, 10, 0)
    assert {name: answer[name] for name in ("granted", "scheduled", "spent", "expired", "voided", "reservations")} == {
        "granted": 110,
        "scheduled": 5,
        "spent": 20,
        "expired": 0,
        "voided": 3,
        "reservations": 1,
    }
    assert (answer["overdraft_limit"], answer["low_credit_thresholds"]) == (9, "50")


def test_what_is_due_counts_as_done(partition: Partition) -> None:
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + MINUTE))
    partition.freeze(T0 + MINUTE)

    answer = partition.run(balance("u"))

    assert (answer.balances, answer["expired"]) == ((0, 0, 0), 10)
    assert partition.kinds() == ["grant", "grant_expired"]
