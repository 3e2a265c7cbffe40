"""Settling an idle account: lua/operations/expire.lua and lua/state/settle.lua."""

from __future__ import annotations

from meter.engine.operations import balance, commit, deduct, extend, grant, release, reserve
from meter.engine.upkeep import expire
from tests.partition import DAY, HOUR, MINUTE, T0, Partition, dump


def test_an_idle_account_is_settled(partition: Partition) -> None:
    partition.run(grant("u", "soon", 30, expires_at_ms=T0 + 2 * MINUTE))
    partition.run(grant("u", "later", 5, effective_at_ms=T0 + 3 * MINUTE))
    partition.run(reserve("u", "r", 10, MINUTE, chosen=True))
    partition.freeze(T0 + HOUR)

    answer = partition.run(expire("u"))

    assert answer.status == "ok"
    assert (answer["user_id"], answer["transactions"], answer.balances) == ("u", 3, (5, 0, 0))
    assert [(entry.kind, entry.amount, entry.created_at_ms) for entry in partition.entries()[-3:]] == [
        ("reservation_expired", 10, T0 + MINUTE),
        ("grant_expired", 30, T0 + 2 * MINUTE),
        ("grant_started", 5, T0 + 3 * MINUTE),
    ]


def test_nothing_due(partition: Partition) -> None:
    partition.run(grant("u", "g", 30, expires_at_ms=T0 + HOUR))
    before = dump(partition.client)

    assert partition.run(expire("u"))["transactions"] == 0
    assert partition.run(expire("nobody"))["transactions"] == 0
    assert dump(partition.client) == before


def test_twice_is_once(partition: Partition) -> None:
    partition.run(grant("u", "g", 30, expires_at_ms=T0 + HOUR))
    partition.freeze(T0 + HOUR)

    assert [partition.run(expire("u"))["transactions"] for _ in range(2)] == [1, 0]


def test_a_hold_and_its_grant_that_end_together(partition: Partition) -> None:
    """The hold's end comes first, so what it returns expires with the rest."""
    partition.run(grant("u", "g", 30, expires_at_ms=T0 + MINUTE))
    partition.run(reserve("u", "r", 10, MINUTE, chosen=True))
    partition.freeze(T0 + MINUTE)

    partition.run(expire("u"))

    assert [(entry.kind, entry.amount) for entry in partition.entries()[-2:]] == [
        ("reservation_expired", 10),
        ("grant_expired", 30),
    ]


def test_a_hold_that_outlives_its_grant_forfeits(partition: Partition) -> None:
    partition.run(grant("u", "g", 30, expires_at_ms=T0 + MINUTE))
    partition.run(reserve("u", "r", 10, HOUR, chosen=True))
    partition.freeze(T0 + HOUR)

    partition.run(expire("u"))

    assert [(entry.kind, entry.amount, entry.detail.get("forfeited")) for entry in partition.entries()[-3:]] == [
        ("grant_expired", 20, None),
        ("reservation_expired", 10, 10),
        ("grant_expired", 10, None),
    ]


def test_more_due_things_than_one_page(partition: Partition) -> None:
    partition.run(grant("u", "g", 1000))
    partition.batch(*(reserve("u", f"r{n}", 1, MINUTE + n % 7, chosen=True) for n in range(230)))
    partition.batch(*(grant("u", f"g{n}", 1, expires_at_ms=T0 + MINUTE + n) for n in range(70)))
    partition.freeze(T0 + HOUR)

    answer = partition.run(expire("u"))

    assert (answer["transactions"], answer.balances) == (300, (1000, 0, 0))
    assert len(partition.members("due")) == 1  # the grants that ended are to be forgotten


def test_the_due_index_names_who_is_next(partition: Partition) -> None:
    partition.run(grant("later", "g", 1, expires_at_ms=T0 + HOUR))
    partition.run(grant("never", "g", 1))
    partition.run(grant("soon", "g", 1, effective_at_ms=T0 + MINUTE))

    due = partition.client.zrangebyscore(partition.keys.due, "-inf", T0 * 2, withscores=True)
    assert due == [(b"soon", T0 + MINUTE), (b"later", T0 + HOUR)]

    partition.freeze(T0 + MINUTE)
    partition.run(expire("soon"))
    assert partition.members("due") == [b"later"]


