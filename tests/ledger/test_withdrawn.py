"""X4: holds that were taken back, in the ledger and after a rebuild: nothing remembers them, and nothing is missing."""

from __future__ import annotations

import pytest

from meter.engine.operations import (
    UNKEYED,
    Asked,
    Operation,
    balance,
    commit,
    deduct,
    grant,
    refund,
    release,
    reservation,
    reserve_for_request,
)
from meter.engine.upkeep import WITHDRAWN, withdraw, withdrawal_key, withdrawn_by
from meter.ledger.chain import Known
from meter.ledger.rebuild import Rebuild
from tests.ledger.folding import fold
from tests.ledger.ground import Ground
from tests.ledger.test_rebase import done_again
from tests.partition import DAY, MINUTE, T0, Partition


def asking(name: str) -> Operation:
    return reserve_for_request("u", name, 30, MINUTE, at_end="confirm", asked=UNKEYED)


def story(partition: Partition) -> None:
    """a: taken back and asked for anew; b: taken back; c: released, as its request failed; d: open, not confirmed."""
    partition.run(grant("u", "g", 1000))
    for name in "abcd":
        partition.run(asking(name))
    partition.run(withdraw("a", None))
    partition.run(withdraw("b", None))
    partition.run(release("c"))
    partition.run(asking("a"))
    partition.run(commit("a", 7))


def test_the_rows_are_those_of_the_last_asking(partition: Partition) -> None:
    story(partition)
    known = Known()

    flush = fold(0, None, partition.entries(), known, T0)

    states = {name: (row.state, row.charged, row.answer is None) for name, row in known.reservations.items()}
    assert states == {
        "a": ("committed", 7, False),
        "b": ("released", 0, True),
        "c": ("released", 0, False),
        "d": ("open", 0, True),
    }
    assert flush.operations == []
    account = known.accounts["u"]
    assert (account.available, account.reserved, account.spent) == (963, 30, 7)


async def test_a_rebuild_remembers_none_that_was_taken_back(live: Ground) -> None:
    story(live.partition)
    await live.drain()
    live.lose_everything()

    await Rebuild(live.engine, live.gateway, live.store, DAY).partition(0)

    assert live.partition.run(reservation("b")).status == "not_found"
    again = live.partition.run(asking("b"))
    assert (again.status, again.replayed) == ("ok", False)
    finished = [live.partition.run(asking(name)) for name in "ac"]
    assert [(answer.status, answer["state"]) for answer in finished] == [
        ("finished", "committed"),
        ("finished", "released"),
    ]
    assert live.partition.run(asking("d")).replayed


async def test_a_rebuild_of_what_only_redis_had_remembers_the_same(live: Ground) -> None:
    story(live.partition)
    entries = live.partition.entries()

    await Rebuild(live.engine, live.gateway, live.store, DAY).partition(0)

    assert [row.transaction_id for row in await live.transactions()] == [entry.transaction_id for entry in entries]
    assert live.partition.run(reservation("b")).status == "not_found"
    assert live.partition.run(asking("c"))["state"] == "released"


@pytest.mark.parametrize("flushed", [True, False])
async def test_x4_a_rebuild_knows_which_charges_were_taken_back(live: Ground, *, flushed: bool) -> None:
    """Whoever asks again under the key of one is not told that it was charged."""
    live.partition.run(grant("u", "g", 1000))
    charge = deduct("u", 30, asked=Asked("authorize one", '"reference":"one"'))
    made = live.partition.run(charge)
    name = withdrawal_key(charge, made["transaction_id"])
    mark = withdrawn_by(name)
    assert mark is not None
    draws = (("g", 30),)
    back = refund("u", made["transaction_id"], None, charged=30, refunded=0, draws=draws, asked=Asked(name))
    live.partition.batch(back, mark)
    before = live.partition.send("before", 1, charge)
    if flushed:
        await live.drain()
        live.lose_everything()

    await Rebuild(live.engine, live.gateway, live.store, DAY).partition(0)

    again = live.partition.send("after", 1, charge)
    assert before == again == f"done\n1 {WITHDRAWN}"
    assert live.partition.run(deduct("u", 31, asked=Asked("authorize one"))).status == "key_reused"
    assert live.partition.run(balance("u")).balances == (1000, 0, 0)


def test_x4_only_the_refund_of_what_was_taken_back_names_a_key() -> None:
    assert withdrawn_by(withdrawal_key(deduct("u", 30), "0-1-a-1")) is None, "a charge without a key"
    assert withdrawn_by("authorize one") is None


def test_what_was_taken_back_is_done_again_as_it_was(partition: Partition) -> None:
    story(partition)

    assert len(done_again(partition.entries())) == len(partition.entries())
