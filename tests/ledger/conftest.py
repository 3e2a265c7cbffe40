"""A store of each light kind, each above a server of another kind: the store contract tests cross the others."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import Settings
from meter.engine.redis import RedisGateway
from meter.runtime import Runtime
from meter.store.base import Store
from meter.testing import fake_app, fake_settings
from tests.api.sidecar import serving
from tests.ledger.ground import Ground, open_at
from tests.ledger.sidecar import Sidecar
from tests.partition import Partition
from tests.servers import Server


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store in a file, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "meter.db"

    async def make() -> None:
        await (await open_at(f"sqlite:///{path}")).close()

    asyncio.run(make())
    return path


@pytest.fixture
async def store(server: Server, empty_sqlite: Path, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    if server.url is not None:
        shutil.copy(empty_sqlite, tmp_path / "meter.db")
    found = await open_at("memory://" if server.url is None else f"sqlite:///{tmp_path}/meter.db")
    yield found
    await found.close()


@pytest.fixture
async def ground(
    server: Server, partition: Partition, gateway: RedisGateway, store: Store, settings: Settings
) -> AsyncIterator[Ground]:
    """A partition whose clock stands at T0, above a store, with an engine."""
    runtime = Runtime(settings, gateway, store)
    await runtime.start()
    yield Ground(server, partition, gateway, store, runtime, settings)
    await runtime.close()


@pytest.fixture
def live(ground: Ground) -> Ground:
    """The same at the server's own time, which a total loss does not take away."""
    ground.client.hdel(ground.partition.keys.meta, "clock_ms")
    now_ms = int(ground.client.time()[0] * 1000)
    ground.client.hset(ground.partition.keys.meta, "recent_since", now_ms)
    return ground


@pytest.fixture
def api(server: Server, partition: Partition, tmp_path: Path) -> Iterator[Sidecar]:
    """fakeredis above a store in memory, in process; a real server above SQLite, over a socket."""
    del partition
    if server.url is None:
        url = f"memory://{tmp_path.name}"
        with TestClient(fake_app(server.fake, store_url=url)) as http:
            yield Sidecar(http, server, url)
    else:
        url = f"sqlite:///{tmp_path}/meter.db"
        settings = fake_settings(redis_url=server.url, store_url=url)
        with serving(create_app(settings)) as base, httpx2.Client(base_url=base) as http:
            yield Sidecar(http, server, url)
