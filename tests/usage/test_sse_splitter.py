from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage.sse_splitter import SseSplitter


def split(*pieces: bytes, event_bytes_max: int = 65536) -> list[bytes]:
    splitter = SseSplitter(event_bytes_max=event_bytes_max)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.finish()


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_splits_events_at_every_cut(line_end: bytes) -> None:
    stream = line_end.join(
        [
            b"\xef\xbb\xbfdata: first",
            b"",
            b": a comment",
            b"",
            b"event: two",
            b"id: 7",
            b"data:second",
            b"data",
            b"data:  third",
            b"retry: 10",
            b"",
            b"",
            b"database: no",
            b"data : no",
            b" data: no",
            b"\xef\xbb\xbfdata: no",
            b"",
            b"data: [DONE]",
            b"",
            b"",
        ]
    )
    events = [b"first", b"second\n\n third", b"[DONE]"]
    assert split(stream) == events
    for position in range(len(stream) + 1):
        assert split(stream[:position], b"", stream[position:]) == events
    assert split(*(bytes([byte]) for byte in stream)) == events


def test_line_ends_may_be_mixed() -> None:
    assert split(b"data: a\r\n\rdata: b\n\r\ndata: c\r\r") == [b"a", b"b", b"c"]
    assert split(b"data: a\n\rdata: b\r\r\n") == [b"a", b"b"]


def test_other_separators_are_part_of_the_data() -> None:
    data = "a\x0bb\x0cc\x1cd\x85e\u2028f".encode()
    assert split(b"data: " + data + b"\n\n") == [data]


def test_last_event_counts_without_its_blank_line() -> None:
    assert split(b"data: a\n\ndata: b") == [b"a", b"b"]
    assert split(b"data: a\n\ndata: b\n") == [b"a", b"b"]


def test_event_is_known_as_soon_as_its_blank_line_is() -> None:
    splitter = SseSplitter()
    assert splitter.feed(b"data: a\r\n\r") == [b"a"]
    assert splitter.feed(b"\ndata: b\n") == []
    assert splitter.feed(b"\n") == [b"b"]
    assert splitter.finish() == []


@pytest.mark.parametrize(
    "big",
    [
        b"data: " + b"x" * 100,
        b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 40,
        b"data: small\n: " + b"c" * 100,
        b"data\n" * 99 + b"data",
    ],
)
def test_too_big_event_is_skipped_and_reading_goes_on(big: bytes) -> None:
    stream = b"data: a\n\n" + big + b"\ndata: tail\n\ndata: b\n\n"
    for position in range(len(stream) + 1):
        assert split(stream[:position], stream[position:], event_bytes_max=64) == [b"a", b"b"]
    assert split(stream + big, event_bytes_max=64) == [b"a", b"b"]


def test_event_of_exactly_the_limit_is_read() -> None:
    data = b"x" * 58
    assert split(b"data: " + data + b"\n\n", event_bytes_max=64) == [data]
    assert split(b"data: " + data + b"x\n\n", event_bytes_max=64) == []


@pytest.mark.parametrize("filling", [b"x" * 65536, b"data: y\n" * 8192, b": c\n" * 8192])
def test_memory_does_not_grow_with_an_event(filling: bytes) -> None:
    splitter = SseSplitter()
    splitter.feed(b"data: ")
    splitter.feed(filling)
    splitter.feed(filling)
    lines = filling.count(b"\n")
    tracemalloc.start()
    try:
        for _ in range(10):
            assert splitter.feed(filling) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(filling) + 64 * lines
    assert splitter.feed(b"\n\ndata: next\n\n")[-1:] == [b"next"]


def test_ten_megabyte_line_is_skipped() -> None:
    splitter = SseSplitter()
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        splitter.feed(b"data: a\n\ndata: ")
        for _ in range(160):
            assert splitter.feed(piece) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(piece)
    assert splitter.feed(b"\n\ndata: next\n\n") == [b"next"]


lines = st.sampled_from(
    [b"", b"", b"data: x", b"data:y", b"data", b": c", b"id: 1", b"data: " + b"z" * 30, b"\xef\xbb\xbf"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n", b""])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(lines, ends), max_size=20), st.data())
def test_random_pieces_split_as_the_whole(parts: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(line + end for line, end in parts)
    whole = split(stream, event_bytes_max=24)
    positions = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *positions, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert split(*pieces, event_bytes_max=24) == whole
    assert split(*(bytes([byte]) for byte in stream), event_bytes_max=24) == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30)))
def test_random_bytes_never_raise(pieces: list[bytes]) -> None:
    assert split(*pieces) == split(b"".join(pieces))
