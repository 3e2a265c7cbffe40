"""The reconciliation: no drift where there is none, each planted one, and accounts that do not stand still."""

from __future__ import annotations

import asyncio

import pytest

from meter.engine import operations
from meter.ledger import reconcile
from meter.ledger.reconcile import Reconcile, ReconcileReport, ReconcileStalled
from tests.ledger.ground import Ground
from tests.ledger.story import tell
from tests.partition import T0


async def compared(ground: Ground) -> ReconcileReport:
    return await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)


async def test_without_drift_there_is_none(ground: Ground) -> None:
    tell(ground.partition, T0)
    await ground.drain()
    report = await compared(ground)
    assert (report.accounts, report.drifts, report.unsettled) == (4, (), ())


async def test_an_empty_deployment_has_no_drift(ground: Ground) -> None:
    assert (await compared(ground)).accounts == 0


@pytest.mark.parametrize(("name", "at"), [("available", 0), ("reserved", 1), ("debt", 8)])
async def test_a_planted_drift_is_found_and_named(ground: Ground, name: str, at: int, unchecked: None) -> None:
    tell(ground.partition, T0)
    await ground.drain()
    fields = ground.client.hget(ground.partition.keys.accounts, "v").decode().split(" ")
    fields[at] = str(int(fields[at]) + 1)
    ground.client.hset(ground.partition.keys.accounts, "v", " ".join(fields))
    (drift,) = (await compared(ground)).drifts
    assert (drift.user_id, drift.members) == ("v", [name, "spent"])  # which is what the others leave
    assert getattr(drift.redis, name) == getattr(drift.store, name) + 1


async def test_an_account_on_one_side_only_is_a_drift(ground: Ground, unchecked: None) -> None:
    tell(ground.partition, T0)
    await ground.drain()
    ground.client.hset(ground.partition.keys.accounts, "x", "5 0 0 0 0 0 - * 0 - 5 0 0 0 0 0 ")
    ground.client.hdel(ground.partition.keys.accounts, "w")
    found = {drift.user_id: drift.members for drift in (await compared(ground)).drifts}
    assert found == {"x": ["available", "granted"]}  # w never had anything
    ground.client.hdel(ground.partition.keys.accounts, "v")
    assert {drift.user_id for drift in (await compared(ground)).drifts} == {"v", "x"}


async def test_accounts_that_move_are_compared_when_they_stand_still(ground: Ground) -> None:
    """A worker flushes and users spend meanwhile; no account is told to differ."""
    tell(ground.partition, T0)
    flusher, stop = ground.flusher(), asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await flusher.step()
            await asyncio.sleep(0)

    async def spend() -> None:
        for _ in range(60):
            await ground.ask("u", operations.deduct("u", 1))
            await ground.ask("z", operations.grant("z", f"g{_}", 1))
            await asyncio.sleep(0)

    worker, spender = asyncio.create_task(work()), asyncio.create_task(spend())
    for _ in range(3):
        assert (await compared(ground)).drifts == ()
    await spender
    report = await compared(ground)
    stop.set()
    await worker
    assert (report.accounts, report.drifts, report.unsettled) == (4, (), ())


async def test_a_store_that_nobody_flushes_to_is_told(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "CATCH_UP_SECONDS", 0.05)
    tell(ground.partition, T0)
    with pytest.raises(ReconcileStalled, match="is a worker running"):
        await compared(ground)
