"""The schema of the SQL stores: migrations make what the models say, alone, at once, after a kill, never backwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, String, Table, event, insert, text
from sqlalchemy.engine import Connection

from meter.store import connect
from meter.store.base import Store, StoreMismatch
from meter.store.generated_schema import sql_schema
from meter.store.mongo.store import MongoStore
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.rows import AlertRow, DeliveryRow, WebhookRow
from meter.store.sql import schema
from meter.store.sql.schema import VERSION_TABLE
from meter.store.sql.store import SqlStore
from meter.store.sql.tables import METADATA
from meter.store.sums import Sum, Wanted
from tests.store import samples
from tests.store.conftest import SQL_KINDS
from tests.store.samples import T0
from tests.store.test_contract_catalog import subscription

ROOT = Path(__file__).parents[2]
DIALECTS: dict[str, Any] = {"sqlite": "sqlite", "postgres": "postgres", "mysql": "mysql"}

sql_kinds = pytest.mark.parametrize("kind", SQL_KINDS)


def open_store(url: str) -> SqlStore:
    made = connect.open_store(url)
    assert isinstance(made, SqlStore)
    return made


def _differences(connection: Connection) -> list[object]:
    """What alembic's autogenerate would change, and what it does not compare: which columns the keys have."""

    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name != VERSION_TABLE

    def differs(_context: object, _column: object, _ours: object, found: object, wanted: object) -> bool | None:
        """SQLite keeps what a column was declared as, and takes texts of any length: they are not widened there."""
        are_texts = isinstance(found, String) and isinstance(wanted, String)
        return False if are_texts and connection.dialect.name == "sqlite" else None

    options = {"compare_type": differs, "compare_server_default": True, "include_name": is_ours}
    found: list[object] = list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))
    for table in METADATA.sorted_tables:
        key = connection.dialect.get_pk_constraint(connection, table.name)["constrained_columns"]
        found += [(table.name, key)] if key != [column.name for column in table.primary_key] else []
    return found


async def _run(store: SqlStore, *statements: str) -> None:
    async with store.engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def _check(store: SqlStore) -> None:
    """The store is whole: its schema has no difference, and it works."""
    async with store.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    given = samples.flush(None, [samples.transaction(1)], accounts=[samples.account()])
    assert (await store.apply(given)).done


@sql_kinds
async def test_the_migrations_make_what_the_models_say(empty_url: str) -> None:
    store = open_store(empty_url)
    await store.open({})

    await _check(store)

    await store.close()


@sql_kinds
async def test_the_generated_schema_is_the_one_of_the_migrations(kind: str, empty_url: str) -> None:
    """It loads into the real database, and a store opens on what it made."""
    store = open_store(empty_url)
    await _run(store, *_statements(kind))
    async with store.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []

    await store.open({"partitions": "1"})

    await _check(store)
    await store.close()


@sql_kinds
async def test_a_first_start_that_was_cut_off_is_completed_by_the_next(kind: str, empty_url: str) -> None:
    store = open_store(empty_url)
    await store.open({})
    statements = _statements(kind)
    for done in range(0, len(statements), 7):
        await _run(
            store, *(f"DROP TABLE {table.name}" for table in METADATA.sorted_tables), f"DROP TABLE {VERSION_TABLE}"
        )
        await _run(store, *statements[:done])

        again = open_store(empty_url)
        await again.open({})
        await _check(again)
        await again.close()
    await store.close()


@sql_kinds
async def test_stores_that_open_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    stores = [open_store(empty_url) for _ in range(4)]

    await asyncio.gather(*(store.open({"partitions": "2"}) for store in stores))

    await _check(stores[0])
    assert await stores[3].watermark(0) == samples.watermark(1)
    for store in stores:
        await store.close()


