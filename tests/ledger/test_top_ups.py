"""Requests of auto top-up in the ledger: flushed with the entry that asked, back after a loss, compared."""

from __future__ import annotations

from meter.engine.operations import deduct, grant
from meter.engine.top_ups import Terms, top_up
from meter.ledger.anonymise import Anonymiser
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.store.base import Flush
from meter.store.top_up_rows import TopUpRow
from tests.ledger.ground import Ground
from tests.partition import DAY, T0

TERMS = Terms(below=50, amount=200, most=600, period="month", reference="cus_1")


async def requests(ground: Ground) -> list[TopUpRow]:
    return await ground.store.find(TopUpRow, {"user_id": "u"}, order_by="created_at_ms", limit=10)


def cross(ground: Ground) -> str:
    """Two crossings' worth of charges, of which one asks; the transaction that did."""
    ground.partition.batch(grant("u", "g", 100), top_up("u", "set", TERMS.text))
    ground.run(deduct("u", 60))
    ground.run(deduct("u", 10))
    return ground.partition.entries()[-2].transaction_id


async def test_a_crossing_becomes_one_request_and_its_row_names_no_payer(ground: Ground) -> None:
    asked_by = cross(ground)
    await ground.drain()

    expected = TopUpRow(top_up_id=f"topup:{asked_by}", user_id="u", **TERMS._asdict(), created_at_ms=T0)
    assert await requests(ground) == [expected.model_copy(update={"next_attempt_at_ms": T0})]
    (account,) = (await ground.store.accounts(["u"])).values()
    assert account.top_up == f"w,{TERMS.text},topup:{asked_by}"
    rows = await ground.store.history("u", limit=10)
    assert "cus_1" not in repr(rows)
    assert [row.detail["top_up"] for row in rows if isinstance(row.detail, dict) and "top_up" in row.detail] == [
        {"state": "waiting", "top_up_id": f"topup:{asked_by}"},
        {"state": "on", "top_up_id": None},
    ]


async def test_the_store_alone_brings_it_back(ground: Ground) -> None:
    asked_by = cross(ground)
    await ground.drain()
    ground.lose_everything()

    report = await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)

    assert report.lost == []
    assert ground.run(top_up("u"))["top_up"] == f"w,{TERMS.text},topup:{asked_by}"
    ground.run(grant("u", f"topup:{asked_by}", 200))
    assert ground.run(top_up("u"))["top_up"] == f"a,{TERMS.text}"


async def test_what_only_redis_has_is_asked_for_once(ground: Ground) -> None:
    asked_by = cross(ground)  # and nothing is flushed

    await Rebuild(ground.engine, ground.gateway, ground.store, DAY).partition(0)

    assert [row.top_up_id for row in await requests(ground)] == [f"topup:{asked_by}"]
    ground.run(deduct("u", 10))
    await ground.drain()
    assert len(await requests(ground)) == 1


async def test_the_reconciliation_compares_it(ground: Ground, unchecked: None) -> None:
    cross(ground)
    await ground.drain()
    reconcile = Reconcile(ground.engine, ground.gateway, ground.store)
    assert (await reconcile.partition(0)).drifts == ()

    (account,) = (await ground.store.accounts(["u"])).values()
    mark = await ground.store.watermark(0)
    assert mark is not None
    planted = account.model_copy(update={"top_up": None})
    await ground.store.apply(Flush(0, mark, mark.model_copy(update={"updated_at_ms": 1}), accounts=[planted]))

    (drift,) = (await reconcile.partition(0)).drifts
    assert (drift.user_id, drift.members, drift.store.top_up) == ("u", ["top_up"], "")


async def test_who_buys_is_not_anonymised_meanwhile(ground: Ground) -> None:
    cross(ground)
    ground.run(deduct("u", 30))
    await ground.drain()

    assert (await Anonymiser(ground.engine, ground.gateway, ground.store).run("u")).state == "busy"
