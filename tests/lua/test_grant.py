"""Credits in: lua/operations/grant.lua."""

from __future__ import annotations

import pytest

from meter.engine.at_end import AtEnd
from meter.engine.operations import Asked, balance, configure, deduct, grant, void
from tests.invariants import AMOUNT_MAX
from tests.partition import DAY, HOUR, T0, Partition, dump


def test_a_grant_adds_to_what_is_available(partition: Partition) -> None:
    answer = partition.run(grant("u", "g", 100, source="plan:pro"))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["grant_id"], answer["amount"]) == ("u", "g", 100)
    assert answer.balances == (100, 0, 0)
    entry = partition.entry_of(answer["transaction_id"])
    assert (entry.kind, entry.amount, entry.available, entry.created_at_ms) == ("grant", 100, 100, T0)
    assert entry.detail == {
        "grant_id": "g",
        "priority": 10,
        "effective_at": T0,
        "expires_at": 9_999_999_999_999,
        "source": "plan:pro",
    }


def test_a_grant_id_is_used_once_per_user(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    before = dump(partition.client)

    assert partition.run(grant("u", "g", 7)).status == "exists"
    assert dump(partition.client) == before
    assert partition.run(grant("other", "g", 7)).status == "ok"


@pytest.mark.parametrize(("start", "end"), [(0, T0), (0, T0 - 1), (T0 + 5, T0 + 5), (T0 + 5, T0 + 4)])
def test_a_grant_that_would_never_be_live_is_refused(partition: Partition, start: int, end: int) -> None:
    answer = partition.run(grant("u", "g", 100, effective_at_ms=start, expires_at_ms=end))

    assert answer.status == "ended"
    assert partition.entries() == []


@pytest.mark.parametrize("amount", [1, 10**14, AMOUNT_MAX])
def test_amounts_stay_exact(partition: Partition, amount: int) -> None:
    assert partition.run(grant("u", "g", amount)).balances == (amount, 0, 0)
    if amount > 1:
        assert partition.run(deduct("u", amount - 1)).balances == (1, 0, 0)
        assert partition.entries()[-1].amount == amount - 1


def test_an_account_has_grants_for_eight_things_and_no_more(partition: Partition) -> None:
    for n in range(8):
        assert partition.run(grant("u", f"g{n}", 1, only=f"f:{n}")).status == "ok"
    before = dump(partition.client)

    assert partition.run(grant("u", "more", 1, only="f:8")).status == "too_many_restrictions"
    assert dump(partition.client) == before
    assert partition.run(grant("u", "same", 1, only="f:7")).status == "ok"
    assert partition.run(grant("u", "any", 1)).status == "ok"
    partition.run(deduct("u", 1, asked=Asked(tags="f:0")))
    assert partition.run(grant("u", "more", 1, only="f:8")).status == "ok", "nothing is left for one of them"


def test_an_account_counts_no_further_than_it_can_exactly(partition: Partition) -> None:
    partition.run(grant("u", "most", AMOUNT_MAX - 2))
    partition.run(grant("u", "later", 1, effective_at_ms=T0 + 1))

    assert partition.run(grant("u", "too-much", 2)).status == "overflow"
    assert partition.run(grant("u", "fits", 1)).status == "ok"


def test_an_account_has_a_limit_of_grants(partition: Partition) -> None:
    partition.grants_max = 2
    partition.run(grant("u", "g1", 1))
    partition.run(grant("u", "g2", 1))

    answer = partition.run(grant("u", "g3", 1))

    assert answer.status == "too_many"
    assert answer.balances == (2, 0, 0)


@pytest.mark.parametrize(("amount", "available", "debt", "left"), [(40, 10, 0, 10), (30, 0, 0, 0), (20, 0, 10, 0)])
def test_debt_is_paid_first(partition: Partition, amount: int, available: int, debt: int, left: int) -> None:
    partition.run(configure("u", overdraft_limit=30))
    partition.run(deduct("u", 30, "overdraft"))

    answer = partition.run(grant("u", "g", amount))

    assert answer.balances == (available, 0, debt)
    assert partition.remaining("u") == {"g": left}
    assert [draw.amount for draw in partition.entries()[-1].draws] == [amount - left]


def test_a_scheduled_grant_starts_at_its_very_millisecond(partition: Partition) -> None:
    answer = partition.run(grant("u", "g", 100, effective_at_ms=T0 + HOUR))
    assert answer.status == "ok"
    assert answer.balances == (0, 0, 0)

    partition.freeze(T0 + HOUR - 1)
    assert partition.run(deduct("u", 1)).status == "insufficient"
    assert partition.run(balance("u"))["scheduled"] == 100

    partition.freeze(T0 + HOUR)
    assert partition.run(deduct("u", 1)).balances == (99, 0, 0)
    assert partition.kinds() == ["grant", "grant_started", "deduct"]
    assert partition.entries()[1].created_at_ms == T0 + HOUR
    assert partition.run(balance("u"))["scheduled"] == 0


def test_a_scheduled_grant_pays_debt_when_it_starts(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=30))
    partition.run(deduct("u", 30, "overdraft"))
    partition.run(grant("u", "g", 100, effective_at_ms=T0 + 1))
    partition.freeze(T0 + 1)

    assert partition.run(balance("u")).balances == (70, 0, 0)


