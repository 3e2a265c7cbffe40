"""X5: what a delivery may cost before it is refused, and that a bad entry spoils no other: meter/gateway/entries.py."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from decimal import Decimal

import pytest

from meter.gateway import entries
from meter.gateway.entries import ENTRIES_MAX, BadEntry, TooLarge, entries_of, entry_of, unpacked
from meter.gateway.sources import MEMBERS_MAX, SOURCES, read_entry
from tests.gateway.caller import Caller

BYTES_MAX = 4 * 2**20
DEEP = b"[" * 1200 + b"]" * 1200


class Counting(json.JSONDecoder):
    """Counts what it is asked to parse."""

    calls = 0

    def raw_decode(self, s: str, idx: int = 0) -> tuple[object, int]:
        Counting.calls += 1
        return super().raw_decode(s, idx)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often something was parsed."""
    monkeypatch.setattr(entries, "_JSON", Counting(parse_float=Decimal, strict=False))
    Counting.calls = 0
    return lambda: Counting.calls


def test_x5_a_small_body_of_two_million_lines_is_refused(caller: Caller, parses: Callable[[], int]) -> None:
    body = gzip.compress(b"x\n" * 2_000_000)

    answer = caller.http.post("/gateway/logs", content=body, headers={"content-encoding": "gzip"})

    assert len(body) < 4100
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
    assert parses() == 0


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_x5_no_more_is_unpacked_than_the_packed_bytes_may_stand_for(pack: Callable[[bytes], bytes]) -> None:
    """RATIO_MAX for one, whatever the limit of the body is."""
    body = pack(b" " * 50_000_000)
    encoding = "gzip" if pack is gzip.compress else "deflate"

    with pytest.raises(TooLarge, match=f"more than {100 * len(body)} bytes"):
        unpacked(body, encoding, 2**30)


def test_x5_logs_that_differ_little_are_unpacked() -> None:
    lines = b"\n".join(b'{"reservation_id":"r0_%022d","status":200,"usage":30}' % n for n in range(ENTRIES_MAX))

    assert unpacked(gzip.compress(lines), "gzip", BYTES_MAX) == lines
    assert unpacked(gzip.compress(b" " * 60_000), "gzip", BYTES_MAX) == b" " * 60_000  # small, whatever its ratio


def test_members_of_gzip_are_read_one_behind_the_other() -> None:
    body = gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n') + b"\0\0"

    assert unpacked(body, "gzip", BYTES_MAX) == b'{"a":1}\n{"a":2}\n'
    with pytest.raises(TooLarge):
        unpacked(gzip.compress(b"x" * 40_000) * 2, "gzip", 70_000)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x"])
def test_other_codings_are_refused_unread(caller: Caller, encoding: str, parses: Callable[[], int]) -> None:
    answer = caller.http.post("/gateway/logs", content=b"[]", headers={"content-encoding": encoding})

    assert (answer.status_code, parses()) == (415, 0)


@pytest.mark.parametrize(
    "delivery",
    [
        b"\n" * 5_000,
        b"{}\n" * 5_000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" + b"{}," * 200_000 + b"{}]",
        b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}",
    ],
    ids=["blank lines", "lines", "brackets", "braces", "elements", "members"],
)
def test_x5_what_has_too_many_lines_or_values_is_never_parsed(delivery: bytes, parses: Callable[[], int]) -> None:
    with pytest.raises(TooLarge):
        list(entries_of(delivery))

    assert parses() == 0


@pytest.mark.parametrize("delivery", [b"[" + b"1," * 100_000 + b"1]", b"{}\n" * (ENTRIES_MAX + 1) * 3])
def test_x5_no_more_entries_are_parsed_than_may_be(delivery: bytes, parses: Callable[[], int]) -> None:
    with pytest.raises(TooLarge, match="entries"):
        list(entries_of(delivery))

    assert parses() <= ENTRIES_MAX + 2


@pytest.mark.parametrize(
    ("delivery", "good"),
    [
        (b'{"a":1}\n%b\n{"a":2}' % DEEP, [1, 2]),
        (b'{"a":1}\n' + b'{"b":' * 1200 + b'\n{"a":2}', [1, 2]),
        (b'[{"a":1},%b,{"a":2}]' % DEEP, [1, 2]),
        (b'[{"a":1},{"a":},{"a":2}]', [1, 2]),
        (b'[{"a":1},x,}},{"a":2}]', [1, 2]),
        (b'[{"a":1,"b":"\xff"},{"a":2,"b":"\t"}]', [1, 2]),
        (b'[{"a":1},{"b":%b},{"a":2}]' % (b"9" * 5000), [1, 2]),
        (b'[{"a":1}]\n[{"a":2}]', [1, 2]),
        (b'{"a":1}{"a":2} {"a":3}', [1, 2, 3]),
        (b'\xef\xbb\xbf{"a":1}\r\n{"a":2}\r\n', [1, 2]),
        (b'[{"a":1},{"b":"\\"]"},{"a":2}', [1, 2]),
        (b'{"a":1}\n{"a":\n', [1]),
    ],
)
def test_one_bad_entry_spoils_no_other(delivery: bytes, good: list[int]) -> None:
    found = [entry["a"] for entry in entries_of(delivery) if isinstance(entry, dict) and "a" in entry]

    assert found == good


def test_a_cut_off_string_is_one_bad_entry() -> None:
    (entry,) = entries_of(b'["' + b"\\" * 100_001)

    assert isinstance(entry, BadEntry)


def test_x5_a_deep_line_settles_the_others(caller: Caller) -> None:
    reservation_id = caller.held()
    entry = b'{"reservation_id":"%b","usage":7}' % reservation_id.encode()

    answer = caller.http.post("/gateway/logs", content=b'{"usage":' + DEEP + b"}\n" + entry)

    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "ignored": 0, "failed": 1})
    assert caller.balance() == (993, 0)


def test_x5_a_datagram_is_one_entry_however_it_is_nested() -> None:
    assert isinstance(entry_of('{"a":' * 5000), BadEntry)
    assert isinstance(entry_of(""), BadEntry)
    assert entry_of('{"a":1.50} trailing') == {"a": Decimal("1.50")}


def test_x5_names_in_any_case_are_not_searched_in_an_object_of_thousands() -> None:
    few: dict[str, object] = {"Reservation_Id": "r", "usage": 1}
    many = few | {str(n): n for n in range(MEMBERS_MAX)}

    assert read_entry(SOURCES["meter"], few) is not None
    assert read_entry(SOURCES["meter"], many) is None
