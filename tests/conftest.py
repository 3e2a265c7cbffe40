"""Fixtures for every test: two servers, a partition at a frozen time, an engine, and the checks after each test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from meter.config import Settings
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from tests import invariants
from tests.compiled_once import compile_scripts_once
from tests.partition import T0, WINDOW, Partition
from tests.servers import Server, embedded_server, fake_server, real_server

SERVERS = ("fakeredis", "redis")

os.environ.setdefault("METER_REDIS_UNSAFE", "1")  # the real servers of tests keep nothing on disk


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real server of this session."""
    with embedded_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An empty server of each kind."""
    found = fake_server() if request.param == "fakeredis" else real_server(request.getfixturevalue("redis_url"))
    yield found
    found.client.close()


@pytest.fixture
def unchecked() -> None:
    """For tests that break the data on purpose: the ledger is not checked after them."""


@pytest.fixture(autouse=True)
def _ledger_holds(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that has a server: conservation, ledger and key-leak checks (DESIGN section 6)."""
    if "server" not in request.fixturenames:
        yield
        return
    server: object = request.getfixturevalue("server")
    yield
    if isinstance(server, Server) and "unchecked" not in request.fixturenames:
        invariants.check(server.client, window_ms=WINDOW)


@pytest.fixture
def partition(server: Server) -> Partition:
    """Partition 0, opened, its clock frozen at T0."""
    found = Partition(server.client)
    assert found.open() == "opened"
    found.freeze(T0)
    server.client.hset(found.keys.meta, "recent_since", T0)
    return found


@pytest.fixture
def settings() -> Settings:
    """Settings of an engine under test; a time limit that a busy machine keeps, two partitions left to other tests."""
    return Settings(redis_timeout_ms=10_000)


@pytest.fixture
async def gateway(server: Server) -> AsyncIterator[RedisGateway]:
    """A gateway to the server."""
    found = server.gateway()
    yield found
    await found.close()


@pytest.fixture
async def engine(gateway: RedisGateway, settings: Settings) -> AsyncIterator[Engine]:
    """A started engine."""
    async with Engine(gateway, settings) as started:
        yield started


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument and number: compressed ones hold the time, and the workers of `pytest -n auto`
    must collect the same names."""
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


SLOW = ("bench", "e2e", "faults", "store")
"""Folders whose tests start many real processes or databases; `pytest` alone leaves them out, `.ci/run` does not."""


TWICE = ("ledger", "replay")
"""Folders whose tests say of Redis (and SQLite) what they say of fakeredis (and a store in memory): these take most
time, and tests/lua holds that both servers do the same."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow by its folder, and what is the same once more by its server."""
    slow, twice = (tuple(f"tests/{name}/" for name in names) for names in (SLOW, TWICE))
    for item in items:
        if item.nodeid.startswith(slow) and not item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.slow)
        elif item.nodeid.startswith(twice) and _is_on_redis(item):
            item.add_marker(pytest.mark.twice)


def _is_on_redis(item: pytest.Item) -> bool:
    spec = getattr(item, "callspec", None)
    return spec is not None and spec.params.get("server") == "redis"


HOW_TO_RUN = {
    "gateways": "real gateways: pytest -m gateways",
    "faults": "every fault of the table, and that the suite finds what is wrong: pytest -m faults",
    "slow": "real processes, databases, faults: pytest -m slow",
    "wheel": "the built wheel: python -m build --wheel, then pytest -m wheel",
    "long": "minutes of random stories and faults: pytest -m long",
    "browser": "the console in a real Chromium: pytest -m browser",
    "twice": "a real Redis, which fakeredis stands for: pytest -m twice",
}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts the count of what this run leaves out, and makes fakeredis quick."""
    compile_scripts_once()
    config.stash[LEFT_OUT] = Counter[str]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Counts what the marks leave out."""
    for item in items:
        mark = next((mark for mark in HOW_TO_RUN if item.get_closest_marker(mark)), None)
        if mark:
            item.config.stash[LEFT_OUT][mark] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of `pytest -n` tells its count; all of them have collected the same."""
    left_out = session.config.stash[LEFT_OUT]
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = {**left_out}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core: a test waits (for a server, a time-out, a process) about as long as it computes."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbours stay in one worker, which starts their servers once, until another has nothing left to do."""
    from xdist.scheduler import WorkStealingScheduling  # noqa: PLC0415 - a run without -n needs no xdist

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes a worker's count."""
    told: dict[str, int] = getattr(node, "workeroutput", {}).get("left_out", {})
    config: pytest.Config = node.config
    config.stash[LEFT_OUT].clear()
    config.stash[LEFT_OUT].update(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what was left out, and how to run it."""
    for mark, count in sorted(config.stash[LEFT_OUT].items()):
        terminalreporter.write_line(f"left out: {count} tests with {HOW_TO_RUN[mark]}")
