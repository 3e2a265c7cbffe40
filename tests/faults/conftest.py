"""The stores that a deployment is run on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.servers import Missing, Postgres, database_name, running

SECONDS = float(os.environ.get("METER_FAULT_SECONDS", "3"))
KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The server of this session."""
    try:
        with running("postgres", tmp_path_factory.mktemp("postgres")) as server:
            assert isinstance(server, Postgres)
            yield server
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/meter.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = database_name()
    asyncio.run(server.create(name))
    yield server.url(name)
    asyncio.run(server.drop(name))
