"""Both ways in: in one event loop for what is compared, on sockets for what a connection does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meter.api.lane.protocol import HotProtocol
from meter.http.bounded import BoundedProtocol
from tests.api.lane.serving import Sidecar
from tests.api.lane.ways import Ways

WAYS: dict[str, Any] = {"lane": HotProtocol, "plain": BoundedProtocol}


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    """The two, in an event loop of their own."""
    loop = asyncio.new_event_loop()
    found = Ways(loop)
    found.start()
    yield found
    found.stop()
    loop.close()


@pytest.fixture(params=["lane", "plain", "lane-unix", "plain-unix", "lane-asyncio"])
def sidecar(request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    """A sidecar of its own for each test: both ways in, on TCP, on a unix socket, and without uvloop."""
    way, _, variant = request.param.partition("-")
    with tempfile.TemporaryDirectory() as folder:  # a unix socket's path must be short
        uds = Path(folder) / "meter.sock" if variant == "unix" else None
        found = Sidecar(WAYS[way], uds, loop="asyncio" if variant == "asyncio" else "auto")
        found.start()
        yield found
        found.redis.open = True
        found.stop()
    assert not found.server.server_state.connections
    assert not found.server.server_state.tasks
