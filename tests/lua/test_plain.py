"""The plain case in front of the full program (lua/plain): it answers and writes the same, and never without need.

METER_TEST_HISTORIES makes it longer.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from meter.clock import NEVER_MS
from meter.engine import upkeep
from meter.engine.api_keys import Terms, put_keys
from meter.engine.batcher import Mode
from meter.engine.operations import (
    UNKEYED,
    Asked,
    Operation,
    balance,
    commit,
    configure,
    deduct,
    grant,
    release,
    reserve,
)
from meter.engine.priced import commit_usage, deduct_usage, reserve_usage, reserve_usage_for_request
from meter.engine.prices import RateLine, rate_fields, usage_text
from meter.engine.programs import apply_program, lua_folder
from tests import invariants
from tests.lua.prices import CARD
from tests.partition import HOUR, MINUTE, T0, Partition, dump
from tests.servers import fake_server, real_server
from tests.test_differential import API_KEYS, ASKED_BY_KEY, Sender

PRICES = {name: RateLine({"input": 300_000, "output": 900_000, "cache_read": 1}, max_output=3) for name in CARD}
"""Rates by which a few tokens cost a few units."""
HISTORIES = int(os.environ.get("METER_TEST_HISTORIES", "4"))
FULL = apply_program(plain=False)
EACH: Mode = "each"


class Everyday(Sender):
    """Mostly what gateways ask for, on accounts that mostly have enough."""

    def _one(self) -> Operation:
        if self._chance.random() < 0.15:
            return super()._one()
        names = ("deduct", "deduct", "reserve", "reserve", "commit", "release", "balance")
        name = self._chance.choice((*names, "deduct_usage", "reserve_usage", "commit_usage"))
        made: Operation = balance(self._user()) if name == "balance" else getattr(self, f"_{name}")()
        return self._by_key(made) if name in ASKED_BY_KEY else made

    def _amount(self) -> int:
        return self._chance.choice((0, 1, 1, 7, 7, 30, 99, 2**53 - 1))

    def _asked(self) -> Asked:
        return Asked(self._chance.choice(("", "", f"k{self._chance.randrange(40)}")), super()._asked().extra)

    def stock(self) -> list[Operation]:
        """What everybody begins with."""
        ends = self._chance.choice((NEVER_MS, T0 + HOUR, T0 + 5 * HOUR))
        users = ("u", "u/1", "v")
        terms = [Terms(key.hash, user, ("spend",)).text for key, user in zip(API_KEYS, users, strict=True)]
        keys = put_keys([(key.key_id, 1, text) for key, text in zip(API_KEYS, terms, strict=True)])
        stock = [grant(user, "g0", self._chance.choice((50, 5000)), expires_at_ms=ends) for user in users]
        lines = upkeep.rates(list(rate_fields("default", 1, PRICES)))
        return [keys, lines, upkeep.activate("default", 1, "1 0"), *stock]


@pytest.mark.parametrize("kind", ["fakeredis", "redis"])
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_with_and_without_it_everything_is_the_same(redis_url: str, seed: int, kind: str) -> None:
    """Random batches on two partitions, one of which never takes the short way."""
    servers = [fake_server(), fake_server()] if kind == "fakeredis" else [real_server(redis_url), fake_server()]
    both = [Partition(server.client, window_ms=2 * HOUR, reservations_max=5, grants_max=9) for server in servers]
    both[1].program = FULL
    for one in both:
        assert one.open() == "opened"
        one.client.hset(one.keys.meta, mapping={"clock_ms": T0, "recent_since": T0})
    sender = Everyday(Random(seed))
    for number in range(1, 80):
        many, mode = sender.batch() if number % 20 != 1 else (sender.stock(), EACH)
        replies = [one.send("s", number, *many, mode=mode) for one in both]
        assert replies[0] == replies[1], many
        sender.hear(both[0], replies[0], list(many))
        assert told(both[0]) == told(both[1]), many
        again = [one.send("s", number, *many, mode=mode) for one in both] if number % 7 == 0 else ["", ""]
        assert again[0] == again[1], "a reply that was lost"
    invariants.check(both[0].client, window_ms=2 * HOUR)


def told(partition: Partition) -> dict[str, Any]:
    """All that its keys say; of what the short way writes in fewer bytes, what it says."""
    found = dump(partition.client)
    found[partition.keys.outbox] = partition.entries()
    for name in ("recent:a", "recent:b"):
        found[f"{partition.keys.prefix}:{name}"].pop(b"a s", None)  # compared when it is asked for again
    return found


@pytest.fixture
def short_way_only(tmp_path: Path) -> Path:
    """The program without what stands behind the plain case."""
    folder = tmp_path / "lua"
    shutil.copytree(lua_folder(), folder)
    (folder / "apply.lua").write_text("-- Nothing.\nerror('not plain')\n")
    return folder


def test_what_gateways_ask_for_every_day_is_plain(partition: Partition, short_way_only: Path) -> None:
    partition.batch(grant("u", "g", 100), grant("v", "g", 100))
    partition.program = apply_program(short_way_only)

    partition.batch(
        deduct("u", 1),
        deduct("v", 2, asked=Asked("k", '"description":"x"')),
        reserve("u", "r1", 5, MINUTE, chosen=True),
        reserve("u", "r2", 5, MINUTE, chosen=False, at_end="charge"),
        commit("r1", 3),
        release("r2"),
        reserve("v", "r3", 98 - 1, HOUR, chosen=False),
        commit("r3", asked=Asked("k2")),
    )

    assert partition.run(deduct("u", 91)).balances == (5, 0, 0)


def test_what_a_card_prices_every_day_is_plain(partition: Partition, short_way_only: Path) -> None:
    """And what is asked for the sake of a card that nobody made."""
    used = usage_text("gpt-4o", {"input": 10, "output": 10})  # 12 units
    partition.batch(grant("u", "g", 1000), grant("v", "g", 1000))
    kept, partition.program = partition.program, apply_program(short_way_only)
    partition.batch(
        reserve_usage("v", "r0", used, MINUTE, chosen=True, amount=5),
        reserve_usage_for_request("v", "r1", "- input=9", MINUTE, at_end="release", asked=UNKEYED, amount=5),
        commit_usage("r0", used, amount=3),
    )
    assert partition.run(deduct("v", 1)).balances == (991, 5, 0)
    partition.program = kept
    lines = rate_fields("default", 1, {"gpt-4o": RateLine({"input": 300_000, "output": 900_000})})
    partition.batch(upkeep.rates(list(lines)), upkeep.activate("default", 1, "1 0"))
    partition.program = apply_program(short_way_only)
    partition.batch(
        deduct_usage("u", used, asked=Asked("k")),
        reserve_usage("u", "h1", used, MINUTE, chosen=True, asked=Asked("k2")),
        reserve_usage("u", "h2", usage_text("gpt-4o", {"input": 10}, 10), MINUTE, chosen=False, amount=7),
        commit_usage("h1", usage_text("gpt-4o", {"input": 10}), asked=Asked("k3")),
        commit_usage("h2", usage_text(None, {"input": 10, "output": 5}), amount=7),
    )
    assert partition.run(deduct("u", 1)).balances == (1000 - 12 - 3 - 8 - 1, 0, 0)


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        ([], deduct("nobody", 1)),
        ([], deduct("u", 100)),  # the grant's last
        ([], deduct("u", 101)),
        ([], deduct("u", 0)),
        ([configure("u", suspended=True)], deduct("u", 1)),
        ([configure("u", thresholds=(50,))], deduct("u", 1)),
        ([deduct("u", 1, asked=Asked("k"))], deduct("u", 1, asked=Asked("k"))),
        ([reserve("u", "r", 1, MINUTE, chosen=True)], reserve("u", "r", 1, MINUTE, chosen=True)),
        ([reserve("u", "r", 5, MINUTE, chosen=True)], commit("r", 6)),
        ([reserve("u", "r", 1, MINUTE, chosen=True), commit("r")], commit("r")),
        ([], release("r")),
        ([grant("u", "h", 9, priority=1), reserve("u", "r", 9 + 5, MINUTE, chosen=True)], release("r")),
    ],
    ids=str,
)
def test_the_rest_is_left_to_the_full_program(
    partition: Partition, short_way_only: Path, before: list[Operation], asked: Operation
) -> None:
    partition.batch(grant("u", "g", 100), *before)
    kept, partition.program = partition.program, apply_program(short_way_only)

    with pytest.raises(Exception, match="not plain"):
        partition.run(asked)

    partition.program = kept


def test_the_full_program_goes_on_from_the_first_that_is_not_plain(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), grant("v", "g", 10))

    answers = partition.batch(
        deduct("u", 1), reserve("u", "r", 9, MINUTE, chosen=True), deduct("v", 11), deduct("u", 1), commit("r", 20)
    )

    assert [answer.status for answer in answers] == ["ok", "ok", "insufficient", "ok", "ok"]
    assert answers[-1].balances == (78, 0, 0)
    assert [entry.kind for entry in partition.entries()][2:] == ["deduct", "reserve", "deduct", "commit"]


def test_nothing_of_a_plain_beginning_stays_when_the_batch_is_undone(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100))
    before = dump(partition.client)

    answers = partition.batch(
        deduct("u", 1), reserve("u", "r", 9, MINUTE, chosen=True), deduct("u", 500), mode="atomic"
    )

    assert [answer.status for answer in answers] == ["ok", "ok", "insufficient"]
    assert dump(partition.client) == before
