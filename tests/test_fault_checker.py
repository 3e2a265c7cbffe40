"""The checker itself: sound evidence has no finding, and of each falsification the invariant that it breaks says so."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from pathlib import Path

import fakeredis
import pytest

from tests.faults.checker.evidence import Balance, Entry, Evidence, Loss, Row, Sample, Side
from tests.faults.checker.history import Attempt, Told, doubtful, operations, read_calls
from tests.faults.checker.invariants import INVARIANTS, check, forgotten
from tests.faults.checker.redis_side import first_seq

FOLDER = Path(__file__).parent / "faults" / "checker"
UNIT = 1_000_000


def test_the_checker_imports_nothing_of_meter() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("meter", "workers"), f"{path.name} imports {name}"
                assert not name.startswith("tests.") or name.startswith("tests.faults.checker"), f"{path.name}: {name}"


def row(seq: int, kind: str, amount: int, available: int, reserved: int, name: str, **detail: object) -> Row:
    """A transaction of u."""
    amounts = (amount * UNIT, available * UNIT, reserved * UNIT, 0)
    hold = str(detail.get("reservation_id", ""))
    key = f"grant u {name}" if kind == "grant" else name
    return Row(seq, 1, f"0-{seq}-s-1", kind, "u", *amounts, 1_000 + seq, key, hold, name, dict(detail))


def told(name: str, kind: str, body: dict[str, object], answer: dict[str, object], status: int = 200) -> Told:
    """An operation of u that was called once."""
    attempt = Attempt(1_000, 1_001, status, json.dumps(answer))
    return Told(name, kind, "u", "/", body, name, {1: attempt})


def sound() -> Evidence:
    """A grant of 50, a deduct of 3, a reserve of 5, its commit, and a reserve of 4 that is open."""
    rows = [
        row(1, "grant", 50, 50, 0, "a", grant_id="g", effective_at=1_001),
        row(2, "deduct", 3, 47, 0, "b"),
        row(3, "reserve", 5, 42, 5, "c", reservation_id="r1", expires_at=3_003),
        row(4, "commit", 5, 42, 0, "d", reservation_id="r1", late=False),
        row(5, "reserve", 4, 38, 4, "e", reservation_id="r2", expires_at=3_005),
    ]
    balance = Balance(38 * UNIT, 4 * UNIT, 0, 50 * UNIT, 0, 0, 0, 8 * UNIT)
    side = Side({"u": balance}, {("u", "g"): (38 * UNIT, 4 * UNIT)}, {"r2": ("u", 4 * UNIT)}, (1, 5, "0-5-s-1"))
    calls = [
        told("a", "add", {"amount": 50}, {"transaction_id": "0-1-s-1", "amount": 50, "available": 50}),
        told("b", "deduct", {"amount": 3}, {"transaction_id": "0-2-s-1", "taken": 3, "available": 47}),
        told("c", "reserve", {"amount": 5, "ttl_seconds": 2}, {"available": 42}),
        told("d", "commit", {}, {"transaction_id": "0-4-s-1", "charged": 5, "available": 42}),
        told("e", "reserve", {"amount": 4, "ttl_seconds": 2}, {"available": 38}),
        told("f", "deduct", {"amount": 900}, {"available": 38}, status=402),
        told("x", "conflict", {"reference": "b"}, {}, status=422),
        told("s", "subscribe", {}, {}, status=200),
    ]
    return Evidence(
        {one.id: one for one in calls},
        rows,
        copy.deepcopy(side),
        side,
        [
            Entry(r.seq, 1, r.transaction_id, f"0-{r.seq - 1}-s-1" if r.seq > 1 else "-", "u", r.kind, r.amount)
            for r in rows
        ],
        samples=[Sample(1_000, 1, 1, 0, ()), Sample(1_500, 1, 1, 5, ())],
        subscribed={"u": ["g"]},
    )


Falsify = Callable[[Evidence], object]


def _spent_more(evidence: Evidence) -> None:
    for side in (evidence.store, evidence.redis):
        side.accounts["u"] = side.accounts["u"]._replace(spent=9 * UNIT, granted=51 * UNIT)


def _negative(evidence: Evidence) -> None:
    for side in (evidence.store, evidence.redis):
        side.accounts["u"] = side.accounts["u"]._replace(debt=UNIT, granted=49 * UNIT)


def _ended_twice(evidence: Evidence) -> None:
    evidence.rows.append(row(6, "release", 5, 43, 0, "z", reservation_id="r1"))


def _other_hold(evidence: Evidence) -> None:
    evidence.store.holds["r2"] = evidence.redis.holds["r2"] = ("u", 5 * UNIT)


def _lost(evidence: Evidence) -> None:
    del evidence.rows[1]


def _doubled(evidence: Evidence) -> None:
    evidence.rows.append(evidence.rows[1]._replace(seq=6, transaction_id="0-6-s-1"))


def _refused_and_done(evidence: Evidence) -> None:
    evidence.rows.append(row(6, "deduct", 900, 38, 4, "f"))


def _nobody_asked(evidence: Evidence) -> None:
    evidence.rows.append(row(6, "deduct", 1, 37, 4, "nobody"))


def _other_answer(evidence: Evidence) -> None:
    evidence.told["b"].attempts[1].text = json.dumps({"transaction_id": "0-2-s-1", "taken": 2, "available": 47})


def _other_transaction(evidence: Evidence) -> None:
    evidence.told["b"].attempts[1].text = json.dumps({"transaction_id": "0-9-s-1", "taken": 3, "available": 47})


def _done_with_another_body(evidence: Evidence) -> None:
    evidence.told["x"].attempts[1] = Attempt(2_000, 2_001, 200, "{}")


def _answered_otherwise(evidence: Evidence) -> None:
    evidence.told["b"].attempts[2] = Attempt(2_000, 2_001, 200, evidence.told["b"].attempts[1].text + " ")


def _refused_afterwards(evidence: Evidence) -> None:
    evidence.told["b"].attempts[2] = Attempt(2_000, 2_001, 402, "{}")


def _other_chain(evidence: Evidence) -> None:
    evidence.outbox[3] = evidence.outbox[3]._replace(prev="0-3-other-1")


def _other_entry(evidence: Evidence) -> None:
    evidence.outbox[2] = evidence.outbox[2]._replace(amount=6 * UNIT)


def _other_balance(evidence: Evidence) -> None:
    evidence.rows[1] = evidence.rows[1]._replace(available=48 * UNIT)


def _other_side(evidence: Evidence) -> None:
    evidence.redis.grants["u", "g"] = (37 * UNIT, 5 * UNIT)


def _behind(evidence: Evidence) -> None:
    evidence.store.place = (1, 4, "0-4-s-1")


def _went_back(evidence: Evidence) -> None:
    evidence.samples.append(Sample(2_000, 1, 1, 4, ()))


def _new_epoch(evidence: Evidence) -> None:
    evidence.samples.append(Sample(2_000, 1, 2, 5, ()))


def _unnoticed(evidence: Evidence) -> None:
    evidence.losses.append(Loss("older file", 2_000, 2_100, 5, detected=False, loses=True))


def _trimmed(evidence: Evidence) -> None:
    evidence.samples.append(Sample(2_000, 8, 1, 5, ()))


def _homeless(evidence: Evidence) -> None:
    evidence.samples.append(Sample(2_000, 1, 1, 5, ("u g9",)))


def _given_twice(evidence: Evidence) -> None:
    evidence.rows.append(row(6, "grant", 50, 88, 4, "again", grant_id="g"))


def _not_subscribed(evidence: Evidence) -> None:
    evidence.subscribed.clear()


def _early(evidence: Evidence) -> None:
    evidence.rows.append(row(6, "reservation_expired", 4, 42, 0, "", reservation_id="r2"))


def _other_clock(evidence: Evidence) -> None:
    evidence.rows[4] = evidence.rows[4]._replace(detail={"reservation_id": "r2", "expires_at": 3_603_005})


def _stranger(evidence: Evidence) -> None:
    evidence.strangers.append("meter:{p1}:accounts")


def _touched(evidence: Evidence) -> None:
    evidence.foreign_touched.append("other:{p0}:meta")


def _of_another(evidence: Evidence) -> None:
    evidence.rows[1] = evidence.rows[1]._replace(user="v")


FALSIFIED: list[tuple[str, str, Falsify]] = [
    ("I1", "difference", _spent_more),
    ("I2", "difference", _negative),
    ("I2", "difference", _other_hold),
    ("I2", "doubled", _ended_twice),
    ("I3", "lost", _lost),
    ("I3", "doubled", _doubled),
    ("I3", "invented", _refused_and_done),
    ("I3", "invented", _nobody_asked),
    ("I3", "difference", _other_answer),
    ("I3", "difference", _other_transaction),
    ("I4", "doubled", _done_with_another_body),
    ("I5", "difference", _answered_otherwise),
    ("I5", "difference", _refused_afterwards),
    ("I6", "gap", _lost),
    ("I6", "difference", _other_chain),
    ("I6", "difference", _other_entry),
    ("I6", "difference", _other_balance),
    ("I7", "difference", _other_side),
    ("I7", "difference", _behind),
    ("I8", "difference", _went_back),
    ("I8", "invented", _new_epoch),
    ("I8", "unnoticed", _unnoticed),
    ("I9", "lost", _trimmed),
    ("I10", "invented", _homeless),
    ("I10", "doubled", _given_twice),
    ("I10", "lost", _not_subscribed),
    ("I11", "difference", _early),
    ("I11", "difference", _other_clock),
    ("I12", "invented", _stranger),
    ("I12", "difference", _touched),
    ("I12", "invented", _of_another),
]


def test_sound_evidence_has_no_finding() -> None:
    assert check(sound()) == []


def test_each_invariant_has_its_falsifications() -> None:
    assert {invariant for invariant, _, _ in FALSIFIED} == set(INVARIANTS) == {f"I{n}" for n in range(1, 13)}


@pytest.mark.parametrize(("invariant", "word", "falsify"), FALSIFIED, ids=lambda one: getattr(one, "__name__", one))
def test_a_falsified_history_is_found(invariant: str, word: str, falsify: Falsify) -> None:
    evidence = sound()
    falsify(evidence)
    assert word in [finding.word for finding in INVARIANTS[invariant](evidence)]


def test_what_a_noticed_loss_took_along_is_counted_and_no_finding() -> None:
    evidence = sound()
    evidence.told["late"] = told("late", "deduct", {}, {"transaction_id": "0-6-s-1", "taken": 1, "available": 37})
    assert [finding.word for finding in check(evidence)] == ["lost"]
    evidence.losses.append(Loss("older file", 1_500, 1_600, 5, detected=True, loses=True))
    assert check(evidence) == []
    assert forgotten(evidence) == 1
    evidence.losses[0] = evidence.losses[0]._replace(stored_seq=6)  # the store had it
    assert [finding.word for finding in check(evidence)] == ["lost"]


def test_what_was_told_before_a_loss_may_be_booked_behind_others_and_is_answered_as_then() -> None:
    """It went, a sidecar offered it back, and the call was repeated when all was over."""
    evidence = sound()
    text = json.dumps({"transaction_id": "0-2-s-1", "taken": 3, "available": 43})
    evidence.told["b"].attempts = {1: Attempt(1_000, 1_001, 200, text), 2: Attempt(2_000, 2_001, 200, text)}
    assert [finding.word for finding in check(evidence)] == ["difference"]
    evidence.losses.append(Loss("older file", 1_500, 1_600, 1, detected=True, loses=True))
    assert check(evidence) == []
    other = json.dumps({"transaction_id": "0-9-s-1", "taken": 3, "available": 43})
    evidence.told["b"].attempts[1] = Attempt(1_000, 1_001, 200, other)  # done anew afterwards: no excuse
    assert "difference" in [finding.word for finding in INVARIANTS["I3"](evidence)]


def test_credits_that_came_in_are_never_gone_with_a_loss() -> None:
    evidence = sound()
    evidence.told["in"] = told("in", "add", {}, {"transaction_id": "0-6-s-1", "amount": 1, "available": 39})
    evidence.losses.append(Loss("older file", 1_500, 1_600, 5, detected=True, loses=True))
    assert [finding.word for finding in check(evidence)] == ["lost"]


def test_what_nobody_can_say_may_be_there_once() -> None:
    evidence = sound()
    for name in ("b", "lost-without-trace"):
        evidence.told[name] = Told(name, "deduct", "u", "/", {}, name, {1: Attempt(1_000)})
    assert check(evidence) == []
    assert not evidence.told["b"].is_resolved
    again = sound()
    again.told["b"] = evidence.told["b"]
    _doubled(again)
    assert [finding.word for finding in INVARIANTS["I3"](again)] == ["invented"]


def test_a_history_is_read_from_its_lines(tmp_path: Path) -> None:
    """A batch is as many operations; a line that a kill cut off is none; who was never answered is doubtful."""
    call = {"kind": "batch", "user": "u", "method": "POST", "path": "/", "key": "k", "attempt": 1, "at": 5}
    body = {"operations": [{"op": "deduct"}, {"op": "reserve"}]}
    results = {"results": [{"status": 200, "taken": 1}, {"status": 503}]}
    lines = [
        {**call, "call": "k", "body": body},
        {"answer": "k", "attempt": 1, "at": 6, "status": 200, "text": json.dumps(results)},
        {**call, "call": "m", "kind": "deduct", "body": {}, "key": "m"},
        {**call, "call": "n", "kind": "deduct", "body": {}, "key": ""},
    ]
    path = tmp_path / "1.ndjson"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"answer": "m", "att')
    calls = read_calls([path])
    found = operations(calls)
    assert {name: one.is_resolved for name, one in found.items()} == {"k.0": True, "k.1": False, "m": False, "n": True}
    assert [one.id for one in doubtful(calls)] == ["k", "m"]
    assert (found["k.0"].at_least, found["k.1"].at_least, found["n"].at_most) == (1, 0, 1)


def test_the_first_seq_of_an_outbox_is_read_at_one_moment() -> None:
    """Asked for one after the other, what came in between looks as if it had been trimmed."""
    client = fakeredis.FakeRedis()
    client.hset("meter:{p0}:meta", "seq", "7")
    assert first_seq(client) == 8
    client.xadd("meter:{p0}:outbox", {"e": '[2,1,6,"-",0,"s",1,5]\n["deduct","u",1]\n["deduct","u",1]'}, id="7-0")
    assert first_seq(client) == 6
