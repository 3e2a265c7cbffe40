from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage.json_scanner import JsonScanner
from meter.usage.key_tree import KeyTree, Path, Wanted, parse_path
from meter.usage.number import NUMBER_MAX, Number, read_number

PATHS: tuple[Path, ...] = (("total",), ("usage", "total"), ("usage", "details", "é"), ("usage",))
TREE = KeyTree(dict.fromkeys(PATHS, Wanted.NUMBER), [("usage",)])


def scan(*pieces: bytes, tree: KeyTree = TREE) -> dict[Path, Number]:
    scanner = JsonScanner(tree)
    for piece in pieces:
        scanner.feed(piece)
    return scanner.numbers


def scan_key(document: bytes, key: str = "total") -> Number | None:
    path = parse_path(key)
    return scan(document, tree=KeyTree({path: Wanted.NUMBER})).get(path)


def cuts(document: bytes) -> Iterator[tuple[bytes, bytes]]:
    for position in range(len(document) + 1):
        yield document[:position], document[position:]


@pytest.mark.parametrize(
    ("token", "number"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"-0.0", 0),
        (b"17", 17),
        (b"9007199254740991", NUMBER_MAX),
        (b"0.25", Decimal("0.25")),
        (b"1e3", 1000),
        (b"1.5E+2", 150),
        (b"12e-1", Decimal("1.2")),
    ],
)
def test_number_is_read(token: bytes, number: Number) -> None:
    assert read_number(token) == number
    assert scan_key(b'{"total":' + token + b"}") == number


@pytest.mark.parametrize(
    "token",
    [
        b"-1",
        b"-0.1",
        b"9007199254740992",
        b"1e400",
        b"1e-400",
        b"1e999999999",
        b"1e-999999999",
        b"1e99999999999999999999999",
        b"0e-99999999999999999999999",
        b"1" * 65,
        b"0." + b"1" * 70,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"1_000",
        b"0x10",
        b"\xd9\xa1",
        b"true",
        b"false",
        b"null",
        b"[1]",
        b'{"n":1}',
        b"",
    ],
)
def test_what_is_no_number_is_no_usage(token: bytes) -> None:
    assert read_number(token) is None
    assert scan_key(b'{"total":' + token + b"}") is None


def test_integers_stay_integers_and_decimals_stay_exact() -> None:
    assert type(scan_key(b'{"total":12}')) is int
    found = scan_key(b'{"total":0.1}')
    assert type(found) is Decimal
    assert found == Decimal("0.1")


def test_only_the_path_from_the_top_counts() -> None:
    document = b"""{
        "choices": [{"usage": {"total": 1}}],
        "nested": {"usage": {"total": 2}, "total": 3},
        "usage.total": 4,
        "usage": [{"total": 5}],
        "text": "\\"usage\\": {\\"total\\": 6}"
    }"""
    assert scan(document) == {}
    assert scan(b'[{"total":1}]') == {("total",): 1}, "an array of documents"


def test_key_spelled_with_escapes_is_the_same_key() -> None:
    document = b'{"\\u0075s\\u0061ge":{"d\\u0065tails":{"\\u00e9":7},"\\u0074otal":8}}'
    assert scan(document) == {("usage", "details", "é"): 7, ("usage", "total"): 8}
    assert scan('{"usage":{"details":{"é":9}}}'.encode()) == {("usage", "details", "é"): 9}
    assert scan_key(b'{"\\ud83d\\ude00":1}', "😀") == 1
    assert scan_key(b'{"a\\/b":1}', "a/b") == 1


@pytest.mark.parametrize("key", [b'"\\u00"', b'"\\x"', b'"\\ud83d"', b'"\xff\\u0061"', b'"\xff"'])
def test_key_that_is_malformed_matches_nothing(key: bytes) -> None:
    assert scan(b"{" + key + b':1,"total":2}') == {("total",): 2}


def test_k1_the_largest_number_told_counts() -> None:
    assert scan_key(b'{"total":1,"total":2}') == 2
    assert scan_key(b'{"total":2,"total":null}') == 2
    assert scan_key(b'{"total":7}{"total":0}') == 7
    assert scan_key(b'{"usage":{"total":1},"usage":{}}', "usage.total") == 1
    assert scan_key(b'{"usage":null,"usage":{"total":3}}', "usage.total") == 3


def test_k7_a_number_may_be_a_string() -> None:
    assert scan_key(b'{"total":"29"}') == 29
    assert scan_key(b'{"total":" 2.5 "}') == Decimal("2.5")
    assert [scan_key(b'{"total":"%b"}' % text) for text in (b"", b"29 tokens", b"-1", b"0x1d")] == [None] * 4


