"""A hold that is charged at its end stays one in the store, and through a rebuild."""

from __future__ import annotations

from meter.engine.operations import grant, reserve
from meter.engine.upkeep import expire
from meter.ledger.chain import Known
from meter.ledger.restoring import restore_operation
from tests.ledger.folding import fold
from tests.partition import MINUTE, T0, Partition


def open_hold(partition: Partition) -> Known:
    partition.run(grant("u", "g", 100))
    partition.run(reserve("u", "r", 30, MINUTE, chosen=True, at_end="charge"))
    partition.run(reserve("u", "s", 20, MINUTE, chosen=True))
    known = Known()
    fold(0, None, partition.entries(), known, T0)
    return known


def test_the_store_knows_what_becomes_of_a_hold(partition: Partition) -> None:
    reservations = open_hold(partition).reservations

    assert (reservations["r"].at_end, reservations["s"].at_end) == ("charge", "release")


def test_the_charge_at_the_end_is_a_commit_of_the_ledger(partition: Partition) -> None:
    open_hold(partition)
    partition.advance(2 * MINUTE)
    partition.run(expire("u"))
    known = Known()

    fold(0, None, partition.entries(), known, T0)

    row = known.reservations["r"]
    assert (row.state, row.charged, row.requested, row.ended_at_ms) == ("committed", 30, 30, T0 + MINUTE)
    assert known.reservations["s"].state == "expired"
    account = known.accounts["u"]
    assert (account.available, account.reserved, account.spent) == (70, 0, 30)


def test_a_rebuild_puts_the_hold_back_as_it_was(partition: Partition, unchecked: None) -> None:
    known = open_hold(partition)
    holds = partition.client.hgetall(partition.keys.holds)
    account = known.accounts["u"]

    partition.batch(
        restore_operation(account, [known.grants["u", "g"]], list(known.reservations.values())), mode="repair"
    )

    assert partition.client.hgetall(partition.keys.holds) == holds
    assert holds[b"r"].split(b" ")[3].endswith(b"c")
