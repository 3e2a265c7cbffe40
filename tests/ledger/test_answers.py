"""The answer that the fold keeps is the line that the script gave, for every kind."""

from __future__ import annotations

import pytest

from meter.engine import operations
from meter.engine.operations import Asked, answer_of
from meter.engine.outbox import Entry
from meter.ledger.chain import Known
from meter.store.base import Flush
from tests.ledger.folding import fold
from tests.ledger.story import tell
from tests.partition import HOUR, MINUTE, T0, Partition
from tests.servers import Server


def folded(entries: list[Entry]) -> tuple[Flush, dict[str, str | None]]:
    """All entries as one step, and the answer to each transaction as of then."""
    known, answers = Known(), {}
    flush = None
    for entry in entries:
        answers[entry.transaction_id] = answer_of(entry)
        flush = fold(0, None if flush is None else flush.reached, [entry], known, 0)
    assert flush is not None
    return fold(0, None, entries, Known(), 0), answers


def test_every_answer_is_the_scripts(partition: Partition) -> None:
    told = tell(partition, T0)
    flush, _ = folded(partition.entries())
    stored = {row.operation_id: row.answer for row in flush.operations}
    kinds = set()
    for one in told:
        if one.one[1]:
            assert f"0 {stored[one.one[1]]}" == one.answer.line
            kinds.add(one.one[0])
    assert kinds == {
        "grant",
        "deduct",
        "reserve",
        "extend",
        "commit",
        "release",
        "void",
        "configure",
        "refund",
        "adjust",
    }


def test_a_chosen_reservation_id_is_a_key_with_an_answer(partition: Partition) -> None:
    told = {one.one[5]: one for one in tell(partition, T0) if one.one[0] == "reserve"}
    flush, _ = folded(partition.entries())
    stored = {row.operation_id: row for row in flush.operations}
    for name in ("hold", "ended", "over", "given"):
        assert f"0 {stored[f'reserve {name}'].answer}" == told[name].answer.line
        assert stored[f"reserve {name}"].fingerprint
    assert f"reserve r0_{'A' * 22}" not in stored


def test_a_finished_reservation_keeps_the_answer_of_its_end(partition: Partition) -> None:
    told = {one.one[4]: one for one in tell(partition, T0) if one.one[0] in ("commit", "release")}
    flush, _ = folded(partition.entries())
    for row in flush.reservations:
        if row.state != "open":
            assert f"0 {row.answer}" == told[row.reservation_id].answer.line


@pytest.fixture
def forfeiting(partition: Partition) -> Partition:
    """A user with three holds on a grant that has ended meanwhile."""
    partition.run(operations.grant("u", "g", 100, expires_at_ms=T0 + MINUTE))
    partition.run(operations.grant("u", "other", 100, priority=50))
    for name in ("a", "b", "c"):
        partition.run(operations.reserve("u", name, 30, HOUR, chosen=True))
    partition.run(operations.deduct("u", 10, asked=Asked("charge")))
    partition.advance(2 * MINUTE)
    return partition


def test_what_is_forfeited_is_in_the_answer(forfeiting: Partition) -> None:
    answers = {
        "commit": forfeiting.run(operations.commit("a", 10, asked=Asked("k1"))),
        "release": forfeiting.run(operations.release("b", Asked("k2"))),
    }
    forfeiting.refund("u", forfeiting.entries()[5].transaction_id)
    assert (answers["commit"]["forfeited"], answers["release"]["forfeited"]) == (20, 30)
    flush, _ = folded(forfeiting.entries())
    stored = {row.operation_id: row.answer for row in flush.operations}
    assert f"0 {stored['k1']}" == answers["commit"].line
    assert f"0 {stored['k2']}" == answers["release"].line
    assert flush.accounts[0].expired == sum(e.amount for e in forfeiting.entries() if e.kind == "grant_expired")


def test_a_late_commit_and_one_by_the_clock_answer_as_they_did(server: Server, partition: Partition) -> None:
    partition.run(operations.grant("u", "g", 100))
    partition.run(operations.reserve("u", "late", 30, MINUTE, chosen=True))
    partition.run(operations.reserve("u", "clock", 20, MINUTE, chosen=True, at_end="charge"))
    partition.advance(2 * MINUTE)
    late = partition.run(operations.commit("late", 25, asked=Asked("k")))
    again = partition.run(operations.commit("clock"))
    assert late["late"] == 1 and again.replayed
    flush, _ = folded(partition.entries())
    rows = {row.reservation_id: row for row in flush.reservations}
    assert f"0 {rows['late'].answer}" == late.line
    assert f"1 {rows['clock'].answer}" == again.line
    assert (rows["clock"].state, rows["clock"].charged) == ("committed", 20)