def test_k6_arrays_are_entered_where_a_path_says_so() -> None:
    document = b'{"usage":{"runs":[{"n":1},{"n":2,"x":[{"n":9}]},7,[{"n":9}],{"n":4}]}}'
    assert scan_key(document, "usage.runs[].n") == 4
    assert scan_key(document, "usage.runs[+].n") == 7
    assert scan_key(document, "usage.runs.n") is None


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b",", b" , ", b"\x1e", b"\n\x1e"])
def test_k2_documents_follow_each_other(between: bytes) -> None:
    text = between.join(
        [b'{"usage":{"total":1}}', b'{"other":[1]}', b'{"usage":{"total":3}}', b'{"usage":{"total":2}}']
    )
    for whole in (text, b"[" + text + b"]", b"\x1e" + text + b"\n"):
        for left, right in cuts(whole):
            assert scan(left, right) == {("usage", "total"): 3}


def test_k2_a_line_that_is_no_json_costs_itself_only() -> None:
    lines = [b"oops", b'{"usage":{"total":1}}', b'{"usage":{"total":7, oops', b"[DONE]", b'{"usage":{"total":2}}', b""]
    for left, right in cuts(b"\n".join(lines)):
        assert scan(left, right) == {("usage", "total"): 2}


def test_path_may_be_the_start_of_another() -> None:
    assert scan(b'{"usage":5}') == {("usage",): 5}
    assert scan(b'{"usage":{"total":5}}') == {("usage", "total"): 5}


def test_byte_order_mark_and_spaces_are_skipped() -> None:
    assert scan(b'\xef\xbb\xbf \r\n\t{ "total" \n:\t12 \r, "x" : [ ] } ') == {("total",): 12}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"  ",
        b"null",
        b"<html>total</html>",
        b'"total"',
        b"{total:1}",
        b'{"total" 1}',
        b'{"total":,}',
        b'{"total":]}',
        b'{,"total":1}',
        b'{"a":1 "total":1}',
        b'{"a":"b"]"total":1}',
        b'{"a":1,}"total":1}',
        b'{"total":1',
        b'{"total',
        b'{"total\\',
    ],
)
def test_malformed_document_has_no_usage(document: bytes) -> None:
    for left, right in cuts(document):
        assert scan(left, right) == {}


def test_what_was_closed_before_the_malformed_part_stays() -> None:
    assert scan(b'{"usage":{"total":1}, oops "usage":{"total":2}}') == {("usage", "total"): 1}
    assert scan(b'{"usage":{"total":1, oops') == {}


def test_an_object_counts_when_it_is_closed_and_a_number_alone_at_once() -> None:
    scanner = JsonScanner(TREE)
    scanner.feed(b'{"usage":{"total":1')
    assert (scanner.numbers, scanner.idle) == ({}, False)
    scanner.feed(b"}")
    assert scanner.numbers == {("usage", "total"): 1}
    scanner.boundary()
    assert scanner.idle
    alone = KeyTree({("total",): Wanted.NUMBER}, alone=[("total",)])
    assert scan(b'{"total":42,"te', tree=alone) == {("total",): 42}
    assert scan(b'{"total":42', tree=alone) == {}


def test_every_cut_of_a_document_reads_the_same() -> None:
    document = rb"""{"id":"a\"b\\","x":[{"total":1},"]",{"y":"\\\""}],"\u0075sage": {"total" : 12.50 ,
        "details":{"\u00e9":1e2,"z":{}}}, "deep":{"a":{"b":["}"]}}, "total":34}"""
    whole = {
        ("total",): 34,
        ("usage", "total"): Decimal("12.5"),
        ("usage", "details", "é"): 100,
    }
    assert scan(document) == whole
    for left, right in cuts(document):
        assert scan(left, right) == whole
    assert scan(*(bytes([byte]) for byte in document)) == whole


def test_skipped_containers_may_be_deeper_than_any_limit() -> None:
    depth = 200_000
    document = b'{"deep":' + b'[{"a":' * depth + b"1" + b"}]" * depth + b',"total":3}'
    assert scan(document) == {("total",): 3}


def test_keys_longer_than_any_path_do_not_match() -> None:
    document = b'{"' + b"total" * 100_000 + b'":1,"' + b"\\u0061" * 100_000 + b'":2,"total":3}'
    assert scan(document) == {("total",): 3}


@pytest.mark.parametrize(
    ("start", "filling", "end"),
    [
        (b'{"text":"', b"x" * 65536, b'","total":3}'),
        (b'{"text":"', b'\\"\\\\\\n' * 8192, b'","total":3}'),
        (b'{"text":["', b'a\\"{' * 16384, b'"],"total":3}'),
        (b'{"text":{"a":[1', b',{"b":"]"},2.5' * 4096, b']},"total":3}'),
        (b'{"', b"k" * 65536, b'":1,"total":3}'),
        (b'{"usage":', b"9" * 65536, b',"total":3}'),
        (b'{"a":', b"z" * 65536, b',"total":3}'),
        (b"{", b" \n" * 32768, b'"total":3}'),
        (b"{", b'"total":1,' * 6553, b'"total":3}'),
    ],
)
def test_memory_does_not_grow_with_the_document(start: bytes, filling: bytes, end: bytes) -> None:
    scanner = JsonScanner(TREE)
    scanner.feed(start)
    scanner.feed(filling)
    tracemalloc.start()
    try:
        for _ in range(8):
            scanner.feed(filling)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    scanner.feed(end)
    assert scanner.numbers == {("total",): 3}
    assert peak < 3 * len(filling)


