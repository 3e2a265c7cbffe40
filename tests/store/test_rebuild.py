"""X1 on every store: what only Redis had goes into the ledger as what it was, and Redis is made again from it."""

from __future__ import annotations

import pytest

from meter.config import Settings
from meter.engine import operations
from meter.engine.operations import Asked
from meter.ledger.flusher import Flusher
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.runtime import Runtime
from meter.store.base import Store
from tests.partition import DAY, HOUR, Partition
from tests.servers import fake_server

SETTINGS = Settings(redis_timeout_ms=10_000)


@pytest.mark.parametrize("forked", [False, True])
async def test_what_only_redis_had_keeps_its_identity(store: Store, forked: bool) -> None:
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        flusher = Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS)
        partition.run(operations.grant("u", "g", 100))
        await flusher.step()
        if forked:
            copy = {key: server.client.dump(key) for key in server.client.keys("*")}
            partition.run(operations.configure("u", overdraft_limit=5))
            await flusher.step()
            server.client.flushall()
            for key, text in copy.items():
                server.client.restore(key, 0, text)
            partition.sender = "after"
        one = operations.deduct("u", 40, asked=Asked("key", '"description":"image","metadata":{"n":[1,null]}'))
        answers = [
            partition.run(one),
            partition.run(operations.reserve("u", "h", 20, HOUR, chosen=True)),
            partition.run(operations.extend("h", HOUR, 5)),
            partition.run(operations.commit("h", 23)),
        ]
        charge = answers[0]["transaction_id"]
        partition.refund("u", charge, 30)
        made = {entry.transaction_id: entry for entry in partition.entries()[1:]}

        for _ in range(2):
            report = await Rebuild(runtime.engine, runtime.redis, store, DAY).partition(0)

            assert report.lost == []
            rows = {row.transaction_id: row for row in await store.history("u", limit=100)}
            for transaction_id, entry in made.items():
                row = rows[transaction_id]
                assert (row.kind, row.amount, row.created_at_ms) == (entry.kind, entry.amount, entry.created_at_ms)
            assert (rows[charge].description, rows[charge].metadata) == ("image", {"n": [1, None]})
            assert (await store.refunded(charge), await store.history("u", kinds=("grant",), limit=9)) == (
                *(30, [rows[min(rows, key=lambda name: rows[name].seq)]]),
            )
            assert partition.run(one).line == "1" + answers[0].line[1:]
            assert partition.run(operations.commit("h", 23)).line == "1" + answers[3].line[1:]
            assert partition.run(operations.balance("u")).balances == (67, 0, 0)
        report_of = Reconcile(runtime.engine, runtime.redis, store)
        assert (await report_of.partition(0)).drifts == ()
    server.client.close()
