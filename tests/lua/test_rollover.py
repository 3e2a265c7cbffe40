"""What lives on of a grant that ends: lua/state/ending.lua. Whoever meets the end first, it is the same."""

from __future__ import annotations

import pytest

from meter.engine.at_end import AtEnd
from meter.engine.operations import (
    Operation,
    balance,
    deduct,
    expiring,
    explain,
    grant,
    grants,
    release,
    reserve,
    void,
)
from meter.engine.upkeep import expire
from tests.partition import DAY, HOUR, T0, Partition


def rolling(most: int = 30, span: int = 2 * DAY, *, name: str = "g", amount: int = 100) -> Operation:
    """A grant of a day, of which `most` lives on for `span`."""
    at_end = AtEnd(most, span, "a")
    return grant("u", name, amount, priority=3, expires_at_ms=T0 + DAY, source="plan:a", at_end=at_end)


def booked(partition: Partition) -> list[tuple[str, int, int, int]]:
    """(kind, amount, available after, time) of what ended."""
    ends = ("grant_expired", "grant_rolled_over", "reservation_expired")
    return [(e.kind, e.amount, e.available, e.created_at_ms - T0) for e in partition.entries() if e.kind in ends]


@pytest.mark.parametrize(
    "first", [expire("u"), deduct("u", 30), balance("u"), explain("u", 1), grants("u", "live", "", 9)]
)
def test_the_rest_up_to_the_cap_lives_on_and_what_is_above_expires(partition: Partition, first: Operation) -> None:
    partition.run(rolling())
    partition.run(deduct("u", 20))
    partition.freeze(T0 + DAY + HOUR)

    assert partition.run(first).status == "ok"

    assert booked(partition) == [("grant_rolled_over", 30, 80, DAY), ("grant_expired", 50, 30, DAY)]
    entry = next(entry for entry in partition.entries() if entry.kind == "grant_rolled_over")
    terms = {"priority": 3, "effective_at": T0 + DAY, "expires_at": T0 + 3 * DAY, "source": "plan:a"}
    assert entry.detail == {"grant_id": "g.rollover", "rolled_from": "g", **terms}


@pytest.mark.parametrize(("spent", "expected"), [(70, [30, 0]), (71, [29, 0]), (100, [0, 0]), (0, [30, 70])])
def test_what_there_is_no_more_of_is_not_booked(partition: Partition, spent: int, expected: list[int]) -> None:
    partition.run(rolling())
    partition.run(deduct("u", spent))
    partition.freeze(T0 + DAY)
    partition.run(expire("u"))

    assert [amount for _, amount, _, _ in booked(partition)] == [amount for amount in expected if amount]
    assert partition.run(balance("u")).balances == (expected[0], 0, 0)


def test_it_rolls_over_once(partition: Partition) -> None:
    partition.run(rolling())
    partition.freeze(T0 + 3 * DAY)
    partition.run(expire("u"))

    assert booked(partition) == [
        ("grant_rolled_over", 30, 100, DAY),
        ("grant_expired", 70, 30, DAY),
        ("grant_expired", 30, 0, 3 * DAY),
    ]
    assert partition.run(balance("u"))["expired"] == 100


def test_all_that_falls_due_meanwhile_is_settled_in_its_turn(partition: Partition) -> None:
    """Two rests whose own ends have passed as well, and a hold and a start between them."""
    partition.run(rolling(span=2 * HOUR, name="b"))
    partition.run(rolling(span=HOUR, name="a"))
    partition.run(grant("u", "later", 7, effective_at_ms=T0 + DAY + HOUR + 1))
    partition.run(reserve("u", "r", 5, DAY + HOUR - 1, chosen=True))
    partition.freeze(T0 + 9 * DAY)
    partition.run(expire("u"))

    assert [(e.kind, e.amount, e.created_at_ms - T0 - DAY) for e in partition.entries()[4:]] == [
        ("grant_rolled_over", 30, 0),
        ("grant_expired", 65, 0),
        ("grant_rolled_over", 30, 0),
        ("grant_expired", 70, 0),
        ("reservation_expired", 5, HOUR - 1),
        ("grant_expired", 5, HOUR - 1),
        ("grant_expired", 30, HOUR),
        ("grant_started", 7, HOUR + 1),
        ("grant_expired", 30, 2 * HOUR),
    ]


def test_what_is_held_at_the_end_does_not_roll_over(partition: Partition) -> None:
    partition.run(rolling())
    partition.run(reserve("u", "r", 80, 2 * DAY, chosen=True))
    partition.freeze(T0 + DAY)
    partition.run(expire("u"))
    assert partition.run(balance("u")).balances == (20, 80, 0)
    assert partition.run(release("r"))["forfeited"] == 80

    assert partition.run(balance("u")).balances == (20, 0, 0)


def test_it_burns_in_its_place_and_is_listed(partition: Partition) -> None:
    partition.run(rolling())
    partition.run(grant("u", "dear", 5, priority=2))
    partition.run(grant("u", "soon", 5, priority=3, expires_at_ms=T0 + 2 * DAY))
    partition.run(grant("u", "never", 5, priority=3))
    partition.freeze(T0 + DAY)

    assert list(partition.remaining("u")) == ["dear", "soon", "g.rollover", "never", "g"]
    ending = partition.run(expiring("u", T0 + 3 * DAY + 1, "", 9)).items
    assert [item[0] for item in ending] == ["soon", "g.rollover"]
    partition.run(deduct("u", 20))
    assert partition.remaining("u")["g.rollover"] == 20
    assert partition.run(void("u", "g.rollover"))["voided"] == 20


def test_an_id_that_is_taken_is_left_alone(partition: Partition) -> None:
    partition.run(rolling())
    partition.run(grant("u", "g.rollover", 1))
    partition.freeze(T0 + DAY)

    assert partition.remaining("u") == {"g.rollover.rollover": 30, "g.rollover": 1, "g": 0}


def test_a_voided_grant_leaves_nothing(partition: Partition) -> None:
    partition.run(rolling())
    partition.run(void("u", "g"))
    partition.freeze(T0 + DAY)

    assert partition.run(balance("u")).balances == (0, 0, 0)
    assert booked(partition) == []


def test_a_rest_may_live_for_ever(partition: Partition) -> None:
    partition.run(rolling(span=99_999_999_999_999))
    partition.freeze(T0 + DAY)
    assert partition.run(balance("u")).balances == (30, 0, 0)
    assert partition.run(grants("u", "live", "", 9)).items[0][6] == "9999999999999"


def test_grants_packed_before_there_was_a_rollover_are_read(partition: Partition) -> None:
    """Front grant and others end with their source, as they did."""
    for n in range(3):
        partition.run(grant("u", f"g{n}", 10, priority=n, expires_at_ms=T0 + DAY))
    texts = partition.fields("grants").values()
    assert all(text.endswith(b" - api") for text in texts)
    assert partition.client.hget(partition.keys.accounts, "u").endswith(b" 0 api")
    partition.run(deduct("u", 15))
    partition.freeze(T0 + DAY)

    assert partition.run(balance("u")).balances == (0, 0, 0)
