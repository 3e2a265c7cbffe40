"""Outbox entries and the names in them."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, commit, configure, grant, reserve
from meter.engine.outbox import Draw, parse_entry, seq_of
from tests.partition import HOUR, T0, Partition

ENTRY = b'[1,1,2,"0-1-l-1","0-2-l-2","key","deduct","u",30,[["g",30,70,0]],70,0,0,1700000000000,{"a":1}]'


def test_an_entry_is_read_field_by_field() -> None:
    entry = parse_entry(ENTRY)

    assert (entry.epoch, entry.seq, entry.prev, entry.transaction_id) == (1, 2, "0-1-l-1", "0-2-l-2")
    assert (entry.operation_id, entry.kind, entry.user_id, entry.amount) == ("key", "deduct", "u", 30)
    assert entry.draws == (Draw("g", 30, 70, 0),)
    assert (entry.available, entry.reserved, entry.debt, entry.created_at_ms) == (70, 0, 0, T0)
    assert entry.detail == {"a": 1}


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"[2,1]", ENTRY.replace(b"[1,1", b"[2,1", 1), ENTRY[:-1] + b",1]"])
def test_what_no_script_of_ours_wrote_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_entry(text)


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