def test_a_start_in_the_past_means_now(partition: Partition) -> None:
    assert partition.run(grant("u", "g", 5, effective_at_ms=T0 - HOUR)).balances == (5, 0, 0)
    assert partition.run(grant("u", "h", 5, effective_at_ms=T0)).balances == (10, 0, 0)


def test_a_grant_that_began_and_ended_unseen_is_booked_as_both(partition: Partition) -> None:
    partition.run(grant("u", "g", 5, effective_at_ms=T0 + 1, expires_at_ms=T0 + 2))
    partition.freeze(T0 + HOUR)

    assert partition.run(balance("u"))["expired"] == 5
    assert [(e.kind, e.created_at_ms) for e in partition.entries()[1:]] == [
        ("grant_started", T0 + 1),
        ("grant_expired", T0 + 2),
    ]


def test_the_last_millisecond_before_the_end_is_long_enough(partition: Partition) -> None:
    assert partition.run(grant("u", "g", 5, expires_at_ms=T0 + 1)).status == "ok"


def test_an_id_is_free_again_once_its_grant_is_forgotten(partition: Partition) -> None:
    """In one call: the old grant is forgotten, and the new one waits behind the front grant."""
    partition.run(grant("u", "g", 5, priority=1))
    partition.run(grant("u", "front", 50, priority=2))
    partition.run(deduct("u", 5))
    partition.freeze(T0 + partition.window_ms)

    assert partition.run(grant("u", "g", 7, priority=3)).status == "ok"
    assert partition.remaining("u") == {"front": 50, "g": 7}


def test_a_started_grant_stays_started_when_the_clock_goes_back(partition: Partition) -> None:
    partition.run(grant("u", "g", 5, effective_at_ms=T0 + HOUR))
    partition.freeze(T0 + HOUR)
    partition.run(deduct("u", 5))
    partition.freeze(T0)

    assert partition.refund("u", partition.entries()[-1].transaction_id).balances == (5, 0, 0)
    assert partition.run(deduct("u", 5)).status == "ok"


def test_a_voided_grant_keeps_its_id(partition: Partition) -> None:
    partition.run(grant("u", "g", 5))
    partition.run(void("u", "g"))

    assert partition.run(grant("u", "g", 5)).status == "exists"


@pytest.mark.parametrize(
    ("days", "left", "kinds"),
    [
        (1, 100, ["grant"]),
        (3, 30, ["grant", "grant_rolled_over", "grant_expired"]),
        (6, 0, ["grant", "grant_rolled_over", "grant_expired", "grant_expired"]),
    ],
)
def test_a_grant_that_was_promised_is_given_late_and_ends_as_it_would_have(
    partition: Partition, days: int, left: int, kinds: list[str]
) -> None:
    """Redis was away meanwhile; its rest lives on from its end, not from now."""
    partition.freeze(T0 + days * DAY)
    at_end = AtEnd(30, 3 * DAY)

    answer = partition.run(
        grant("u", "g", 100, effective_at_ms=T0, expires_at_ms=T0 + 2 * DAY, at_end=at_end, late=True)
    )

    assert (answer.status, answer.balances) == ("ok", (left, 0, 0))
    assert [entry.kind for entry in partition.entries()] == kinds
    assert partition.run(grant("u", "g", 100, late=True)).status == "exists"
    partition.freeze(T0 + 5 * DAY)
    assert partition.run(balance("u")).balances == (0, 0, 0)


def test_a_late_grant_pays_debt(partition: Partition) -> None:
    partition.run(configure("u", overdraft_limit=50))
    partition.run(deduct("u", 50, "overdraft"))

    answer = partition.run(grant("u", "g", 80, effective_at_ms=T0 - 2, expires_at_ms=T0 - 1, late=True))

    assert answer.balances == (0, 0, 0)


def test_a_late_grant_that_was_to_begin_at_once_began_before_its_end(partition: Partition) -> None:
    """It was promised by a call that named an end and no beginning: it is no grant that ends before it begins."""
    answer = partition.run(grant("u", "g", 80, expires_at_ms=T0 - 1, late=True))

    assert (answer.status, answer.balances) == ("ok", (0, 0, 0))
    assert [entry.kind for entry in partition.entries()] == ["grant", "grant_expired"]
    assert partition.run(grant("u", "never promised", 80, expires_at_ms=T0 - 1)).status == "ended"
