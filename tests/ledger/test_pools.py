"""What pools pay and hold, in the ledger: rows add up, a rebuild brings back holds and parts, levels are proved."""

from __future__ import annotations

from random import Random

import pytest

from meter.engine.operations import (
    Asked,
    Operation,
    commit,
    configure,
    deduct,
    extend,
    grant,
    refund_rows,
    release,
    reserve,
)
from meter.engine.outbox import CHARGES
from meter.engine.refunds import Charged
from meter.engine.upkeep import expire
from meter.ledger.history import History, charged_rows
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.ledger.recount import Counted, recount
from meter.ledger.tail import Tail
from tests import invariants
from tests.ledger.ground import Ground
from tests.lua.levels import budget
from tests.partition import DAY, HOUR, T0, dump

KEPT = ("accounts", "grants", "holds", "agenda", "rules", "counters")
ONLY = ("", "", "", "f:a", "f:*", "f:b,m:1")
TAGS = ("", "f:a", "f:b,x", "m:1")
LEAVES = ("t", "t/r", "t/r/a", "t/r/b", "t/c", "t/d")


async def settled(ground: Ground) -> None:
    """Redis keeps its own sums, the store is what Redis is, and what levels count is what rows add up to."""
    ground.partition.batch(*(expire(user) for user in LEAVES))
    invariants.check(ground.client, window_ms=DAY)
    await ground.drain()
    await ground.check()
    for row in (await ground.store.accounts(list(LEAVES))).values():
        if row.rules is not None:
            assert Counted.of(row) == await recount(ground.store, row), row.user_id


async def rebuilt(ground: Ground) -> None:
    """What Redis keeps is as before it was lost, but for the texts of grants that nothing is left of."""
    await ground.drain()
    now = int(ground.client.hget(ground.partition.keys.meta, "clock_ms"))
    before = dump(ground.client)
    ground.lose_everything()
    report = await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)
    assert report.lost == []
    after = dump(ground.client)
    for name in ("holds", "rules", "counters"):
        key = f"meter:{{p0}}:{name}"
        assert after[key] == before[key], name
    ground.partition.freeze(now)


async def test_a_rebuild_brings_back_holds_and_their_parts(ground: Ground) -> None:
    ground.partition.freeze(T0)
    ground.partition.batch(grant("t", "g", 100), grant("t/r/a", "g", 5), grant("t/r", "g", 10))
    ground.partition.batch(configure("t", pool=True), configure("t/r", pool=True, use_pools=True), budget("t/r/a", 50))
    ground.partition.batch(
        reserve("t/r/a", "one", 20, HOUR, chosen=True), reserve("t/r/b", "two", 3, HOUR, chosen=True)
    )
    ground.partition.batch(reserve("t/r/b", "three", 9, HOUR, chosen=True, at_end="charge"))
    await rebuilt(ground)
    await settled(ground)
    assert ground.run(commit("one", 12)).balances == (0, 0, 0)
    assert ground.run(release("two")).balances == (0, 0, 0)
    ground.partition.freeze(T0 + HOUR)
    assert ground.run(deduct("t", 0)).balances == (91, 0, 0), "t/r had 10 for one; three found none there"
    await settled(ground)
    assert (await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)).drifts == ()


async def charges(ground: Ground) -> list[str]:
    return [entry.transaction_id for entry in ground.partition.entries() if entry.kind in CHARGES and entry.amount]


async def refund_of(ground: Ground, transaction_id: str, amount: int | None) -> Operation:
    history = History(Tail(ground.engine, ground.gateway, ground.store), ground.store)
    _, seq, _, _ = transaction_id.split("-")
    row = await history.transaction(transaction_id, 0, int(seq))
    assert row is not None
    rows = await history.all_of(row)
    return refund_rows(
        row.user_id, transaction_id, amount, charges=await charged_rows(rows, ground.store), path=rows[0].user_id
    )


@pytest.mark.parametrize("seed", range(12))
async def test_random_trees_add_up(ground: Ground, seed: int) -> None:
    """Grants that end or are for some things only, holds that end or are charged at their end, edits of pools, debt,
    refunds, rebuilds.
    """
    random, now, holds = Random(seed), T0, 0
    ground.partition.freeze(now)
    ground.partition.batch(
        configure("t", pool=True), configure("t/r", pool=True), budget("t", 10**6), budget("t/r/a", 10**6)
    )
    for step in range(120):
        user = random.choice(LEAVES)
        what = random.randrange(12)
        one: Operation | None = None
        tags = Asked(tags=random.choice(TAGS))
        if what <= 1:
            ends = now + random.choice((HOUR, DAY, 9 * DAY))
            only, priority = random.choice(ONLY), random.choice((9, 10))
            one = grant(user, f"g{step}", random.randrange(1, 50), expires_at_ms=ends, only=only, priority=priority)
        elif what <= 3:
            one = deduct(user, random.randrange(1, 60), random.choice(("reject", "partial", "overdraft", "owed")), tags)
        elif what <= 5:
            holds += 1
            at_end = random.choice(("release", "charge"))
            span = random.randrange(1, 3) * HOUR
            one = reserve(user, f"r{holds}", random.randrange(60), span, chosen=True, at_end=at_end, asked=tags)
        elif what == 6:
            over = random.choice(("cap", "reject", "overdraft", "hold_only"))
            one = commit(f"r{random.randrange(holds + 1)}", random.choice((None, random.randrange(80))), over)
        elif what == 7:
            one = release(f"r{random.randrange(holds + 1)}")
        elif what == 8:
            one = extend(f"r{random.randrange(holds + 1)}", random.choice((None, HOUR)), random.randrange(20))
        elif what == 9:
            pool, uses = random.random() < 0.7, random.random() < 0.8
            one = configure(user, pool=pool, use_pools=uses, overdraft_limit=random.randrange(30))
        elif what == 10 and (found := await charges(ground)):
            one = await refund_of(ground, random.choice(found), random.choice((None, random.randrange(1, 30))))
        elif what == 11:
            now += random.randrange(1, HOUR)
            ground.partition.freeze(now)
        if one is not None:
            ground.partition.run(one)
        invariants.check(ground.client, window_ms=DAY)
        if step % 40 == 39:
            await settled(ground)
            await rebuilt(ground)
    await settled(ground)
    assert (await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)).drifts == ()


def test_a_charge_of_one_row_is_what_it_was() -> None:
    row = Charged("u", "0-1-a-1", 5, (("g", 5),), 1, 2, 3)
    assert refund_rows("u", "0-1-a-1", None, charges=[row], path="u")[7:9] == ("u", "1")
