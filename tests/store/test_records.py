"""Rows that are kept as columns: the same rows to whoever looks, and the same columns to every database."""

from __future__ import annotations

import pytest

from meter.engine.outbox import Draw, Entry, Kind
from meter.ledger.chain import Known
from meter.ledger.entry_rows import transaction_row
from meter.store.json_text import to_shallow_json
from meter.store.records import Records, to_json
from meter.store.rows import ReservationRow, TransactionRow
from meter.store.sql.columns import Columns
from meter.store.sql.mysql import MysqlDialect
from tests.ledger.folding import fold

DETAIL = {
    "reservation_id": "r",
    "expires_at": 9,
    "reference": "job",
    "description": "d\0",
    "metadata": {"deep": [[1.5, "\u00fc\0"]], "_json": "x"},
    "fingerprint": "f",
}
ENTRY = Entry(
    1, 1, "-", "0-1-x-1", "key", Kind.RESERVE, "u", 0, (Draw("g", 3, 7, 3), Draw("h", 0, 1, 1)), 0, 0, 0, 5, DETAIL
)


def test_an_entry_becomes_the_row_that_its_members_say() -> None:
    row = transaction_row(2, ENTRY, "of the hold")
    assert row == TransactionRow(
        transaction_id="0-1-x-1",
        partition=2,
        epoch=1,
        seq=1,
        kind="reserve",
        user_id="u",
        amount=0,
        available_after=0,
        reserved_after=0,
        debt_after=0,
        created_at_ms=5,
        operation_id="key",
        reservation_id="r",
        refund_of=None,
        reference="job",
        draws=[["g", 3]],
        detail={"expires_at": 9, "fingerprint": "f"},
        description="d\0",
        metadata=DETAIL["metadata"],
    )
    assert type(row.kind) is str
    assert set(row.__dict__) == set(TransactionRow.model_fields)


@pytest.mark.parametrize("columns", [Columns(TransactionRow), Columns(TransactionRow, nul=False)])
def test_a_database_gets_the_same_of_columns_as_of_rows(columns: Columns[TransactionRow]) -> None:
    flush = fold(0, None, [ENTRY._replace(draws=())], Known(), 0)
    assert isinstance(flush.transactions, Records)
    assert list(columns.tuples(flush.transactions)) == list(columns.tuples(list(flush.transactions)))


@pytest.mark.parametrize(
    ("draws", "said"),
    [
        ((), []),
        ((Draw("g", 3, 0, 0),), [["g", 3]]),
        ((Draw("g", -3, 0, 0),), [["g", -3]]),
        ((Draw("g", 0, 0, 0),), []),
        ((Draw('g"\\\u00fc\0', 3, 0, 0),), [['g"\\\u00fc\0', 3]]),
        ((Draw("g", 3, 0, 0), Draw("h", 0, 0, 0), Draw("i", 1, 0, 0)), [["g", 3], ["i", 1]]),
    ],
)
def test_the_draws_of_a_row_are_those_that_moved_anything(draws: tuple[Draw, ...], said: object) -> None:
    row = transaction_row(0, ENTRY._replace(draws=draws, detail={}))
    assert (row.draws, row.detail, row.metadata, row.reference) == (said, {}, None, "key")


def test_what_is_too_deep_for_a_database_is_wrapped_in_columns_too() -> None:
    columns = MysqlDialect().columns(TransactionRow)
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    entry = ENTRY._replace(detail={"metadata": {"deep": deep}})
    row = transaction_row(0, entry)
    records = Records(TransactionRow, [tuple(_texts(row))])
    at = columns.names.index("metadata")
    assert columns.tuples(records)[0][at] == columns.tuples([row])[0][at] == to_shallow_json({"deep": deep})
    assert columns.tuples(records)[0][at] != to_json({"deep": deep})


def test_records_are_the_rows_that_they_stand_for() -> None:
    rows = [transaction_row(0, ENTRY._replace(seq=seq)) for seq in range(3)]
    records = Records(TransactionRow, [tuple(_texts(row)) for row in rows])
    assert (len(records), records[1], list(records[1:])) == (3, rows[1], rows[1:])
    assert list(records) == rows and records == rows and records != rows[:2]


def test_a_reservation_has_every_member_that_its_row_has() -> None:
    (row,) = fold(0, None, [ENTRY._replace(draws=())], Known(), 0).reservations
    assert set(row.__dict__) == set(ReservationRow.model_fields)
    assert ReservationRow.model_validate(row.model_dump()) == row


def _texts(row: TransactionRow) -> list[object]:
    named = {"draws", "detail", "metadata"}
    return [to_json(value) if name in named and value is not None else value for name, value in row.__dict__.items()]
