"""What levels have counted: kept by the flush, brought back by a rebuild, proved by the reconciliation."""

from __future__ import annotations

from typing import Any

from meter.engine.operations import commit, configure, deduct, grant, refund, reserve
from meter.engine.upkeep import rules
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from tests.ledger.ground import Ground
from tests.lua.levels import budget, none
from tests.partition import DAY, HOUR, T0, dump


def kept(ground: Ground) -> dict[str, Any]:
    """What Redis keeps of rules, of what they count and of holds."""
    return {name: dump(ground.client)[f"meter:{{p0}}:{name}"] for name in ("rules", "counters", "holds", "calendar")}


async def rebuilt(ground: Ground) -> None:
    await ground.drain()
    before = kept(ground)
    ground.lose_everything()
    report = await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)
    assert report.lost == []
    after = kept(ground)
    assert {name: after[name] for name in ("rules", "counters", "holds")} == {
        name: before[name] for name in ("rules", "counters", "holds")
    }


async def test_h30_rebuild(ground: Ground) -> None:
    """What a budget has used and reserved is as before, and so is what it refuses."""
    ground.partition.freeze(T0)
    ground.partition.batch(
        grant("u", "g", 100), budget("u", 10), deduct("u", 6), reserve("u", "r", 3, HOUR, chosen=True)
    )
    await rebuilt(ground)
    ground.partition.freeze(T0)
    assert ground.run(rules("u"))["charged"] == 6
    assert ground.partition.run(deduct("u", 2)).status == "budget_reached"
    assert ground.partition.run(deduct("u", 1)).status == "ok"
    assert ground.run(commit("r", 3)).balances == (90, 0, 0)
    assert (ground.run(rules("u"))["charged"], ground.run(rules("u"))["held"]) == (10, 0)
    await ground.drain()
    assert (await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)).drifts == ()


async def test_levels_windows_zones_and_suspensions_come_back(ground: Ground) -> None:
    ground.partition.freeze(T0)
    ground.partition.batch(grant("t/a", "g", 100), reserve("t/a", "old", 2, 9 * DAY, chosen=True))
    ground.partition.batch(budget("t", 50), budget("t/a", 40, "hour"), configure("s", suspended=True))
    ground.partition.batch(deduct("t/a", 7), reserve("t/a", "new", 5, 9 * DAY, chosen=True))
    ground.partition.freeze(T0 + DAY)
    ground.partition.batch(deduct("t/a", 1), budget("t/b", 3), none("t/b"))
    await rebuilt(ground)
    ground.partition.freeze(T0 + DAY)
    assert (ground.run(rules("t"))["held"], ground.run(rules("t"))["holds"]) == (5, 1)
    assert ground.partition.run(deduct("s/x", 1)).status == "suspended"


async def test_the_ledger_keeps_no_counters_in_its_rows(ground: Ground) -> None:
    ground.partition.batch(grant("u", "g", 100), budget("u", 50), deduct("u", 7))
    charge = ground.partition.entries()[-1]
    draws = tuple((draw.grant_id, draw.amount) for draw in charge.draws)
    one = refund("u", charge.transaction_id, 3, charged=7, refunded=0, draws=draws)
    ground.run((*one[:-2], str(charge.created_at_ms), str(charge.seq)))
    await ground.drain()
    assert [row.detail for row in await ground.transactions() if "counters" in (row.detail or {})] == []  # type: ignore[operator]
    [account] = (await ground.store.accounts(["u"])).values()
    assert account.counters == "4 0 0 1"
