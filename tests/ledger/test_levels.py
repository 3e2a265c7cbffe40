"""What levels have counted: kept by the flush, brought back by a rebuild, proved by the reconciliation."""

from __future__ import annotations

from typing import Any

from meter.engine.operations import commit, configure, deduct, grant, refund, reserve
from meter.engine.upkeep import rules
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.ledger.recount import Counted, recount
from meter.store.base import Flush
from meter.store.rows import AlertRow
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


async def test_a_breaker_comes_back_as_it_was_tripped(ground: Ground) -> None:
    ground.partition.freeze(T0)
    ground.partition.batch(
        grant("u", "g", 100), configure("u", velocity=f"10,{HOUR},s,{2 * HOUR}"), deduct("u", 9), deduct("u", 9)
    )
    await ground.drain()
    ground.lose_everything()
    await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)
    ground.partition.freeze(T0 + 2 * HOUR - 1)
    assert ground.partition.run(deduct("u", 1)).status == "suspended"
    [alert] = [
        one
        for one in await ground.store.find(AlertRow, {}, order_by="alert_id", limit=9)
        if one.kind == "velocity_tripped"
    ]
    told = alert.payload
    assert isinstance(told, dict) and (alert.user_id, told["action"], told["used"]) == ("u", "suspend", 18)
    ground.partition.freeze(T0 + 2 * HOUR)
    assert ground.partition.run(deduct("u", 9)).status == "ok", "its bucket is empty"
    await ground.drain()
    assert (await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)).drifts == ()


async def drifts(ground: Ground) -> list[tuple[str, list[str]]]:
    report = await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)
    assert report.unsettled == ()
    return [(drift.user_id, drift.members) for drift in report.drifts]


async def test_the_reconciliation_proves_what_levels_counted(ground: Ground) -> None:
    """By the transactions alone: windows, refunds, holds of before and after a level counts."""
    ground.partition.freeze(T0)
    ground.partition.batch(grant("t/a", "g", 100), reserve("t/a", "old", 2, 9 * DAY, chosen=True), deduct("t/a", 1))
    ground.partition.batch(budget("t", 50), budget("t/a", 40, "hour"), deduct("t/a", 7))
    first = ground.partition.entries()[-1]
    ground.partition.batch(reserve("t/a", "new", 5, 9 * DAY, chosen=True), reserve("t/a", "gone", 5, HOUR, chosen=True))
    ground.partition.freeze(T0 + DAY)
    ground.partition.batch(deduct("t/a", 3), commit("old", 2))
    draws = tuple((draw.grant_id, draw.amount) for draw in first.draws)
    one = refund("t/a", first.transaction_id, 4, charged=7, refunded=0, draws=draws)
    ground.run((*one[:-2], str(first.created_at_ms), str(first.seq)))
    await ground.drain()
    assert await drifts(ground) == []
    [row] = (await ground.store.accounts(["t"])).values()
    assert Counted.of(row) == await recount(ground.store, row) == Counted(8, 5, 1, {"b": 5})


async def test_a_planted_drift_of_a_level_is_found(ground: Ground, unchecked: None) -> None:
    ground.partition.batch(grant("u", "g", 100), budget("u", 50), deduct("u", 7))
    await ground.drain()
    ground.client.hset(ground.partition.keys.counters, "u", "8 0 0 1")
    assert await drifts(ground) == [("u", ["charged", "used"])]
    watermark = await ground.store.watermark(0)
    assert watermark is not None
    rows = [row.model_copy(update={"counters": "8 0 0 1"}) for row in (await ground.store.accounts(["u"])).values()]
    later = watermark.model_copy(update={"updated_at_ms": 1})
    assert (await ground.store.apply(Flush(0, watermark, later, accounts=rows))).done
    assert await drifts(ground) == [("u", ["charged", "used"])], "the store and its transactions"


async def test_two_histories_of_a_level_are_added_up(ground: Ground) -> None:
    """What only Redis had is booked, and counted with what the store went on with."""
    ground.partition.batch(grant("t/a", "g", 100), grant("t/b", "g", 100), budget("t", 50), deduct("t/a", 7))
    await ground.drain()
    copy = {key: ground.client.dump(key) for key in ground.client.keys("meter:*")}
    ground.partition.batch(deduct("t/a", 5), reserve("t/a", "r", 2, 9 * DAY, chosen=True))
    await ground.drain()
    for key, text in copy.items():
        ground.client.restore(key, 0, text, replace=True)
    ground.partition.sender, ground.partition.batch_number = "other", 0
    ground.partition.told = (0, 0, "-")
    ground.partition.batch(deduct("t/b", 11))
    report = await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)
    assert report.reapplied == 1
    assert [ground.run(rules("t"))[name] for name in ("charged", "held", "holds")] == [23, 2, 1]
    await ground.drain()
    assert await drifts(ground) == []


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
