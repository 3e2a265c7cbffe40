"""What an account may do: lua/operations/configure.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import balance, configure, deduct, grant
from meter.engine.rules import change_words, read_terms
from tests.lua.levels import budget, none, rate
from tests.partition import Partition


def test_a_user_nobody_heard_of_gets_an_account(partition: Partition) -> None:
    answer = partition.run(configure("u"))

    assert answer.status == "ok"
    assert answer.fields == {"user_id": "u", "overdraft_limit": 0, "suspended": "-", "low_credit_thresholds": "-"}
    assert answer.balances == (0, 0, 0)
    assert partition.client.hexists(partition.keys.accounts, "u")


def test_x10_an_account_of_nothing_too_many_is_refused(partition: Partition) -> None:
    """tests/lua/test_strangers.py has the rest of the rule."""
    partition.reservations_max = 1
    partition.run(configure("u"))

    answer = partition.run(configure("another"))

    assert (answer.status, answer.balances) == ("too_many", (0, 0, 0))


def test_every_setting_and_the_ledger_row(partition: Partition) -> None:
    answer = partition.run(
        configure("u", overdraft_limit=50, suspended=True, thresholds=(30, 10), metadata='{"plan":"pro x"}')
    )

    assert answer.fields == {"user_id": "u", "overdraft_limit": 50, "suspended": "s", "low_credit_thresholds": "30,10"}
    assert partition.client.hget(partition.keys.profiles, "u") == b'{"plan":"pro x"}'
    entry = partition.entries()[-1]
    assert (entry.kind, entry.amount) == ("account", 0)
    assert entry.detail == {
        "overdraft_limit": 50,
        "suspended": True,
        "low_credit_thresholds": "30,10",
        "profile": {"plan": "pro x"},
        "counters": [["u", 0, 0, 0, 0, "0 s"]],
    }


def test_what_is_left_out_stays(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=50, suspended=True, thresholds=(30, 10), metadata='{"a":1}'))

    partition.run(configure("u", overdraft_limit=7))
    partition.run(configure("u", suspended=False))
    answer = partition.run(configure("u", metadata="{}"))

    assert answer.fields == {"user_id": "u", "overdraft_limit": 7, "suspended": "-", "low_credit_thresholds": "30,10"}
    assert partition.client.hget(partition.keys.profiles, "u") == b"{}"


def test_thresholds_can_be_taken_away(partition: Partition) -> None:
    partition.run(configure("u", thresholds=(30,)))

    assert partition.run(configure("u", thresholds=()))["low_credit_thresholds"] == "-"


def test_a_limit_below_the_debt_allows_no_more_of_it(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=50))
    partition.run(deduct("u", 40, "overdraft"))

    assert partition.run(configure("u", overdraft_limit=10)).balances == (0, 0, 40)
    assert partition.run(deduct("u", 1, "overdraft")).status == "insufficient"
    assert partition.run(deduct("u", 0, "overdraft")).status == "ok"
    partition.run(grant("u", "g", 45))
    assert partition.run(deduct("u", 15, "overdraft")).balances == (0, 0, 10)


@pytest.mark.parametrize("amount", [10**14, 2**53 - 1])
def test_large_limits_stay_exact(partition: Partition, amount: int) -> None:
    partition.run(configure("u", overdraft_limit=amount, thresholds=(amount,)))

    answer = partition.run(balance("u"))

    assert (answer["overdraft_limit"], answer["low_credit_thresholds"]) == (amount, str(amount))
    assert partition.run(deduct("u", amount, "overdraft")).balances == (0, 0, amount)


def _terms(partition: Partition, user: str) -> object:
    text = partition.client.hget(partition.keys.rules, user)
    return None if text is None else read_terms(text.decode())


def test_rules_are_merged_by_id_and_by_member(partition: Partition) -> None:
    partition.batch(budget("u", 5), rate("u", 7))
    since = partition.entries()[0].seq
    partition.run(configure("u", budgets="b,9,~,~,~,~,~,~ c,1,total,~,~,~,~,~"))
    terms = read_terms(partition.client.hget(partition.keys.rules, "u").decode())
    assert [(one.budget_id, one.limit, one.window) for one in terms.budgets] == [("b", 9, "day"), ("c", 1, "total")]
    assert (terms.since, [one.limit for one in terms.limits]) == (since, [7])
    partition.batch(none("u"), configure("u", budgets="c,-", rate_limits="b,-"))
    assert (_terms(partition, "u"), partition.fields("counters")) == (None, {})
    assert partition.client.hget(partition.keys.accounts, "u").split(b" ")[6] == b"-"


def test_changes_that_cannot_be_made_change_nothing(partition: Partition) -> None:
    partition.run(budget("u", 5))
    before = partition.fields("rules")
    assert partition.run(configure("u", budgets="c,5,~,~,~,~,~,~"))["rule"] == "budgets/c"
    assert partition.run(configure("u", rate_limits="c,~,5,~,~,~,~,~")).status == "incomplete_rule"
    assert partition.run(configure("u", budgets="b,! c,!")).status == "no_rule"
    many = change_words({f"n{n}": ("1", "day", *"~~~~~") for n in range(8)})
    assert partition.run(configure("u", budgets=many)).status == "too_many_rules"
    assert partition.fields("rules") == before