_OPENER = """
import asyncio, sys
from meter.store.connect import open_store

async def main():
    store = open_store(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open({"partitions": "2"})
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", [*SQL_KINDS, "mongo"])
async def test_processes_that_open_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    command = [sys.executable, "-c", _OPENER, empty_url]
    openers = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"

    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()

    for opener in openers:
        _, errors = opener.communicate(timeout=60)
        assert opener.returncode == 0, errors
    store = connect.open_store(empty_url)
    await store.open({"partitions": "2"})
    if isinstance(store, SqlStore):
        await _check(store)
    await store.close()


@pytest.mark.parametrize("kind", [*SQL_KINDS, "mongo"])
async def test_a_database_of_a_newer_version_is_refused_and_left_alone(empty_url: str) -> None:
    store = connect.open_store(empty_url)
    await store.open({})
    await _make_newer(store)
    old = connect.open_store(empty_url)

    with pytest.raises(StoreMismatch, match="newer version"):
        await old.open({"partitions": "7"})

    assert (await store.apply(samples.flush(None, [samples.transaction(1)]))).done
    await store.close()
    await old.close()


@pytest.mark.parametrize("kind", [*SQL_KINDS, "mongo"])
async def test_opening_again_changes_nothing(empty_url: str) -> None:
    store = connect.open_store(empty_url)
    await store.open({"partitions": "1"})
    await store.apply(samples.flush(None, [samples.transaction(1)]))

    for _ in range(2):
        await store.open({"partitions": "1"})

    assert await store.transaction("0-1-lane-1") == samples.transaction(1)
    await store.close()


@pytest.mark.parametrize("kind", [*SQL_KINDS, "mongo"])
async def test_alerts_of_before_they_were_called_so_are_still_told(empty_url: str) -> None:
    """A database of version 2 keeps its alerts and deliveries, under their new names."""
    store = connect.open_store(empty_url)
    await store.open({})
    alert, delivery, endpoint = samples.alert("a-1"), samples.delivery("d-1", alert_id="a-1"), samples.webhook("w-1")
    for row in (alert, delivery, endpoint):
        await store.insert_many([row])
    await _make_version_2(store)
    await store.close()

    again = connect.open_store(empty_url)
    await again.open({})

    assert await again.due(AlertRow, "due", "next_attempt_at_ms", 0, 9) == [alert]
    assert await again.get(DeliveryRow, "d-1") == delivery
    assert await again.get(WebhookRow, "w-1") == endpoint.model_copy(update={"old_secrets": [["old", 7]]})
    assert await again.swap(alert.model_copy(update={"state": "passed", "version": 2}))
    if isinstance(again, SqlStore):
        await _check(again)
    await again.close()


@pytest.mark.parametrize("kind", [*SQL_KINDS, "mongo"])
async def test_u9_plans_of_before_there_was_a_history_begin_with_what_is_known(empty_url: str) -> None:
    """A database of version 9: one plan that lasts since it began, one that ended, one that nobody had for a moment."""
    store = connect.open_store(empty_url)
    await store.open({})
    kept = [
        subscription("lasts", created_at_ms=T0, updated_at_ms=T0 + 5),
        subscription("ended", state="ended", created_at_ms=T0, updated_at_ms=T0 + 5),
        subscription("moment", state="ended", created_at_ms=T0, updated_at_ms=T0),
    ]
    await store.insert_many(kept)
    await store.apply(samples.flush(None, [samples.transaction(n, row.user_id) for n, row in enumerate(kept, 1)]))
    await _make_version_9(store)
    await store.close()

    for _ in range(2):
        again = connect.open_store(empty_url)
        await again.open({})
        assert await again.find(SubscriptionRow, {}, order_by="user_id", limit=9) == sorted(kept, key=_user_id)
        past = await again.find(PastPlanRow, {}, order_by="user_id", limit=9)
        assert [(row.user_id, row.plan_id, row.from_ms, row.until_ms) for row in past] == [("ended", "pro", T0, T0 + 5)]
        assert await again.sums(Wanted("plan"), "", 9) == [Sum("pro", 2, 10, 0, 0)]
        if isinstance(again, SqlStore):
            async with again.engine.connect() as connection:
                assert await connection.run_sync(_differences) == []
        await again.close()


class _Killed(Exception):
    """In the place of a process that ends in the middle."""


@sql_kinds
async def test_a_migration_that_was_cut_off_between_two_statements_is_completed(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Version 3, which renames; and no two indexes are on the same columns at a time, which MariaDB will refuse."""
    for cut in range(100):
        store = open_store(empty_url)
        await store.open({})
        await _make_version_2(store)
        await store.close()
        left = [cut]

        def cut_off(_c: object, _u: object, statement: str, *_: object, left: list[int] = left) -> None:
            if statement.split(maxsplit=1)[0] in ("ALTER", "CREATE", "DROP"):
                left[0] -= 1
                if left[0] < 0:
                    raise _Killed

        dying = open_store(empty_url)
        event.listen(dying.engine.sync_engine, "before_cursor_execute", cut_off)
        with suppress(_Killed):
            await dying.open({})
        await dying.close()
        again = open_store(empty_url)
        await again.open({})
        async with again.engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
        await again.close()
        if left[0] >= 0:
            break
    assert cut > 4
    assert "Duplicate index" not in caplog.text


@sql_kinds
async def test_every_step_is_completed_after_a_kill_in_front_of_each_of_its_statements(empty_url: str) -> None:
    """From version 9 on, with rows. Where a database keeps what was done before the kill (MySQL), the next start comes
    one statement further and is killed again; else each start is killed one statement later.
    """
    rows = [subscription("lasts", created_at_ms=T0), subscription("ended", state="ended", created_at_ms=T0)]
    rows = [row.model_copy(update={"updated_at_ms": T0 + 5}) for row in rows]
    store = open_store(empty_url)
    await _migrate_to(store, "0009", rows)
    await store.close()
    allowed, first, kills = 0, "", 0
    while True:
        done: list[str] = []

        def cut_off(
            _c: object, _u: object, statement: str, *_: object, done: list[str] = done, n: int = allowed
        ) -> None:
            if statement.split(maxsplit=1)[0] in ("ALTER", "CREATE", "DROP", "INSERT", "UPDATE", "DELETE"):
                done.append(statement)
                if len(done) > n:
                    raise _Killed

        dying = open_store(empty_url)
        event.listen(dying.engine.sync_engine, "before_cursor_execute", cut_off)
        try:
            await dying.open({})
            break
        except _Killed:
            kills += 1
        finally:
            await dying.close()
        allowed, first = allowed + 1 if done[0] == first else 1, done[0]
    assert kills > 20
    again = open_store(empty_url)
    await again.open({})
    past = await again.find(PastPlanRow, {}, order_by="user_id", limit=9)
    assert [(row.user_id, row.from_ms, row.until_ms) for row in past] == [("ended", T0, T0 + 5)]
    async with again.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await again.close()


