"""The record: what it adds up, what it makes of open ends, and what it calls a difference."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.replay.record import Done, Reading, Record, Sent, Verb, credits_text

D = Decimal


def record_of(*events: Sent | Done) -> Record:
    record = Record()
    for event in (Sent(Verb.GRANT, "u", "u", D(1000)), Done(Verb.GRANT, "u", 200), *events):
        record.apply(event)
    return record


def held(amount: int = 100) -> tuple[Sent, Done]:
    return Sent(Verb.RESERVE, "r", "u", D(amount)), Done(Verb.RESERVE, "r", 201)


def balances(available: int, reserved: int = 0, debt: int = 0) -> dict[str, Decimal]:
    values = {"balance": available + reserved, "reserved": reserved, "available": available, "debt": debt}
    return {name: D(value) for name, value in values.items()}


def test_a_commit_and_a_release_add_up() -> None:
    record = record_of(
        *held(),
        Sent(Verb.COMMIT, "r", "u", D(120)),
        Done(Verb.COMMIT, "r", 200, D("110.5"), D("9.5")),
        Sent(Verb.RESERVE, "s", "u", D(5)),
        Done(Verb.RESERVE, "s", 201),
        Sent(Verb.RELEASE, "s", "u", D(0)),
        Done(Verb.RELEASE, "s", 200, D(5)),
        Sent(Verb.RESERVE, "t", "u", D(5000)),
        Done(Verb.RESERVE, "t", 402, code="INSUFFICIENT_CREDITS"),
    )

    assert not record.pending
    assert not record.contradictions
    assert (record.requests, record.granted, record.refused, record.committed, record.released) == (3, 2, 1, 1, 1)
    assert (record.charged_credits, record.uncovered_credits, record.released_credits) == (D("110.5"), D("9.5"), D(5))
    exact = {"balance": D("889.5"), "reserved": D(0), "available": D("889.5"), "debt": D(0)}
    assert record.differences("u", exact) == []
    assert [d.what for d in record.differences("u", exact | {"balance": D("889.500001")})] == ["balance"]


def test_every_balance_is_compared() -> None:
    record = record_of()

    found = record.differences("u", balances(1, 2, 3))

    assert [(d.what, d.expected, d.actual) for d in found] == [
        ("balance", "1000", "3"),
        ("reserved", "0", "2"),
        ("available", "1000", "1"),
        ("debt", "0", "3"),
    ]


@pytest.mark.parametrize("applied", [False, True])
def test_a_grant_without_an_answer_was_applied_or_not(applied: bool) -> None:
    record = Record()
    record.apply(Sent(Verb.GRANT, "u", "u", D(1000)))

    assert record.differences("u", balances(1000 if applied else 0)) == []
    assert record.differences("u", balances(500)) != []


@pytest.mark.parametrize(
    ("reading", "reserved", "applied"),
    [
        (None, 0, 0),
        (Reading("open", D(100), D(0)), 100, 1),
        (Reading("expired", D(100), D(0)), 0, 1),
    ],
)
def test_a_reserve_without_an_answer(reading: Reading | None, reserved: int, applied: int) -> None:
    record = record_of(held()[0])

    assert record.settle("r", reading) is None
    assert (record.unknown_applied, record.unknown_not_applied) == (applied, 1 - applied)
    assert record.differences("u", balances(1000 - reserved, reserved)) == []


def test_a_refusal_after_a_lost_answer_is_read_back() -> None:
    record = record_of(held()[0], Done(Verb.RESERVE, "r", 402, doubtful=True))

    assert record.settle("r", Reading("open", D(100), D(0))) is None
    assert record.differences("u", balances(900, 100)) == []


@pytest.mark.parametrize(
    ("verb", "reading", "charged", "reserved", "applied"),
    [
        (Verb.COMMIT, Reading("committed", D(100), D(70)), 70, 0, 1),
        (Verb.COMMIT, Reading("open", D(100), D(0)), 0, 100, 0),
        (Verb.COMMIT, Reading("expired", D(100), D(0)), 0, 0, 0),
        (Verb.RELEASE, Reading("released", D(100), D(0)), 0, 0, 1),
        (Verb.RELEASE, Reading("open", D(100), D(0)), 0, 100, 0),
    ],
)
def test_an_end_without_an_answer(verb: Verb, reading: Reading, charged: int, reserved: int, applied: int) -> None:
    record = record_of(*held(), Sent(verb, "r", "u", D(70 if verb is Verb.COMMIT else 0)))

    assert record.settle("r", reading) is None
    assert (record.unknown_applied, record.unknown_not_applied) == (applied, 1 - applied)
    assert record.differences("u", balances(1000 - charged - reserved, reserved)) == []


@pytest.mark.parametrize(
    ("verb", "reading", "what"),
    [
        (None, None, "state of r"),
        (None, Reading("committed", D(100), D(100)), "state of r"),
        (None, Reading("open", D(99), D(0)), "amount of r"),
        (Verb.COMMIT, None, "state of r"),
        (Verb.COMMIT, Reading("released", D(100), D(0)), "state of r"),
        (Verb.COMMIT, Reading("committed", D(100), D(71)), "charged for r"),
        (Verb.RELEASE, Reading("committed", D(100), D(0)), "state of r"),
    ],
)
def test_what_no_call_of_the_replay_explains_is_a_difference(
    verb: Verb | None, reading: Reading | None, what: str
) -> None:
    more = () if verb is None else (Sent(verb, "r", "u", D(70 if verb is Verb.COMMIT else 0)),)
    record = record_of(*held(), *more)

    difference = record.settle("r", reading)

    assert difference is not None
    assert difference.what == what


@pytest.mark.parametrize(
    ("done", "what"),
    [
        (Done(Verb.COMMIT, "r", 200, D(80)), ["charged + uncovered of r"]),
        (Done(Verb.COMMIT, "r", 200, D(60), D(10)), ["charged for r"]),
        (Done(Verb.COMMIT, "r", 200, D(60), D(10), late=True), []),
        (Done(Verb.COMMIT, "r", 200, D(70)), []),
    ],
)
def test_an_answer_that_contradicts_its_request_is_a_difference(done: Done, what: list[str]) -> None:
    record = record_of(*held(), Sent(Verb.COMMIT, "r", "u", D(70)), done)

    assert [difference.what for difference in record.contradictions] == what


def test_a_release_of_another_amount_is_a_difference() -> None:
    record = record_of(*held(), Sent(Verb.RELEASE, "r", "u", D(0)), Done(Verb.RELEASE, "r", 200, D(1)))

    assert [difference.what for difference in record.contradictions] == ["released of r"]


def test_unexpected_answers_are_counted_and_the_first_are_kept() -> None:
    record = record_of(*held(), Sent(Verb.COMMIT, "r", "u", D(70)))
    for _ in range(12):
        record.apply(Done(Verb.COMMIT, "r", 409, code="RESERVATION_EXPIRED"))
    record.apply(Done(Verb.RELEASE, "r", 404))
    record.apply(Done(Verb.RESERVE, "r", 403))
    record.apply(Done(Verb.GRANT, "u", 422))

    assert record.failed == 15
    assert record.failures == ["commit of r: 409 RESERVATION_EXPIRED"] * 10


def test_amounts_are_plain_decimals() -> None:
    assert [credits_text(D(text)) for text in ("1E+3", "0.500000", "-0.5", "100")] == ["1000", "0.5", "-0.5", "100"]
