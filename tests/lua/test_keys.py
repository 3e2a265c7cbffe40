"""Idempotency keys: the same key and body get the first answer, another body is refused, a refusal uses no key up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meter.engine import operations
from meter.engine.operations import Asked, Operation, deduct, grant, reserve
from tests.partition import DAY, HOUR, T0, Partition

OPERATIONS: dict[str, Callable[[Asked, int], Operation]] = {
    "grant": lambda asked, n: grant("u", f"new{n}", 5, asked=asked),
    "deduct": lambda asked, n: deduct("u", 5 + n, asked=asked),
    "deduct partial": lambda asked, n: deduct("u", 5 + n, "partial", asked),
    "reserve": lambda asked, n: reserve("u", f"s{n}", 5, HOUR, chosen=True, asked=asked),
    "commit": lambda asked, n: operations.commit("r", 5 + n, asked=asked),
    "release": lambda asked, n: operations.release("r" if n == 0 else "q", asked),
    "extend": lambda asked, n: operations.extend("r", HOUR, n, asked),
    "refund": lambda asked, n: operations.refund(
        "u", "x", 5 + n, charged=30, refunded=0, draws=(("g", 30),), asked=asked
    ),
    "void": lambda asked, n: operations.void("u", "g" if n == 0 else "h", asked),
    "configure": lambda asked, n: operations.configure("u", overdraft_limit=n, asked=asked),
}


@pytest.fixture
def stocked(partition: Partition) -> Partition:
    """u has spent 30 of 200 credits and holds 10 twice."""
    partition.batch(
        grant("u", "g", 100),
        grant("u", "h", 100, priority=11),
        deduct("u", 30),
        reserve("u", "r", 10, HOUR, chosen=True),
        reserve("u", "q", 10, HOUR, chosen=True),
    )
    return partition


@pytest.fixture(params=OPERATIONS)
def make(request: pytest.FixtureRequest) -> Callable[[Asked, int], Operation]:
    return OPERATIONS[request.param]


def _refundable(partition: Partition, one: Operation) -> Operation:
    """A refund names a charge; the ledger tells which."""
    charge = partition.entries()[2].transaction_id
    return tuple(charge if text == "x" else text for text in one)


def test_the_same_key_and_body_get_the_first_answer(
    stocked: Partition, make: Callable[[Asked, int], Operation]
) -> None:
    one = _refundable(stocked, make(Asked("key"), 0))
    first = stocked.run(one)
    stocked.run(deduct("u", 1))
    entries = stocked.entries()

    stocked.freeze(T0 + DAY - 1)
    again = stocked.run(one)

    assert (first.status, first.replayed, again.replayed) == ("ok", False, True)
    assert again.line[1:] == first.line[1:]
    assert stocked.entries() == entries
    assert [entry.operation_id for entry in entries].count("key") == 1


def test_twice_in_one_batch_is_once(stocked: Partition, make: Callable[[Asked, int], Operation]) -> None:
    one = _refundable(stocked, make(Asked("key"), 0))

    first, again = stocked.batch(one, one)

    assert (again.replayed, again.line[1:]) == (True, first.line[1:])


def test_the_same_key_with_another_body_is_refused(stocked: Partition, make: Callable[[Asked, int], Operation]) -> None:
    stocked.run(_refundable(stocked, make(Asked("key"), 0)))
    entries = stocked.entries()

    answer = stocked.run(_refundable(stocked, make(Asked("key"), 1)))
    described = stocked.run(_refundable(stocked, make(Asked("key", '"description":"other"'), 0)))

    assert (answer.status, described.status) == ("key_reused", "key_reused")
    assert stocked.entries() == entries


def test_one_key_for_two_kinds_of_operation_is_refused(stocked: Partition) -> None:
    stocked.run(deduct("u", 5, asked=Asked("key")))

    assert stocked.run(operations.release("r", Asked("key"))).status == "key_reused"


def test_a_refusal_never_uses_a_key_up(partition: Partition) -> None:
    one = deduct("u", 30, asked=Asked("key"))
    assert [partition.run(one).status for _ in range(2)] == ["insufficient", "insufficient"]
    partition.run(grant("u", "g", 100))

    answer = partition.run(one)

    assert (answer.status, answer.replayed, answer.balances) == ("ok", False, (70, 0, 0))


def test_a_refused_key_takes_another_body(partition: Partition) -> None:
    assert partition.run(deduct("u", 30, asked=Asked("key"))).status == "insufficient"
    partition.run(grant("u", "g", 100))

    assert partition.run(deduct("u", 31, asked=Asked("key"))).status == "ok"


def test_without_a_key_every_call_counts(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))

    assert [partition.run(deduct("u", 5)).balances for _ in range(2)] == [(95, 0, 0), (90, 0, 0)]


def test_any_visible_text_is_a_key(stocked: Partition) -> None:
    for key in ("a b", "k", "%s%%", "l lane", "{p1}", "x" * 128):
        answers = [stocked.run(deduct("u", 1, asked=Asked(key))) for _ in range(2)]
        assert [answer.replayed for answer in answers] == [False, True]


def test_a_callers_members_are_in_the_ledger(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    extra = '"description":"two \\"words\\"","metadata":{"a":[1,null]}'

    partition.run(deduct("u", 150, "partial", Asked("key", extra)))

    entry = partition.entries()[-1]
    assert entry.operation_id == "key"
    assert (entry.detail["description"], entry.detail["metadata"]) == ('two "words"', {"a": [1, None]})
    assert entry.detail["uncovered"] == 50
