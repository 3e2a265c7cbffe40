"""Holding an amount: lua/operations/reserve.lua."""

from __future__ import annotations

import pytest

from meter.engine import upkeep
from meter.engine.operations import (
    Asked,
    Operation,
    balance,
    commit,
    configure,
    deduct,
    grant,
    release,
    reserve,
    reserve_for_request,
)
from tests.lua.levels import budget, rate
from tests.partition import HOUR, MINUTE, T0, Answer, Partition, dump


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


def asked(partition: Partition, amount: int = 30, *, at_end: str = "release", user: str = "u") -> Answer:
    """The request q asks."""
    extra = Asked("", '"metadata":{"request_id":"one"}')
    return partition.run(reserve_for_request(user, "q", amount, MINUTE, at_end=at_end, asked=extra))


def test_a_request_that_asks_again_has_its_hold_which_lives_on(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    first = asked(partition)
    partition.advance(10_000)

    again = asked(partition)

    assert (first.replayed, again.replayed) == (False, True)
    assert (again["amount"], again["expires_at_ms"]) == (30, T0 + 10_000 + MINUTE)
    assert again.balances == (70, 30, 0)
    assert [entry.kind for entry in partition.entries()] == ["grant", "reserve", "extend"]
    assert partition.entries()[-1].detail["metadata"] == {"request_id": "one"}
    partition.advance(MINUTE - 1)
    assert partition.run(balance("u")).balances == (70, 30, 0)
    partition.advance(1)
    assert partition.run(balance("u")).balances == (100, 0, 0)


def test_a_request_leaves_no_answer_behind_but_its_hold(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    asked(partition)

    assert not [name for name in dump(partition.client) if "recent" in str(name) and b"q" in str(name).encode()]
    assert "fingerprint" not in partition.entries()[-1].detail


def test_a_request_that_asks_for_something_else_is_another(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(grant("v", "g", 100))
    asked(partition)

    assert asked(partition, 31).status == "key_reused"
    assert asked(partition, user="v").status == "key_reused"


@pytest.mark.parametrize(
    ("end", "state"), [(commit("q", 5), "committed"), (release("q"), "released"), (None, "expired")]
)
def test_a_request_that_is_over_gets_no_second_hold(partition: Partition, end: Operation | None, state: str) -> None:
    partition.run(grant("u", "g", 100))
    asked(partition)
    if end is None:
        partition.advance(MINUTE)
    else:
        partition.run(end)

    again = asked(partition)

    assert (again.status, again["state"]) == ("finished", state)


def test_x10_holds_of_nothing_by_who_has_nothing_are_bounded_in_all(partition: Partition) -> None:
    """Anybody can name a user: such holds are refused while the partition has as many as one account may have."""
    partition.run(grant("rich", "g", 100))
    most = partition.reservations_max = 5
    assert partition.run(reserve("rich", "real", 1, MINUTE, chosen=True)).status == "ok"
    for n in range(most - 1):
        assert partition.run(reserve(f"nobody-{n}", f"r{n}", 0, MINUTE, chosen=True)).status == "ok"
    before = dump(partition.client)
    for n in range(3):
        assert partition.run(reserve(f"stranger-{n}", f"s{n}", 0, MINUTE, chosen=True)).status == "too_many"
    assert dump(partition.client) == before
    assert partition.run(reserve("rich", "more", 1, MINUTE, chosen=True)).status == "ok", "who has credits goes on"
    assert partition.run(reserve("rich", "anchor", 0, MINUTE, chosen=True)).status == "ok"
    partition.freeze(T0 + 2 * MINUTE)
    for n in range(most - 1):
        partition.run(upkeep.expire(f"nobody-{n}"))
    assert partition.run(reserve("stranger-0", "s0", 0, MINUTE, chosen=True)).status == "ok", (
        "they end, and are swept away"
    )


def test_rules_of_its_levels_refuse_it(partition: Partition) -> None:
    """The hold remembers that a level counts it, by the seq of its reserve."""
    partition.batch(grant("t/a", "g", 100), budget("t", 10), rate("t", 1, "concurrent"))

    assert partition.run(reserve("t/a", "r", 11, HOUR, chosen=False)).status == "budget_reached"
    assert partition.run(reserve("t/a", "r", 5, HOUR, chosen=False)).status == "ok"
    limited = partition.run(reserve("t/a", "s", 5, HOUR, chosen=False))
    assert (limited.status, limited["violations"]) == ("rate_limited", "concurrency,t,b,-,r,1,1,-,-,-,-,-")
    [text] = partition.fields("holds").values()
    assert text.decode().split(" ")[3] == f"{T0}@{partition.entries()[-1].seq}"