async def _migrate_to(store: SqlStore, revision: str, rows: list[SubscriptionRow]) -> None:
    """The database as that version made it, with subscriptions."""

    def upgrade(connection: Connection) -> None:
        scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
        schema._versions.create(connection, checkfirst=True)
        given = {
            "version_table": VERSION_TABLE,
            "fn": lambda current, _: scripts._upgrade_revs(revision, current),
        }
        context = MigrationContext.configure(connection, opts=given)
        with Operations.context(context):
            context.run_migrations()
        table = Table("subscriptions", MetaData(), autoload_with=connection)
        for row in rows:
            told = row.model_dump()
            values = {column.name: told.get(column.name, 0) for column in table.c}
            connection.execute(insert(table).values(values))

    async with store._dialect.schema_transaction(store.engine) as connection:
        await connection.run_sync(upgrade)


@sql_kinds
async def test_text_is_compared_by_its_bytes_in_every_column(kind: str, empty_url: str) -> None:
    """Else ids that differ in case would be one on MySQL, and pages would jump on PostgreSQL."""
    store = open_store(empty_url)
    await store.open({})
    asked = {
        "sqlite": "SELECT 'C'",
        "postgres": "SELECT DISTINCT collation_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND data_type IN ('character varying', 'text') "
        f"AND table_name <> '{VERSION_TABLE}'",
        "mysql": "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = database() "
        f"AND data_type IN ('varchar', 'text', 'longtext') AND table_name <> '{VERSION_TABLE}'",
    }
    async with store.engine.connect() as connection:
        found = {row[0] for row in await connection.execute(text(asked[kind]))}

    assert found == {"utf8mb4_bin"} if kind == "mysql" else {"C"}
    await store.close()


def _user_id(row: SubscriptionRow) -> str:
    return row.user_id


async def _make_version_9(store: Store) -> None:
    if isinstance(store, SqlStore):
        await _run(
            store,
            "DROP TABLE past_plans",
            "ALTER TABLE subscriptions DROP COLUMN plan_since_ms",
            f"UPDATE {VERSION_TABLE} SET version_num = '0009'",
        )
        return
    assert isinstance(store, MongoStore)
    await store._database["past_plans"].drop()
    await store._database["subscriptions"].update_many({}, {"$unset": {"plan_since_ms": ""}})
    await store._database["deployment"].update_one({"_id": "schema_revision"}, {"$set": {"value": "3"}})


def _statements(kind: str) -> list[str]:
    return [one for one in sql_schema(DIALECTS[kind]).split(";\n\n") if one]


async def _make_version_2(store: Store) -> None:
    if isinstance(store, SqlStore):
        on = " ON deliveries" if store.engine.dialect.name in ("mysql", "mariadb") else ""
        await _run(
            store,
            f"DROP INDEX ix_deliveries_target_state_next_attempt_at_ms{on}",
            "ALTER TABLE alerts RENAME COLUMN alert_id TO intent_id",
            "ALTER TABLE deliveries RENAME COLUMN alert_id TO intent_id",
            "ALTER TABLE alerts RENAME TO alert_intents",
            "ALTER TABLE webhooks DROP COLUMN old_secrets",
            "ALTER TABLE webhooks ADD COLUMN old_secret VARCHAR(200)",
            "ALTER TABLE webhooks ADD COLUMN old_secret_until_ms BIGINT NOT NULL DEFAULT 0",
            "UPDATE webhooks SET old_secret = 'old', old_secret_until_ms = 7",
            f"UPDATE {VERSION_TABLE} SET version_num = '0002'",
        )
        return
    assert isinstance(store, MongoStore)
    for name in ("alerts", "deliveries"):
        await store._database.command("collMod", name, validator={})
        await store._database[name].update_many({}, {"$rename": {"alert_id": "intent_id"}})
    await store._database["alerts"].rename("alert_intents")
    old: dict[str, object] = {"old_secret": "old", "old_secret_until_ms": 7}
    await store._database["webhooks"].update_many({}, {"$set": old})
    await store._database["deployment"].update_one({"_id": "schema_revision"}, {"$set": {"value": "1"}})


async def _make_newer(store: Store) -> None:
    if isinstance(store, SqlStore):
        await _run(store, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        return
    assert isinstance(store, MongoStore)
    await store._database["deployment"].update_one({"_id": "schema_revision"}, {"$set": {"value": "9999"}})
