"""Outbox entries and the names in them."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, commit, configure, grant, reserve
from meter.engine.outbox import Draw, Entry, NewerEntry, Unread, entry_text, read_outbox_entry, seq_of
from tests.partition import HOUR, T0, Partition

OF_SCHEMA_1 = b'[1,1,2,"0-1-l-1","0-2-l-2","key","deduct","u",30,[["g",30,70,0]],70,0,0,1700000000000,{"a":1}]'
HEAD = b'[2,3,7,"0-6-l-1",0,"l",2,1700000000000]'
PLAIN_ROW = b'["deduct","u",30,70,5,"g",70,5]'
ROWS = (
    PLAIN_ROW,
    b'["release","v",9,20,0,"h",20,0,"",{"reservation_id":"r"}]',
    b'["deduct","u",80,0,5,10,[["g",70,0,5]],"a key",{"uncovered":0}]',
    b'["grant_expired","v",20,0,0,0,[["h",20,0,0]],"",{"grant_id":"h"},1699999999999]',
)
ENTRY = b"\n".join((HEAD, *ROWS))


def test_an_entry_of_schema_1_is_one_transaction() -> None:
    (entry,) = read_outbox_entry(2, OF_SCHEMA_1, 0)

    assert isinstance(entry, Entry)
    assert (entry.epoch, entry.seq, entry.prev, entry.transaction_id) == (1, 2, "0-1-l-1", "0-2-l-2")
    assert (entry.operation_id, entry.kind, entry.user_id, entry.amount) == ("key", "deduct", "u", 30)
    assert entry.draws == (Draw("g", 30, 70, 0),)
    assert (entry.available, entry.reserved, entry.debt, entry.created_at_ms) == (70, 0, 0, T0)
    assert entry.detail == {"a": 1}
    assert read_outbox_entry(2, entry_text(entry), 0) == [entry]


def test_an_entry_has_the_transactions_of_a_call() -> None:
    entries = read_outbox_entry(10, ENTRY, 0)

    common = {"epoch": 3, "operation_id": "", "debt": 0, "created_at_ms": T0, "detail": {}}
    expected = [
        {"seq": 7, "prev": "0-6-l-1", "kind": "deduct", "user_id": "u", "amount": 30, "draws": (Draw("g", 30, 70, 5),)}
        | {"available": 70, "reserved": 5},
        {"seq": 8, "prev": "0-7-l-2", "kind": "release", "user_id": "v", "amount": 9, "draws": (Draw("h", 0, 20, 0),)}
        | {"available": 20, "reserved": 0, "detail": {"reservation_id": "r"}},
        {"seq": 9, "prev": "0-8-l-2", "kind": "deduct", "user_id": "u", "amount": 80, "draws": (Draw("g", 70, 0, 5),)}
        | {"available": 0, "reserved": 5, "debt": 10, "operation_id": "a key", "detail": {"uncovered": 0}},
        {"seq": 10, "prev": "0-9-l-2", "kind": "grant_expired", "user_id": "v", "amount": 20}
        | {"draws": (Draw("h", 20, 0, 0),), "available": 0, "reserved": 0, "detail": {"grant_id": "h"}}
        | {"created_at_ms": T0 - 1},
    ]
    assert [entry._asdict() for entry in entries if isinstance(entry, Entry)] == [
        common | one | {"transaction_id": f"0-{one['seq']}-l-2"} for one in expected
    ]


def test_those_behind_a_seq_follow_each_other_too() -> None:
    assert read_outbox_entry(10, ENTRY, 9) == read_outbox_entry(10, ENTRY, 0)[2:]


def test_what_names_something_is_found_row_by_row() -> None:
    entries = read_outbox_entry(10, ENTRY, 0)

    assert read_outbox_entry(10, ENTRY, 0, [b'"v"']) == [entries[1], entries[3]]
    assert read_outbox_entry(10, ENTRY, 0, [b'"l"']) == []


@pytest.mark.parametrize(
    ("text", "seqs"),
    [
        (b"", [10]),
        (b"{}", [10]),
        (b"[]", [10]),
        (b"[2,1]", [10]),
        (b"[1,1]", [10]),
        (HEAD, [7, 8, 9, 10]),
        (ENTRY[:-9], [10]),
        (ENTRY + b"\n", [7, 8, 9, 10]),
        (ENTRY.replace(b'"0-6-l-1"', b'"0-6-l-1'), [7, 8, 9, 10]),
        (ENTRY.replace(ROWS[1], b"{}"), [8]),
        (ENTRY.replace(b'"deduct"', b'"De"'), [7, 9]),
        (ENTRY.replace(b"70,5]\n", b"70]\n", 1), [7]),
        (ENTRY.replace(b"[2,3,7,", b"[2,3,1,"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_what_no_script_of_ours_wrote_is_unread(text: bytes, seqs: list[int]) -> None:
    """Each of its transactions by itself, where it can be told how many they are."""
    found = read_outbox_entry(10, text, 0)

    assert [entry.seq for entry in found if isinstance(entry, Unread)] == seqs


@pytest.mark.parametrize("text", [b"[3,1]", ENTRY.replace(b"[2,", b"[17,", 1)])
def test_what_newer_scripts_write_is_not_guessed(text: bytes) -> None:
    with pytest.raises(NewerEntry):
        read_outbox_entry(10, text, 0)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("0-2-abc-1", (0, 2)),
        ("15-900-abc-17", (15, 900)),
        ("", None),
        ("x-2-abc-1", None),
        ("0-2", None),
        ("0-2-a-b-c", None),
    ],
)
def test_a_transaction_names_its_place(name: str, place: tuple[int, int] | None) -> None:
    assert seq_of(name) == place


def test_every_entry_of_the_scripts_can_be_read(partition: Partition) -> None:
    asked = Asked("a key", '"description":"ü \\"x\\"","metadata":{"deep":[1,{"a":null}]}')
    partition.batch(
        grant("u", "g", 2**53 - 1, source="plan:a-b_c", asked=asked),
        reserve("u", "r", 7, HOUR, chosen=True),
        commit("r", 3),
        configure("u", overdraft_limit=2**53 - 1, thresholds=(5, 3), metadata='{"x":"y z"}'),
    )

    entries = partition.entries()

    assert [entry.kind for entry in entries] == ["grant", "reserve", "commit", "account"]
    assert [seq_of(entry.transaction_id) for entry in entries] == [(0, n) for n in range(1, 5)]
    assert (entries[0].amount, entries[0].operation_id) == (2**53 - 1, "a key")
    assert entries[0].detail["metadata"] == {"deep": [1, {"a": None}]}
