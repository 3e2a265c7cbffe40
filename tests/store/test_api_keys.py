"""API keys on every store: they work after a rebuild, before the partition opens, and one that was revoked does not."""

from __future__ import annotations

from meter.api_key import ApiKey, new_api_key
from meter.config import Settings
from meter.engine import operations
from meter.engine.api_keys import REVOKED as REVOKED_TERMS
from meter.engine.api_keys import change_key, identify
from meter.engine.operations import UNKEYED
from meter.ledger.api_keys import ACTIVE, DUE, EVERYWHERE, apply_due_keys, apply_keys
from meter.ledger.flusher import Flusher
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.key_rows import REVOKED, ApiKeyRow
from tests.lua.api_keys import by
from tests.partition import DAY, HOUR, MINUTE, T0, Partition
from tests.servers import fake_server

SETTINGS = Settings(redis_timeout_ms=10_000)


def row(user_id: str | None, state: str = DUE, **more: object) -> tuple[ApiKey, ApiKeyRow]:
    _, key = new_api_key(user_id or "", is_test=True)
    found = ApiKeyRow(
        key_id=key.key_id,
        hash=key.hash,
        user_id=user_id,
        partition=EVERYWHERE if user_id is None else 0,
        scopes=["admin:read"] if user_id is None else ["spend"],
        state=state,
        created_at_ms=T0,
        updated_at_ms=T0,
    )
    return key, found.model_copy(update=more)


async def test_a_rebuild_brings_keys_back_and_what_holds_keep_of_them(store: Store) -> None:
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    partition.freeze()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        key, users = row("u", models=["m"])
        ended, short = row("u", expires_at_ms=T0 + MINUTE)
        plain, free = row("u")
        operators, admins = row(None)
        revoked, gone = row("u", REVOKED)
        assert await store.commit(Change(new=[users, short, free, admins, gone]))
        partition.run(operations.grant("u", "g", 1000))
        for one in (users, short, free, admins):
            assert await apply_keys(runtime.engine, store, [(one, "issue")], UNKEYED)
        for hold in ("open", "late"):
            span = HOUR if hold == "open" else MINUTE
            assert partition.run(by(plain, operations.reserve("u", hold, 10, span, chosen=True))).status == "ok"
        assert partition.run(by(key, operations.deduct("u", 5))).status == "model_not_allowed"
        partition.advance(MINUTE)
        assert partition.run(by(ended, operations.deduct("u", 5))).status == "invalid_key"
        flusher = Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS)
        await flusher.step()
        server.client.flushall()

        await Rebuild(runtime.engine, runtime.redis, store, 36_525 * DAY).partition(0)
        partition.freeze(T0 + MINUTE)

        for known in (key, plain, operators):
            assert partition.run(identify(known)).status == "ok"
        assert partition.run(identify(key))["models"] == "m"
        for none in (ended, revoked):
            assert partition.run(identify(none)).status == "invalid_key"
        assert partition.run(by(plain, operations.deduct("u", 5))).status == "ok"
        for hold in ("open", "late"):
            transaction = partition.run(operations.commit(hold, 4))["transaction_id"]
            assert partition.entry_of(transaction).detail["key_id"] == plain.key_id
        await Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS).step()
        assert (await Reconcile(runtime.engine, runtime.redis, store).partition(0)).drifts == ()


async def test_a_rebuild_brings_no_key_back_whose_revocation_the_store_was_not_told(store: Store) -> None:
    """The sidecar that revoked it in Redis was killed; the ledger knows."""
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        key, users = row("u")
        other, stays = row("u")
        await store.commit(Change(new=[users, stays]))
        for one in (users, stays):
            assert await apply_keys(runtime.engine, store, [(one, "issue")], UNKEYED)
        partition.run(change_key("u", key.key_id, "revoke", 2, REVOKED_TERMS, UNKEYED))
        flusher = Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS)
        await flusher.step()
        (kept,) = await store.find(ApiKeyRow, {"key_id": key.key_id}, order_by="key_id", limit=1)
        assert (kept.state, kept.version) == (REVOKED, 3)
        server.client.flushall()

        await Rebuild(runtime.engine, runtime.redis, store, 36_525 * DAY).partition(0)

        assert partition.run(identify(key)).status == "invalid_key"
        assert partition.run(identify(other)).status == "ok"


async def test_what_a_process_left_half_done_is_told_by_the_sweep(store: Store) -> None:
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        key, users = row("u")
        await store.commit(Change(new=[users]))
        assert partition.run(identify(key)).status == "invalid_key"

        assert (await apply_due_keys(runtime.engine, store), await apply_due_keys(runtime.engine, store)) == (1, 0)
        assert partition.run(identify(key)).status == "ok"
        applied = await store.get(ApiKeyRow, key.key_id)
        assert applied is not None and (applied.state, applied.version) == (ACTIVE, 2)
