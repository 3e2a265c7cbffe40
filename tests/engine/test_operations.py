"""What goes to the scripts: keys of one slot, ids that cannot break a packed text, fingerprints of bodies."""

from __future__ import annotations

from itertools import combinations

import pytest

from meter.engine import operations
from meter.engine.operations import Asked, Operation
from meter.keys import OBJECT_ID, OPERATION_KEY, USER_ID, PartitionKeys


def slot(key: str) -> int:
    """The cluster slot of a key, as Redis' documentation gives it (CRC16 of the hash tag)."""
    start, end = key.find("{"), key.find("}")
    crc = 0
    for byte in key[start + 1 : end].encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16384


@pytest.mark.parametrize("number", [0, 7, 1023])
def test_all_keys_of_a_partition_share_a_slot(number: int) -> None:
    keys = PartitionKeys(number, "prefix").all

    assert len(set(keys)) == 11
    assert len({slot(key) for key in keys}) == 1
    assert all(key.startswith(f"prefix:{{p{number}}}:") for key in keys)


def test_the_slot_function_is_the_one_of_the_documentation() -> None:
    assert slot("{123456789}") == 0x31C3
    assert len({slot(PartitionKeys(number).meta) for number in range(64)}) > 50


@pytest.mark.parametrize(
    "name", ["", "a b", "a{b", "a}b", "a\nb", "a;b", "a!b", "é", "a" * 129, 'a"b', "a\\b", "a%b", "a~b"]
)
def test_ids_that_would_break_a_packed_text_are_refused(name: str) -> None:
    assert not USER_ID.fullmatch(name)
    assert not OBJECT_ID.fullmatch(name)


def test_a_user_id_may_be_a_path_and_others_may_not() -> None:
    assert USER_ID.fullmatch("org/team/key@x.y:1")
    assert not OBJECT_ID.fullmatch("org/team")
    assert OBJECT_ID.fullmatch("a" * 128)


@pytest.mark.parametrize("key", ["", "a b", 'a"b', "a\\b", "é", "a\n", "x" * 129])
def test_what_is_no_key(key: str) -> None:
    assert not OPERATION_KEY.fullmatch(key)


ASKED = Asked("key")
BODIES: list[Operation] = [
    operations.grant("u", "g", 5, asked=ASKED),
    operations.grant("u", "h", 5, asked=ASKED),
    operations.grant("u", "g", 5, priority=1, asked=ASKED),
    operations.grant("u", "g", 5, expires_at_ms=9, asked=ASKED),
    operations.grant("u", "g", 5, effective_at_ms=9, asked=ASKED),
    operations.deduct("u", 5, asked=ASKED),
    operations.deduct("u", 6, asked=ASKED),
    operations.deduct("u", 5, "partial", ASKED),
    operations.deduct("u", 5, asked=Asked("key", '"description":"x"')),
    operations.deduct("u1", 5, asked=ASKED),
    operations.reserve("u", "r", 5, 9, chosen=True, asked=ASKED),
    operations.reserve("u", "s", 5, 9, chosen=True, asked=ASKED),
    operations.reserve("u", "r", 5, 9, chosen=False, asked=ASKED),
    operations.commit("r", asked=ASKED),
    operations.commit("r", 0, asked=ASKED),
    operations.commit("r", None, "reject", ASKED),
    operations.release("r", ASKED),
    operations.extend("r", 5, asked=ASKED),
    operations.extend("r", None, 5, ASKED),
    operations.void("u", "g", ASKED),
    operations.void("ug", "", ASKED),
    operations.configure("u", overdraft_limit=0, asked=ASKED),
    operations.configure("u", suspended=False, asked=ASKED),
    operations.configure("u", thresholds=(), asked=ASKED),
    operations.refund("u", "t", None, charged=9, refunded=0, draws=(), asked=ASKED),
    operations.refund("u", "t", 9, charged=9, refunded=0, draws=(), asked=ASKED),
]


def test_other_bodies_have_other_fingerprints() -> None:
    same = [(one, other) for one, other in combinations(BODIES, 2) if one[2] == other[2]]

    assert same == []
    assert all(one[2] for one in BODIES)


def test_what_we_make_up_or_look_up_is_no_part_of_the_body() -> None:
    def refund(refunded: int) -> Operation:
        return operations.refund("u", "t", 3, charged=9, refunded=refunded, draws=(("g", refunded),), asked=ASKED)

    def reserve(name: str) -> Operation:
        return operations.reserve("u", name, 5, 9, chosen=False, asked=ASKED)

    def grant(name: str) -> Operation:
        return operations.grant("u", name, 5, chosen=False, asked=ASKED)

    assert refund(0)[2] == refund(5)[2]
    assert reserve("a")[2] == reserve("b")[2]
    assert grant("a")[2] == grant("b")[2]


def test_without_a_key_there_is_nothing_to_compare() -> None:
    assert operations.deduct("u", 5)[1:4] == ("", "", "")
    assert operations.reserve("u", "r", 5, 9, chosen=True)[2] != ""
