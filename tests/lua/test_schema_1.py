"""A partition that scripts of schema 1 made, with open holds, stored answers and an outbox: it goes on where it was.

schema_1.json has its keys, as the last scripts of schema 1 left them, and what they answered.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from meter.engine.operations import Asked, balance, commit, configure, deduct, grants, release
from meter.engine.outbox import read_outbox_entry
from tests import invariants
from tests.partition import HOUR, Partition, dump
from tests.servers import Server

TOLD: dict[str, Any] = json.loads(Path(__file__).with_name("schema_1.json").read_text())
USERS = tuple(TOLD["balances"])
WINDOW = 2 * HOUR


@pytest.fixture
def older(server: Server, unchecked: None) -> Partition:
    """The partition of schema 1."""
    closed = Partition(server.client, window_ms=WINDOW, sender="new")
    for key, (kind, members) in TOLD["keys"].items():
        if kind == "hash":
            closed.client.hset(key, mapping=members)
        elif kind == "zset":
            closed.client.zadd(key, {member: float(score) for member, score in members})
        else:
            for entry_id, text in members:
                closed.client.xadd(key, {"e": text}, id=entry_id)
    return closed


def opened(older: Partition) -> Partition:
    assert older.open() == "present"
    return older


def test_it_is_opened_and_nothing_but_its_schema_changes(older: Partition) -> None:
    before = dump(older.client)

    assert older.open() == "present"

    before[older.keys.meta] |= {b"schema": b"2", b"sentinels": b"4"}
    for name in ("rates", "keys", "rules", "counters", "calendar"):  # keys that there were not then
        before[f"{older.keys.prefix}:{name}"] = {b"": b""}
    assert dump(older.client) == before


def test_who_comes_first_may_be_a_rebuild(older: Partition) -> None:
    state = older.client.hmget(older.keys.meta, "epoch", "seq", "head")
    watermark = (int(state[0]) + 1, int(state[1]), state[2].decode())

    assert older.open(how="rebuild", watermark=watermark) == "opened"
    assert older.client.hget(older.keys.meta, "schema") == b"2"


def test_one_of_other_settings_is_left_alone(older: Partition) -> None:
    before = dump(older.client)

    assert older.open(decimal_places=2) == "mismatch decimal_places 6"
    assert dump(older.client) == before


def test_everybody_has_what_he_had(older: Partition) -> None:
    opened(older)

    assert {user: older.run(balance(user)).line for user in USERS} == TOLD["balances"]
    listed = {user: [list(item) for item in older.run(grants(user, "all", "", 100)).items] for user in USERS}
    assert listed == TOLD["grants"]


def test_what_was_done_is_not_done_again(older: Partition) -> None:
    opened(older)

    again = older.run(deduct("plain", 7, asked=Asked("key-1", '"description":"a thing"')))
    ended = older.run(commit("hold-3", 12, asked=Asked("key-2")))

    assert [again.line, ended.line] == ["1" + TOLD["keyed"][1:], "1" + TOLD["ended"][1:]]
    assert older.run(deduct("plain", 8, asked=Asked("key-1"))).status == "key_reused"
    assert older.refund("plain", TOLD["charge"])["amount"] == 33


def test_its_holds_end_as_they_would_have(older: Partition) -> None:
    opened(older)

    assert older.run(commit("hold-1", 60)).balances == (900, 0, 0)
    assert older.run(release("hold-4")).balances == (90, 0, 0)
    older.advance(7 * HOUR)
    charged = older.run(balance("many"))
    assert charged["spent"] == 132 + 450
    assert older.run(balance("rolling")).balances == (50, 0, 0), "what rolls over of it"


def test_an_account_is_of_schema_2_as_soon_as_it_changes(older: Partition) -> None:
    """The checker reads schema 2 alone; entries of schema 1 it would refuse too, so they are flushed and gone."""
    opened(older)
    older.batch(*(configure(user, overdraft_limit=500) for user in USERS))
    first = int(older.client.hget(older.keys.meta, "seq")) - len(USERS) + 1
    older.client.hset(older.keys.meta, "flushed", first - 1)
    older.client.xtrim(older.keys.outbox, minid=f"{first}-0", approximate=False)

    invariants.check(older.client, window_ms=WINDOW)
    assert older.run(deduct("plain", 5)).balances == (855, 100, 0)
    invariants.check(older.client, window_ms=WINDOW)


def test_its_outbox_goes_on_in_one_chain(older: Partition) -> None:
    opened(older)
    older.batch(deduct("plain", 1), deduct("many", 1))

    entries = older.entries()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert all(entry.prev == before.transaction_id for before, entry in pairwise(entries))
    (last,) = older.client.xrevrange(older.keys.outbox, count=1)
    assert len(read_outbox_entry(len(entries), last[1][b"e"], 0)) == 2


def test_a_sender_that_knows_its_history_finds_it(older: Partition) -> None:
    """The last that it was told of is in an entry of schema 1, and others have gone on since."""
    opened(older)
    known = older.entries()[10]
    place = (known.epoch, known.seq, known.transaction_id)
    older.run(deduct("plain", 1))

    assert older.send("x", 1, deduct("plain", 1), known=place).startswith("done\n")
    older.batch(deduct("plain", 1), deduct("plain", 1), deduct("plain", 1))
    for known in older.entries()[-3:]:
        place = (known.epoch, known.seq, known.transaction_id)
        assert older.send("x", known.seq, deduct("plain", 1), known=place).startswith("done\n")
    other = (known.epoch, known.seq, "0-1-other-1")
    assert older.send("x", 999, deduct("plain", 1), known=other).startswith("refused lost behind")


def test_what_was_spent_stays_though_a_grant_was_missing_from_the_sums(older: Partition) -> None:
    """An account that a rebuild had made from a store with a quarantine: granted is too small for what was spent."""
    text = older.client.hget(older.keys.accounts, "plain").decode().split(" ")
    assert (text[3], text[5]) == ("1000", "40")
    text[3] = "0"
    older.client.hset(older.keys.accounts, "plain", " ".join(text))
    opened(older)

    assert older.run(balance("plain")).line == TOLD["balances"]["plain"]
