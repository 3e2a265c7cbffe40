"""What is done again does what it did: on an account that nothing else happened to, exactly; else as far as it goes."""

from __future__ import annotations

import os
import random

import pytest

from meter.engine import operations
from meter.engine.api_keys import change_key
from meter.engine.outbox import Entry, Kind
from meter.ledger.books import Charge
from meter.ledger.chain import Known
from meter.ledger.fold import Fold
from meter.ledger.rebase import Rebase
from tests.ledger.ground import Ground
from tests.ledger.story import tell
from tests.ledger.test_property import USERS, Traffic
from tests.partition import DAY, MINUTE, T0, Partition

SEEDS = int(os.environ.get("METER_TEST_REBASE_SEEDS", "12"))


def done_again(entries: list[Entry]) -> list[Entry]:
    """Every entry done again on the rows that the ones before it made."""
    known = Known()
    fold, rebase = Fold(0, None, known, 0), Rebase(known)
    found = []
    for entry in entries:
        assert rebase.owed_before(entry) == [], entry
        assert isinstance(entry.kind, Kind)
        again = rebase.again(entry, entry.kind)
        assert again.lost == "" and again.entry is not None, (entry, again)
        assert again.entry == entry
        fold.take([again.entry])
        rebase.note(again.entry)
        found.append(again.entry)
    assert rebase.owed_at_the_end() == []
    return found


def test_every_kind_is_done_again_exactly(partition: Partition) -> None:
    tell(partition, T0)
    partition.run(change_key("w", "key_a", "issue", 1, "t"))
    partition.freeze(T0 + 2 * DAY)
    partition.run(operations.balance("u"))
    entries = partition.entries()
    assert len(done_again(entries)) == len(entries)
    assert {entry.kind for entry in entries} == set(Kind)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_rules_are_those_of_the_scripts(ground: Ground, seed: int) -> None:
    """Random accounts with debts, forfeits, rollovers, late commits and refunds: the two never differ."""
    lot = random.Random(seed)
    traffic = Traffic(ground, lot)
    for user in USERS[:2]:
        ground.run(operations.configure(user, overdraft_limit=100))
    for _ in range(200):
        traffic.one()
        if lot.random() < 0.1:
            ground.partition.advance(lot.randrange(2 * MINUTE))
    entries = ground.partition.entries()
    assert len(done_again(entries)) == len(entries)


def test_a_refund_covers_the_debt_first_and_then_the_newest_draw() -> None:
    """As lua/operations/refund.lua does."""
    charge = Charge(100, (("old", 40), ("new", 30)))
    assert charge.parts(50) == ([("new", 20), ("old", 0)], 30)
    charge.refunded = 50
    assert charge.parts(50) == ([("new", 10), ("old", 40)], 0)
