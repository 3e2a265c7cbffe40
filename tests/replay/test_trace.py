"""Reading a trace: the production format, and a complaint with file and line for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.replay import TraceError, TraceRow, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST = "2023-11-16 18:15:46.6805900,374,44\n"


def test_reads_what_the_production_trace_looks_like(trace: Path) -> None:
    rows = read_trace(trace)

    assert len(rows) == 60
    assert rows[0] == TraceRow(1, 0.0, 100, 0)
    assert rows[59] == TraceRow(60, 0.983333, 513, 267)
    assert rows[59].total_tokens == 780


def test_reads_no_more_than_asked_for(trace: Path) -> None:
    assert [row.number for row in read_trace(trace, 3)] == [1, 2, 3]


def test_other_columns_other_order_a_mark_blank_lines_and_offsets_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = (
        "\ufeffmodel, GeneratedTokens ,TIMESTAMP,ContextTokens\n\na,5,2024-05-10 01:00:00+01:00,7\n"
        'b,6,"2024-05-10 00:00:01.5+00:00", 8\n\n'
    )
    path.write_text(text)

    assert read_trace(path) == [TraceRow(1, 0.0, 7, 5), TraceRow(2, 1.5, 8, 6)]


def test_a_time_that_goes_back_is_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + FIRST + "2023-11-16 18:15:45.6805900,1,2\n")

    assert read_trace(path)[1].offset_seconds == -1


@pytest.mark.parametrize(
    ("text", "place", "complaint"),
    [
        ("", "", "is empty"),
        (HEADER, ":1", "no rows"),
        ("TIMESTAMP,ContextTokens\n1,2\n", ":1", "needs one column GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens,TIMESTAMP\n", ":1", "needs one column TIMESTAMP"),
        (FIRST, ":1", "the header is: 2023-11-16"),
        (HEADER + FIRST + "2023-11-16 18:15:46,374\n", ":3", "has 2 fields, the header has 3"),
        (HEADER + FIRST + "yesterday,1,2\n", ":3", "TIMESTAMP is 'yesterday'"),
        (HEADER + FIRST + "\n2023-11-16 18:15:46,1.5,2\n", ":4", "ContextTokens is '1.5'"),
        (HEADER + "2023-11-16 18:15:46,1,-2\n", ":2", "GeneratedTokens is '-2'"),
        (HEADER + "2023-11-16 18:15:46,1,\n", ":2", "GeneratedTokens is ''"),
        (HEADER + "2023-11-16 18:15:46,1,1_000\n", ":2", "GeneratedTokens is '1_000'"),
        (HEADER + "2023-11-16 18:15:46,1,٣\n", ":2", "GeneratedTokens is '٣'"),
        (HEADER + "2023-11-16 18:15:46,1,1000000001\n", ":2", "not a whole number from 0 to 1000000000"),
        (HEADER + "2023-11-16 18:15:46,1," + "9" * 5000 + "\n", ":2", "not a whole number"),
        (HEADER + '"2023-11-16,1,2\n', ":2", "is not CSV"),
    ],
)
def test_a_complaint_names_file_line_and_fault(tmp_path: Path, text: str, place: str, complaint: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    with pytest.raises(TraceError) as raised:
        read_trace(path)

    message = str(raised.value)
    assert message.startswith(f"{path}{place}: ")
    assert complaint in message
    assert "\n" not in message


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(TraceError, match="Is a directory"):
        read_trace(tmp_path)
    (tmp_path / "b.csv").write_bytes(HEADER.encode() + b"\xff\xfe,1,2\n")
    with pytest.raises(TraceError, match="is not UTF-8"):
        read_trace(tmp_path / "b.csv")
