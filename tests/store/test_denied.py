"""C12, C8, U11: a store that refuses is told apart from one that is away; a pooled connection that died is not told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from meter.errors import StoreDenied, StoreUnavailable
from meter.store.connect import open_store
from meter.store.sql import postgres
from meter.store.sql.store import SqlStore, _translated
from tests.store import samples
from tests.store.conftest import Servers, opened
from tests.store.servers import database_name


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        (asyncpg.InvalidPasswordError("password authentication failed"), True),
        (asyncpg.InvalidAuthorizationSpecificationError("no pg_hba.conf entry"), True),
        (asyncpg.InvalidCatalogNameError('database "x" does not exist'), True),
        (asyncpg.UndefinedObjectError('unrecognized configuration parameter "foo"'), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), False),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), False),
    ],
)
async def test_c12_postgres_says_whether_waiting_helps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, denied: bool
) -> None:
    async def connect(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(postgres, "asyncpg", SimpleNamespace(**{**vars(asyncpg), "connect": connect}))
    store = open_store("postgresql://u:hunter2@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable) as raised:
        await store.open({})
    assert isinstance(raised.value, StoreDenied) == denied
    assert not denied or str(raised.value).startswith("METER_STORE_URL: ")
    assert "hunter2" not in str(raised.value)


async def test_c17_postgres_connects_with_the_url_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    urls, asked = iter(["postgresql://u:first@h/x", "postgresql://u:second@h/x"]), []

    async def connect(dsn: str, **_: object) -> None:
        asked.append(dsn)
        raise asyncpg.InvalidPasswordError("password authentication failed")

    monkeypatch.setattr(postgres, "asyncpg", SimpleNamespace(**{**vars(asyncpg), "connect": connect}))
    store = open_store("postgresql://u:first@h/x", read_again=lambda: next(urls))
    for _ in range(2):
        with pytest.raises(StoreDenied):
            await store.open({})
    assert asked == ["postgresql://u:first@h/x", "postgresql://u:second@h/x"]


async def test_c17_mysql_connects_with_the_password_of_now() -> None:
    passwords, seen = iter(["first", "p%40ss"]), []
    store = open_store("mysql://u:old@127.0.0.1:1/x", read_again=lambda: f"mysql://u:{next(passwords)}@127.0.0.1:1/x")
    assert isinstance(store, SqlStore)

    @event.listens_for(store.engine.sync_engine, "do_connect")
    def looked(_dialect: object, _record: object, _args: object, options: dict[str, object]) -> None:
        seen.append((options["user"], options["password"]))

    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.open({})
    await store.close()
    assert seen == [("u", "first"), ("u", "p@ss")]


@pytest.mark.parametrize(("code", "denied"), [(1045, True), (1044, True), (1049, True), (2003, False), (1040, False)])
def test_c12_mysql_and_mariadb_say_it_by_number(code: int, denied: bool) -> None:
    with pytest.raises(StoreUnavailable) as raised, _translated():
        raise OperationalError("connect", None, Exception(code, "Access denied for user 'u'@'h'"))
    assert isinstance(raised.value, StoreDenied) == denied


async def test_c8_an_option_that_the_driver_does_not_know_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("mysql://u:hunter2@127.0.0.1:1/x?no_such_option=1")

    async def prepare(*_: object) -> None:
        raise TypeError("connect() got an unexpected keyword argument 'no_such_option'")

    monkeypatch.setattr(store, "_prepare", prepare)
    with pytest.raises(StoreDenied, match=r"^METER_STORE_URL: .*no_such_option"):
        await store.open({})


@pytest.mark.postgres
async def test_u11_a_connection_that_died_with_its_server_is_hidden_by_one_retry(servers: Servers) -> None:
    """U11: a restart of PostgreSQL leaves dead connections in the pool."""
    server, name = servers.get("postgres"), database_name()
    await server.create(name)
    url = server.url(name)
    async with opened(open_store(url)) as store, opened(open_store(url)) as other:
        assert isinstance(store, SqlStore) and isinstance(other, SqlStore)

        async def end_others() -> None:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            async with other.engine.begin() as connection:
                await connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))

        await asyncio.gather(*(store.ping() for _ in range(4)))
        await end_others()
        await asyncio.gather(*(store.ping() for _ in range(4)))
        await end_others()
        assert (await store.apply(samples.flush(None, [samples.transaction(1)]))).done
    await server.drop(name)


@pytest.mark.postgres
async def test_c12_a_wrong_database_of_a_real_server_is_denied(servers: Servers) -> None:
    store = open_store(servers.get("postgres").url("no_such_database"))
    with pytest.raises(StoreDenied, match=r"3D000.*no_such_database"):
        await store.open({})


@pytest.mark.postgres
async def test_c8_an_option_that_a_real_server_does_not_know_is_denied(servers: Servers) -> None:
    """C8: it ended as "the store is away", for ever."""
    url = servers.get("postgres").url("postgres")
    store = open_store(f"{url}{'&' if '?' in url else '?'}no_such_option=1")
    with pytest.raises(StoreDenied, match=r"^METER_STORE_URL: .*no_such_option"):
        await store.open({})


async def test_u11_a_commit_whose_end_nobody_knows_is_not_sent_again() -> None:
    store = open_store("postgresql://u@127.0.0.1:1/x")
    assert isinstance(store, SqlStore)
    lost = DBAPIError("COMMIT", None, Exception("connection is closed"), connection_invalidated=True)
    tries: list[bool] = []

    async def once(_: object, committing: list[bool]) -> None:
        tries.append(True)
        committing.append(True)
        raise lost

    store._transact_once = once  # type: ignore[assignment, method-assign]
    with pytest.raises(DBAPIError):
        await store._transact(lambda _: asyncio.sleep(0))
    assert tries == [True]
