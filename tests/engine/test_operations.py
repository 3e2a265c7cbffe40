"""What goes to the scripts: keys of one slot, ids that cannot break a packed text, fingerprints of bodies."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import pytest

from meter.api_key import unknown_api_key
from meter.contract.answers import Kind as KindOnTheWire
from meter.engine import api_keys, operations, priced, top_ups, upkeep
from meter.engine.answers import SUBJECT, Line
from meter.engine.at_end import NOTHING_AT_END, AtEnd, kept_at_end, read_at_end
from meter.engine.declarations import DECLARED
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import KINDS
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

    assert len(set(keys)) == 16
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
    operations.commit("r", None, "overdraft", ASKED),
    operations.commit("r", None, "overdraft", ASKED, shortfall="reject"),
    operations.release("r", ASKED),
    operations.extend("r", 5, asked=ASKED),
    operations.extend("r", None, 5, ASKED),
    operations.void("u", "g", ASKED),
    operations.void("ug", "", ASKED),
    operations.adjust("u", "", 5, ASKED),
    operations.adjust("u", "g", 5, ASKED),
    operations.adjust("u", "g", 6, ASKED),
    operations.grant("u", "g", 5, source=operations.ADJUSTMENT, asked=ASKED),
    operations.configure("u", overdraft_limit=0, asked=ASKED),
    operations.configure("u", suspended=False, asked=ASKED),
    operations.configure("u", thresholds=(), asked=ASKED),
    operations.configure("u", pool=True, asked=ASKED),
    operations.configure("u", use_pools=True, asked=ASKED),
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


_AT_END = AtEnd(7, 9, "pro", renews=True)
_GRANT = upkeep.KeptGrant("g", 1, 2, 3, 4, 5, 6, 7, "active", "api", _AT_END)
_HOLD = upkeep.KeptReservation("r", 1, 2, 3, "charge", [("g", 4), ("h", 5)], "p", "k", 6)
_DRAWS = (("g", 4), ("h", 5))

MADE: list[tuple[Operation, str]] = [
    (operations.deduct("u", 5, "partial"), "u 5 partial"),
    (
        operations.refund("u", "t", 5, charged=6, refunded=7, draws=_DRAWS, charged_at_ms=8, charged_seq=9),
        "u t 5 u 1",
    ),
    (operations.reserve("u", "r", 5, 6, chosen=True, at_end="charge"), "u r 5 6 1 charge"),
    (operations.commit("r", 5, "overdraft", shortfall="reject"), "r 5 overdraft reject"),
    (operations.release("r"), "r"),
    (operations.extend("r", 5, 6), "r 5 6"),
    (operations.reservation("r"), "r"),
    (operations.reservations("u", "c", 5), "u c 5"),
    (
        operations.grant(
            "u",
            "g",
            5,
            priority=6,
            effective_at_ms=7,
            expires_at_ms=8,
            source="s",
            at_end=AtEnd(1, 2, "p", renews=True),
            late=True,
            only="t",
        ),
        "u g 5 6 7 8 s 1 2 p 1 1 t",
    ),
    (operations.void("u", "g"), "u g"),
    (operations.adjust("u", "g", 5), "u g 5"),
    (operations.grants("u", "all", "c", 5), "u all c 5"),
    (operations.expiring("u", 5, "c", 6), "u 5 c 6"),
    (
        operations.configure(
            "u",
            overdraft_limit=5,
            suspended=True,
            thresholds=(9, 3),
            metadata="{}",
            rate_card="c",
            price_multiplier="7",
            budgets="b,-",
            rate_limits="l,-",
            pool=True,
            use_pools=False,
            velocity="v",
        ),
        "u 5 1 9,3 {} c 7 b,- l,- 1 0 v",
    ),
    (operations.balance("u"), "u"),
    (operations.explain("u", 5), "u 5"),
    (upkeep.rules("u"), "u"),
    (upkeep.calendars(["Asia/Kathmandu"]), "1"),
    (upkeep.expire("u"), "u"),
    (upkeep.lapse("u", "g", 7), "u g 7"),
    (upkeep.confirm("r"), "r"),
    (top_ups.top_up("u", "failed", "topup:1"), "u failed topup:1"),
    (upkeep.withdraw("r", 5), "r 5"),
    (upkeep.clock("set", 5), "set 5"),
    (upkeep.rotate(waits=True), "1"),
    (upkeep.flushed(5, 6, 7), "5 6 7"),
    (upkeep.state("lost", 5, "why"), "lost 5 why"),
    (
        upkeep.restore(
            "u",
            overdraft_limit=1,
            suspended=True,
            thresholds="9,3",
            debt=2,
            granted=3,
            spent=4,
            expired=5,
            voided=6,
            metadata="{}",
            rate_card="c",
            price_multiplier=7,
            rules="t",
            counters="d",
            grants=[_GRANT],
            reservations=[_HOLD, _HOLD],
        ),
        "u 1 1 9,3 2 3 4 5 6 {} c 7 t d 1 2",
    ),
    (upkeep.recall("key", "k", "f", "a"), "key k f a"),
    (
        upkeep.recall_end("r", user_id="u", state="s", amount=1, charged=2, requested=3, ended_at_ms=4, answer="a"),
        "r u s 1 2 3 4 a",
    ),
    (upkeep.anonymise("u", "p", "t"), "u p t"),
    (upkeep.forget("u", "p", 5, ["k a", "r b"]), "u p 5 2"),
    (upkeep.rates([("f", "t"), ("g", "u")]), "2"),
    (api_keys.put_keys([("key_a", 1, "t"), ("key_b", 2, "")]), "2"),
    (api_keys.change_key("u", "key_a", "issue", 1, "t"), "u key_a issue 1 t"),
    (api_keys.identify(unknown_api_key("x")), unknown_api_key("x").hash),
    (upkeep.activate("c", 5, "1 0"), "c 5 1_0"),
    (upkeep.plan_prices("u", "default", 3, "c", 1_500_000, 9), "u default 3 c 1500000 9"),
    (upkeep.plan_rules("u", "default", 3, "a,1:,day,UTC,e,c,-,- -", [5, 9]), "u default 3 a,1:,day,UTC,e,c,-,- - 5:9"),
    (priced.deduct_usage("u", "m a=1", "partial", amount=5), "u m_a=1 partial 5"),
    (priced.reserve_usage("u", "r", "m a=1", 6, chosen=True, at_end="charge", amount=5), "u r m_a=1 6 1 charge 5"),
    (priced.commit_usage("r", "- a=1", "overdraft", shortfall="reject", amount=5), "r -_a=1 overdraft reject 5"),
    (priced.quote("u", usage="m", amount=5), "u m 5"),
]


@pytest.mark.parametrize(("made", "told"), MADE, ids=[made[0] for made, _ in MADE])
def test_what_is_made_is_what_is_declared(made: Operation, told: str) -> None:
    """The names of a declaration (which the Lua head has too) stand where what makes the operation puts them."""
    declared = DECLARED[made[0]]

    asked = {name: str(declared.asks(made, name)).replace(" ", "_") for name in declared.arguments}
    assert list(asked.values()) == told.split()
    assert declared.asks(made, "colour") is None
    if not declared.several:
        assert len(made) == SUBJECT + len(declared.arguments)


def test_each_operation_is_made_above() -> None:
    assert sorted(made[0] for made, _ in MADE) == sorted(DECLARED)


def test_what_is_restored_is_as_declared() -> None:
    """Each of the lists in full, one behind the other."""
    made = next(made for made, _ in MADE if made[0] == "restore")
    rest = made[SUBJECT + len(upkeep.RESTORE.arguments) :]

    grant = dict(zip(upkeep.RESTORE.several["grants"], rest, strict=False))
    assert grant == {
        **{name: str(value) for name, value in _GRANT._asdict().items() if name != "at_end"},
        "rollover_max": "7",
        "rollover_ms": "9",
        "plan_group": "pro",
        "renews": "1",
    }
    held = dict(zip(upkeep.RESTORE.several["reservations"], rest[len(grant) :], strict=False))
    assert held == {**{name: str(value) for name, value in _HOLD._asdict().items()}, "draws": "g 4 h 5"}
    assert len(rest) == len(grant) + 2 * len(held)


def test_an_operation_with_other_arguments() -> None:
    one = operations.deduct("u", 5, asked=Asked("key", '"description":"x"'))

    assert operations.DEDUCT.asking(one, amount="7", shortfall="partial") == (*one[:4], "u", "7", "partial")


@pytest.mark.parametrize("at_end", [NOTHING_AT_END, AtEnd(0, 5), AtEnd(None, 0, "a"), _AT_END, AtEnd(1, 2, "a.b-c")])
def test_what_becomes_of_a_grant_is_read_as_it_is_kept(at_end: AtEnd) -> None:
    assert read_at_end(at_end.text) == at_end
    assert kept_at_end(*at_end.arguments) == at_end


@pytest.mark.parametrize("text", ["7", "7+", "+9", "@", "7+9 @a", "a"])
def test_what_no_script_keeps_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="not what becomes"):
        read_at_end(text)


def test_a_line_is_read_by_name() -> None:
    line = operations.DEDUCT.read("1 ok u 0-2-x-1 50 40 10 1 2 3")

    assert isinstance(line, Line) and line.ok and line.replayed
    assert (line["transaction_id"], line.units("taken"), line.balances) == ("0-2-x-1", 40, (1, 2, 3))
    refused = operations.COMMIT.read("0 finished released u 0")
    assert (refused.ok, refused.word, refused["state"], refused.balances) == (False, "finished", "released", None)
    assert refused.get("required") is None


@pytest.mark.parametrize("text", ["0 ok u 0-2-x-1 50 40 10 1 2", "0 ok u x 1 2 3 4 1 2 3", "0 strange", "0 not_found"])
def test_a_line_that_is_not_as_declared_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        operations.DEDUCT.read(text)


def test_the_kinds_of_the_wire_are_those_of_the_outbox() -> None:
    assert set(get_args(KindOnTheWire)) == set(KINDS)
