"""C8: PostgreSQL behind a pooler that gives out a server for a transaction at a time."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from meter.config import Settings
from meter.errors import StoreDenied
from meter.in_process import Meter
from meter.runtime import Runtime
from meter.store.connect import open_store
from meter.store.rows import TransactionRow
from meter.store.sql.postgres import PooledDialect, PostgresStore
from meter.testing import fake_settings
from meter.worker.context import Context, close_context, open_context
from tests.e2e.processes import free_port
from tests.ledger.ground import same_on_both_sides
from tests.servers import fake_server
from tests.store import samples
from tests.store.conftest import Servers, opened
from tests.store.servers import Address, database_name

pytestmark = pytest.mark.postgres

BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@asynccontextmanager
async def pooling(servers: Servers, **options: str) -> AsyncIterator[str]:
    """PgBouncer in transaction mode before an empty database; the store URL through it. Two servers for everybody."""
    if BINARY is None:
        pytest.skip("no pgbouncer on PATH: apt install pgbouncer")
    server, name, port = servers.get("postgres"), database_name(), free_port()
    await server.create(name)
    address = server.address
    host, its_port = (str(Path(address).parent), address.rpartition(".")[2]) if isinstance(address, str) else address
    with tempfile.TemporaryDirectory(prefix="meter-pgbouncer-") as folder:
        config = Path(folder, "pgbouncer.ini")
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": "2",
            "max_client_conn": "100",
            **options,
        }
        settings = "\n".join(f"{key} = {value}" for key, value in lines.items())
        config.write_text(f"[databases]\n* = host={host} port={its_port} user=postgres\n[pgbouncer]\n{settings}\n")
        Path(folder).chmod(0o755)
        user = _not_root(address)
        with subprocess.Popen([BINARY, str(config)], stderr=subprocess.DEVNULL, user=user) as process:
            try:
                url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
                async with asyncio.timeout(20):
                    while not await _answers(url):
                        await asyncio.sleep(0.05)
                yield url
            finally:
                process.terminate()
    await server.drop(name)


def _not_root(address: Address) -> int | None:
    """PgBouncer does not run as root; whoever owns the folder of PostgreSQL's socket reaches that."""
    if os.getuid() != 0:
        return None
    owner = Path(address).parent.stat().st_uid if isinstance(address, str) else 0
    return owner or pwd.getpwnam("nobody").pw_uid


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def test_c8_a_pooler_is_noticed_and_nothing_is_left_in_a_session(servers: Servers) -> None:
    async with pooling(servers) as url, opened(open_store(url)) as store, opened(open_store(url)) as other:
        assert isinstance(store, PostgresStore) and isinstance(store._dialect, PooledDialect)
        for seq in range(1, 4):
            before = await store.watermark(0)
            assert (await store.apply(samples.flush(before, [samples.transaction(seq)]))).done
        # More readers than servers, each with statements of its own, in any order.
        both = [
            one.get(TransactionRow, samples.transaction(seq).transaction_id)
            for seq in (1, 2, 3)
            for one in (store, other)
        ]
        both += [one.history("u", limit=9, kinds=["grant"][: n % 2]) for n in range(8) for one in (store, other)]  # type: ignore[misc]
        await asyncio.gather(*both)
        async with store.engine.connect() as connection:
            left = await connection.execute(text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"))
            assert left.scalar() == 0


async def test_c8_a_whole_deployment_works_through_it(servers: Servers) -> None:
    server = fake_server()
    async with pooling(servers) as url:
        settings: Settings = fake_settings(store_url=url)
        gateway = server.gateway()
        context: Context = {}
        async with Meter(settings, gateway) as meter:
            await open_context(context, Runtime(settings, gateway))
            await meter.add("u", 100)
            async with meter.reserve("u", 10) as hold:
                await hold.commit(5)
            assert await meter.deduct("u", 1)
            async with opened(open_store(url)) as store:
                async with asyncio.timeout(30):
                    while (found := await store.watermark(0)) is None or found.seq < 4:
                        await asyncio.sleep(0.05)
                await same_on_both_sides(server.client, store)
            await close_context(context)
        await gateway.close()


async def test_c8_an_option_that_the_pooler_does_not_take_is_one_line(servers: Servers) -> None:
    async with pooling(servers) as url:
        store = open_store(f"{url}?statement_timeout=5s")
        with pytest.raises(StoreDenied, match=r"^METER_STORE_URL: .*statement_timeout"):
            await store.open({})
        await store.close()


async def test_c8_commits_wait_for_the_disk_where_the_database_does_not(servers: Servers) -> None:
    async with pooling(servers) as url:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        await connection.execute("ALTER ROLE postgres SET synchronous_commit = off")
        await connection.close()
        try:
            async with pooling(servers) as fresh, opened(open_store(fresh)) as store:
                assert isinstance(store, PostgresStore)
                async with store.engine.begin() as transaction:
                    found = await transaction.execute(text("SELECT current_setting('synchronous_commit')"))
                    assert found.scalar() == "on"
        finally:
            connection = await asyncpg.connect(url, statement_cache_size=0)
            await connection.execute("ALTER ROLE postgres RESET synchronous_commit")
            await connection.close()


async def test_c8_without_a_pooler_nothing_changes(servers: Servers) -> None:
    server, name = servers.get("postgres"), database_name()
    await server.create(name)
    async with opened(open_store(server.url(name))) as store:
        assert isinstance(store, PostgresStore) and not isinstance(store._dialect, PooledDialect)
    await server.drop(name)


async def test_c8_tls_that_the_server_does_not_speak_is_denied(servers: Servers) -> None:
    async with pooling(servers) as url:
        store = open_store(f"{url}?sslmode=require")
        with pytest.raises(StoreDenied, match=r"^METER_STORE_URL: .*sslmode=disable"):
            await store.open({})
        await store.close()
