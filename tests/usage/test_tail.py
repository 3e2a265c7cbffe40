"""Usage from the end of a response (K12): what is cut off tells nothing, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.usage import Format, shape_of
from meter.usage.tail import last_members, read_end

AUTO = shape_of(Format.AUTO)
TOLD = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
TRAP = {"tools": [{"parameters": {"usage": {"total_tokens": 1}, "total_tokens": '"total_tokens": 7'}}]}


def total(end: bytes, *, whole: bool = False) -> object:
    usage = read_end(AUTO, end, whole=whole).usage
    return None if usage is None else usage.total


@pytest.mark.parametrize(
    "document",
    [
        {"x": "y" * 200, "usage": TOLD},
        {"x": "y" * 200, "usage": TOLD, **TRAP},
        {"x": "y" * 200, "usage": TOLD, "say": 'ends with \\" and "usage": {"total_tokens": 3}'},
        {"x": 'a\\"b{' * 40, "usage": {**TOLD, "total_tokens": 29.0}},
        {"x": "y" * 200, "usage": {"input_tokens": 19, "output_tokens": 10}},
    ],
)
def test_k12_the_last_members_are_read_as_json(document: object) -> None:
    whole = json.dumps(document).encode()
    at = whole.index(b'"usage"')
    totals = {total(whole[cut:]) for cut in range(1, at)}

    assert totals - {None} == {29}
    assert total(whole, whole=True) == 29
    assert {total(whole[cut:]) for cut in range(at + 1, len(whole))} == {None}


def test_k12_a_list_of_batches_is_no_usage() -> None:
    body = json.dumps({"object": "list", "data": [{"id": "b", "usage": {"total_tokens": 700}}], "has_more": False})
    assert {total(body.encode()[cut:]) for cut in range(1, len(body))} == {None}


def test_k12_events_are_read_line_by_line() -> None:
    stream = (
        b'data: {"choices":[],"usage":null}\n\ndata: ' + json.dumps({"usage": TOLD}).encode() + b"\n\ndata: [DONE]\n\n"
    )
    at = stream.index(b'data: {"usage')
    assert {total(stream[cut:]) for cut in range(1, at)} == {29}
    assert total(stream[at + 20 :]) is None


VALUES = st.recursive(
    st.text(max_size=8) | st.integers(),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.integers(0, 200))
def test_any_end_of_any_document_is_a_document_with_its_last_members(value: object, cut: int) -> None:
    document = {"first": value, "second": value, "last": value}
    end = json.dumps(document).encode()[cut:]

    read = last_members(end)

    if read:
        members = list(json.loads(read).items())
        assert members == list(document.items())[-len(members) :] or json.loads(read) in (value, document)
    assert last_members(end + b"x") == b""