def test_fifty_megabyte_string_is_not_held() -> None:
    scanner = JsonScanner(TREE)
    scanner.feed(b'{"text":"')
    filling = b"lorem ipsum \\n " * 4369
    tracemalloc.start()
    try:
        for _ in range(50 * 2**20 // len(filling)):
            scanner.feed(filling)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    scanner.feed(b'","usage":{"total":3}}')
    assert scanner.numbers == {("usage", "total"): 3}
    assert peak < 2 * len(filling)


@pytest.mark.parametrize("dotted", ["", ".", "a.", ".a", "a..b"])
def test_key_path_needs_a_name_between_dots(dotted: str) -> None:
    with pytest.raises(ValueError, match="key path"):
        parse_path(dotted)


# Objects are drawn as text, so that keys repeat and are spelled in several ways.
keys = st.sampled_from(["total", "usage", "details", "é", "other", 'q"\\', ""])
spaces = st.sampled_from(["", "", " ", "\n\t", "\r\n"])
numbers = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.sampled_from(["0", "-0", "1e2", "2.50", "1E-3", "-1.5", "1e400", "9007199254740992"]),
    st.decimals(0, 10**6, places=3).map(str),
)
strings = st.text(max_size=6).flatmap(
    lambda text: st.booleans().map(lambda ascii_only: json.dumps(text, ensure_ascii=ascii_only))
)


def spelled_key(draw: st.DrawFn) -> str:
    key = draw(keys)
    style = draw(st.integers(0, 2))
    if style == 2:
        return '"' + "".join(f"\\u{ord(character):04x}" for character in key) + '"'
    return json.dumps(key, ensure_ascii=style == 1)


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    gap = draw(spaces)
    members = [f"{spelled_key(draw)}{gap}:{gap}{draw(values)}" for _ in range(draw(st.integers(0, 4)))]
    return "{" + gap + f"{gap},{gap}".join(members) + gap + "}"


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")


scalars = st.one_of(numbers, numbers, strings, st.sampled_from(["true", "false", "null"]))
values = st.recursive(scalars, lambda inner: objects(inner) | arrays(inner), max_leaves=12)
# What else may be at the top is no document, and what is read of it depends on where its lines end.
documents = st.one_of(objects(values), scalars, st.recursive(objects(values), arrays, max_leaves=6))


class _Members(list[tuple[str, object]]):
    """An object with all its members, repeated ones too."""


def looked_up(document: str) -> dict[Path, Number]:
    """The largest number at each path, in the objects at the top, whatever arrays are around them."""
    found: dict[Path, Number] = {}

    def look(value: object, path: Path) -> None:
        if isinstance(value, _Members):
            for key, member in value:
                look(member, (*path, key))
        elif isinstance(value, list) and not path:
            for item in value:
                look(item, ())
        elif isinstance(value, str):
            look(read_number(value.strip().encode()), path)
        elif path in PATHS and type(value) in (int, Decimal) and 0 <= cast("Number", value) <= NUMBER_MAX:
            found[path] = max(cast("Number", value), found.get(path, 0))

    look(json.loads(document, parse_float=Decimal, object_pairs_hook=_Members), ())
    return found


@settings(max_examples=150, deadline=None)
@given(document=documents, data=st.data())
def test_random_documents_read_as_json_does(document: str, data: st.DataObject) -> None:
    encoded = document.encode()
    expected = looked_up(document)
    assert scan(encoded) == expected
    positions = sorted(data.draw(st.sets(st.integers(0, len(encoded)), max_size=8)))
    edges = [0, *positions, len(encoded)]
    pieces = [encoded[a:b] for a, b in pairwise(edges)]
    assert scan(*pieces) == expected
    assert scan(*(bytes([byte]) for byte in encoded)) == expected


@settings(max_examples=150, deadline=None)
@given(document=documents, data=st.data())
def test_broken_documents_never_raise_and_read_the_same_in_pieces(document: str, data: st.DataObject) -> None:
    encoded = bytearray(document.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(encoded)))
        encoded[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xff", b"1"])
        )
    assert scan(bytes(encoded)) == scan(*(bytes([byte]) for byte in encoded))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=40)))
def test_random_bytes_never_raise(pieces: list[bytes]) -> None:
    assert scan(*pieces) == scan(b"".join(pieces))
    assert scan(b"{", *pieces) == scan(b"{" + b"".join(pieces))
