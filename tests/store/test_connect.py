"""Which store a URL means, and what is said when it means none."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from meter.errors import ConfigError
from meter.store import connect
from meter.store.base import StoreMismatch, StoreUnavailable
from meter.store.connect import open_store
from meter.store.memory.store import MemoryStore
from meter.store.mongo.store import MongoStore
from meter.store.sql.mysql import MysqlDialect
from meter.store.sql.postgres import PostgresDialect, _dsn
from meter.store.sql.sqlite import SqliteDialect
from meter.store.sql.store import SqlStore
from tests.store import samples


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("sqlite:///{folder}/a.db", SqliteDialect),
        ("sqlite+aiosqlite:///{folder}/a.db", SqliteDialect),
        ("postgres://user:secret@host/db", PostgresDialect),
        ("postgresql://user:secret@host:5433/db?sslmode=require", PostgresDialect),
        ("postgresql+asyncpg://host/db", PostgresDialect),
        ("mysql://user:secret@host/db", MysqlDialect),
        ("mysql+asyncmy://host/db", MysqlDialect),
        ("mariadb://host/db?unix_socket=/run/mysqld.sock", MysqlDialect),
    ],
)
async def test_a_url_of_a_sql_database(url: str, dialect: type, tmp_path: Path) -> None:
    store = open_store(url.format(folder=tmp_path))

    assert isinstance(store, SqlStore)
    assert type(store._dialect) is dialect
    await store.close()


@pytest.mark.parametrize("url", ["mongodb://127.0.0.1:1/ledger", "mongodb://user:secret@a,b/ledger?replicaSet=rs"])
async def test_a_url_of_mongodb_names_its_database(url: str) -> None:
    store = open_store(url)

    assert isinstance(store, MongoStore)
    assert store._database.name == "ledger"
    await store.close()


async def test_a_mongodb_url_without_a_database_means_meter() -> None:
    store = open_store("mongodb://127.0.0.1:1")

    assert isinstance(store, MongoStore)
    assert store._database.name == "meter"
    await store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "no known kind of store"),
        ("meter.db", "no known kind of store"),
        ("oracle://host/db", "'oracle' is no known kind of store; there are sqlite, postgres"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "memory://"),
        ("mysql://host:port/db", "not a URL"),
        ("mongodb://", "METER_STORE_URL"),
    ],
)
def test_a_url_of_no_store_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "extra"),
    [("postgresql://u:secret@h/d", "postgres"), ("mysql://u:secret@h/d", "mysql"), ("mongodb://u:secret@h/d", "mongo")],
)
def test_a_missing_driver_names_the_extra_that_brings_it(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=rf"pip install 'meter-sidecar\[{extra}\]'") as refused:
        open_store(url)

    assert "secret" not in str(refused.value)


async def test_sqlite_makes_its_folder_and_writes_ahead_durably(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "meter.db"
    store = open_store(f"sqlite:///{file}")
    await store.open({})
    assert isinstance(store, SqlStore)

    async with store.engine.connect() as connection:
        for name, expected in (("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 15_000)):
            assert (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() == expected
    assert file.exists()
    await store.close()


async def test_a_sqlite_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}")

    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await store.open({})
    await store.close()
    for thread in threading.enumerate():  # aiosqlite's, which still tells the loop that it ends
        while thread.name.endswith("(_connection_worker_thread)") and thread.is_alive():
            await asyncio.sleep(0.01)


async def test_memory_stores_of_one_name_are_one_store() -> None:
    first, second, other = open_store("memory://shared"), open_store("memory://shared"), open_store("memory://other")
    await first.open({"partitions": "1"})
    await first.apply(samples.flush(None, [samples.transaction(1)]))

    assert isinstance(first, MemoryStore)
    assert await second.watermark(0) == samples.watermark(1)
    assert await other.watermark(0) is None
    with pytest.raises(StoreMismatch):
        await second.open({"partitions": "2"})


async def test_memory_stores_without_a_name_are_each_their_own() -> None:
    first, second = open_store("memory://"), open_store("memory://")
    await first.apply(samples.flush(None, [samples.transaction(1)]))

    assert await second.watermark(0) is None


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgres://u:p%40@h:1/d", "postgresql://u:p%40@h:1/d"),
        ("postgresql+asyncpg://h/d?ssl=require", "postgresql://h/d?sslmode=require"),
        ("postgresql://h/d?sslmode=require&channel_binding=require", "postgresql://h/d?sslmode=require"),
        ("postgresql://u:@/d?host=/run/pg", "postgresql://u:@/d?host=%2Frun%2Fpg"),
    ],
)
def test_postgres_urls_as_hosters_write_them(url: str, dsn: str) -> None:
    assert _dsn(url) == dsn
