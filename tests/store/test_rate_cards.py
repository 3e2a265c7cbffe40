"""Rate cards on every store: each version comes back with a rebuild, and so does what an open hold was priced by."""

from __future__ import annotations

from typing import Any

from meter.config import Settings
from meter.engine import operations, priced
from meter.engine.operations import Asked
from meter.engine.prices import usage_text
from meter.ledger.flusher import Flusher
from meter.ledger.rate_cards import APPLIED, DUE, apply_card, apply_due
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.row import Row
from meter.store.rows import ActivationRow, RateCardRow, RateCardVersionRow
from tests.partition import DAY, HOUR, MINUTE, T0, Partition
from tests.servers import fake_server

SETTINGS = Settings(redis_timeout_ms=10_000)
ASKED = usage_text("m", {"input": 1000}, 500)
USED = usage_text(None, {"input": 1000, "output": 320})


def _body(output: int) -> dict[str, Any]:
    return {"models": {"m": {"rates": {"input": 2_500_000, "output": output}}}, "minimum": 0, "per_request": 0}


def _version(number: int, output: int) -> tuple[RateCardRow, list[Row]]:
    times = {"created_at_ms": T0, "effective_at_ms": T0}
    card = RateCardRow(
        rate_card_id="default", latest=number, created_at_ms=T0, updated_at_ms=T0, version=2 * number - 1
    )
    version = RateCardVersionRow(rate_card_id="default", number=number, body=_body(output), created_at_ms=T0)
    return card, [
        ActivationRow(rate_card_id="default", number=card.version, rate_card_version=number, **times),
        version,
    ]


async def test_a_rebuild_brings_versions_holds_and_settings_back(store: Store) -> None:
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    partition.freeze()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        flusher = Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS)
        card, rows = _version(1, 10_000_000)
        assert await store.commit(Change(new=[card, *rows]))
        await apply_card(runtime.engine, store, card)
        partition.run(operations.grant("u", "g", 10**9))
        partition.run(operations.configure("u", price_multiplier="2000000"))
        for hold, ttl_ms in (("open", HOUR), ("late", MINUTE), ("done", HOUR)):
            partition.run(priced.reserve_usage("u", hold, ASKED, ttl_ms, chosen=True))
        partition.advance(MINUTE)
        done = partition.run(priced.commit_usage("done", USED, asked=Asked("k")))
        card, rows = _version(2, 20_000_000)
        assert await store.commit(Change(swaps=[card], new=rows))
        await apply_card(runtime.engine, store, card)
        before = partition.fields("rates")
        await flusher.step()
        server.client.flushall()

        await Rebuild(runtime.engine, runtime.redis, store, 36_525 * DAY).partition(0)
        partition.freeze(T0 + MINUTE)

        after = partition.fields("rates")
        assert after.pop(b"a default").split()[1:] == before.pop(b"a default").split()[1:]
        assert after == before
        assert partition.run(priced.commit_usage("done", USED)).line[2:] == done.line[2:]
        assert partition.run(priced.commit_usage("done", USED, asked=Asked("k"))).line[2:] == done.line[2:]
        assert [partition.run(priced.commit_usage(hold, USED))["charged"] for hold in ("open", "late")] == [
            11_400,
            11_400,
        ]
        assert partition.run(priced.reserve_usage("u", "new", ASKED, HOUR, chosen=False))["amount"] == 25_000
        await Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS).step()
        assert (await Reconcile(runtime.engine, runtime.redis, store).partition(0)).drifts == ()


async def test_what_was_left_half_done_is_applied_by_the_sweep(store: Store) -> None:
    """A process that dies between the store and Redis; a card that is there already is not taken back by it."""
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        card, rows = _version(1, 10_000_000)
        await store.commit(Change(new=[card, *rows]))
        assert partition.fields("rates") == {}

        assert (await apply_due(runtime.engine, store), await apply_due(runtime.engine, store)) == (1, 0)

        assert partition.fields("rates").keys() == {b"default@1 m", b"default@1", b"a default"}
        applied = await store.get(RateCardRow, "default")
        assert applied is not None
        assert (card.state, applied.state) == (DUE, APPLIED)
        newer, rows = _version(2, 20_000_000)
        await store.commit(Change(swaps=[newer], new=rows))
        await apply_card(runtime.engine, store, newer)
        await apply_card(runtime.engine, store, applied)  # late news of before
        assert partition.fields("rates")[b"a default"].split()[1] == b"2"