def test_a_spent_grant_is_forgotten_after_the_window(partition: Partition) -> None:
    before = dump(partition.client).keys() | {partition.keys.accounts, partition.keys.outbox, "meter:{p0}:recent:a"}
    partition.run(grant("u", "g", 10, expires_at_ms=T0 + 30 * DAY))
    partition.run(deduct("u", 10))
    partition.freeze(T0 + DAY - 1)
    assert list(partition.remaining("u")) == ["g"]

    partition.freeze(T0 + DAY)
    partition.run(expire("u"))

    assert partition.remaining("u") == {}
    assert partition.members("agenda") == partition.members("order") == []
    assert partition.members("due") == [b"u"]  # one look too many is the price of laziness
    partition.freeze(T0 + 30 * DAY)
    partition.run(expire("u"))
    assert dump(partition.client).keys() == before
    assert partition.kinds() == ["grant", "deduct"]


def test_a_held_grant_is_not_forgotten(partition: Partition) -> None:
    partition.run(grant("u", "g", 10))
    partition.run(reserve("u", "r", 10, 3 * DAY, chosen=True))
    partition.freeze(T0 + 2 * DAY)

    assert list(partition.remaining("u")) == ["g"]
    partition.freeze(T0 + 3 * DAY)
    assert partition.run(deduct("u", 10)).status == "ok"


def test_a_window_that_was_changed_forgets_nothing_alive(partition: Partition) -> None:
    """A grant is to be forgotten under the old window, comes back to life, and must stay."""
    partition.run(grant("u", "g", 10))
    partition.run(deduct("u", 10))
    charge = partition.entries()[-1].transaction_id
    partition.window_ms = DAY // 2

    partition.refund("u", charge, 4)
    partition.freeze(T0 + DAY)

    assert partition.remaining("u") == {"g": 4}
    partition.run(deduct("u", 4))
    partition.freeze(T0 + 3 * DAY)
    assert partition.remaining("u") == {}


def test_a_shorter_window_forgets_once(partition: Partition) -> None:
    partition.run(grant("u", "g", 10))
    partition.run(deduct("u", 10))
    charge = partition.entries()[-1].transaction_id
    partition.window_ms = 2 * DAY
    partition.refund("u", charge, 4)
    partition.run(deduct("u", 4))

    partition.freeze(T0 + DAY)
    partition.run(expire("u"))
    partition.freeze(T0 + 2 * DAY)

    assert partition.run(balance("u")).balances == (0, 0, 0)


def test_a_hold_that_is_charged_at_its_end(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 40, MINUTE, chosen=True, at_end="charge"))
    partition.freeze(T0 + HOUR)

    assert partition.run(expire("u")).balances == (60, 0, 0)

    entry = partition.entries()[-1]
    assert (entry.kind, entry.amount, entry.created_at_ms) == ("commit", 40, T0 + MINUTE)
    assert (entry.detail["late"], entry.detail["at_end"]) == (False, "charge")
    again = partition.run(commit("r", 40))
    assert (again.replayed, again["transaction_id"]) == (True, entry.transaction_id)
    assert partition.run(commit("r", 10)).fields == {"state": "committed", "user_id": "u", "charged": 40}
    assert partition.refund("u", entry.transaction_id, 15).balances == (75, 0, 0)


def test_a_hold_that_would_be_charged_can_be_settled_before(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    for name in ("r", "s"):
        partition.run(reserve("u", name, 40, MINUTE, chosen=True, at_end="charge"))
    partition.run(commit("r", 5))
    partition.run(release("s"))
    partition.freeze(T0 + HOUR)

    assert partition.run(balance("u")).balances == (95, 0, 0)


def test_a_charge_at_the_end_keeps_what_it_drew_from_an_ended_grant(partition: Partition) -> None:
    partition.run(grant("u", "g", 100, expires_at_ms=T0 + MINUTE))
    partition.run(reserve("u", "r", 40, MINUTE + 1, chosen=True, at_end="charge"))
    partition.run(extend("r", 2 * MINUTE, 5))
    partition.freeze(T0 + HOUR)

    answer = partition.run(balance("u"))

    assert (answer["spent"], answer["expired"], answer.balances) == (45, 55, (0, 0, 0))
