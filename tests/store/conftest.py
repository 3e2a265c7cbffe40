"""Every kind of store for the same tests; a kind whose server is missing is skipped by name and counted by pytest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meter.store.base import Store
from meter.store.connect import open_store
from meter.store.mongo.store import MongoStore
from meter.store.rows import ROWS
from meter.store.sql.store import SqlStore
from meter.store.sql.tables import METADATA
from tests.store.servers import Missing, Server, database_name, running

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
MYSQL = pytest.param("mysql", marks=pytest.mark.mysql)
SQL_KINDS = ("sqlite", POSTGRES, MYSQL)
SERVER_KINDS = (POSTGRES, MYSQL, "mongo")
PATIENCE_SECONDS = 300.0  # for a busy machine
KINDS = ("memory", "sqlite", POSTGRES, MYSQL, "mongo", "mongo-transactions")


class Servers:
    """The servers of this session, started when first asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._known: dict[str, Server | Missing] = {}
        self.prepared: dict[str, str] = {}

    def get(self, kind: str) -> Server:
        """The server of a kind; skips the test when there is none."""
        if kind not in self._known:
            folder = self._folder / kind
            folder.mkdir()
            try:
                self._known[kind] = self._stack.enter_context(running(kind, folder))
            except Missing as missing:
                self._known[kind] = missing
        found = self._known[kind]
        if isinstance(found, Missing):
            pytest.skip(f"{kind}: {found}")
        return found

    def need_concurrent_transactions(self, kind: str) -> None:
        """Skips the test where they are not what they are on a real server."""
        if kind == "mongo-transactions" and self.get("mongo").can_restart:
            pytest.skip(f"{kind}: nx-27017 has all transactions on one connection; needs METER_TEST_MONGO_URL")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("servers"), stack)


@dataclass(frozen=True)
class Place:
    """Where the stores of one test live: each `open_store(url)` is another process's view of the same database."""

    kind: str
    url: str

    def store(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> Store:
        """A store, not opened."""
        made = open_store(self.url, timeout_seconds=timeout_seconds)
        if self.kind == "mongo-transactions":
            assert isinstance(made, MongoStore)
            made._atomic = True
        return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def empty_url(kind: str, servers: Servers, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    if kind in ("memory", "sqlite"):
        yield f"memory://{database_name()}" if kind == "memory" else f"sqlite:///{tmp_path}/folder/meter.db"
        return
    server, name = servers.get(kind.partition("-")[0]), database_name()
    await server.create(name)
    yield server.url(name)
    await server.drop(name)


@pytest.fixture
async def place(kind: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store without rows. Its tables are made once a session, and emptied for each test."""
    if kind == "memory":
        return Place(kind, f"memory://{database_name()}")
    if kind not in servers.prepared:
        if kind == "sqlite":
            servers.prepared[kind] = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/meter.db"
        else:
            server, name = servers.get(kind.partition("-")[0]), database_name()
            await server.create(name)
            servers.prepared[kind] = server.url(name)
    found = Place(kind, servers.prepared[kind])
    async with opened(found.store()) as store:
        await _empty(store)
    return found


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """An open store without rows."""
    async with opened(place.store()) as made:
        yield made
        if isinstance(made, SqlStore):
            await made._calls.drain()
            assert made.engine.pool.checkedout() == 0, "a connection was not given back"  # type: ignore[attr-defined]


@asynccontextmanager
async def opened(store: Store, settings: Mapping[str, str] | None = None) -> AsyncIterator[Store]:
    """The store, open; closed at the end."""
    try:
        await store.open(settings or {})
        yield store
    finally:
        await store.close()


async def _empty(store: Store) -> None:
    if isinstance(store, SqlStore):
        async with store.engine.begin() as connection:
            for table in METADATA.sorted_tables:
                await connection.execute(table.delete())
    if isinstance(store, MongoStore):
        for row in ROWS:
            await store._database[row.TABLE].delete_many({})
