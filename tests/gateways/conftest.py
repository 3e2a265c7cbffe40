"""One sidecar and one upstream for the session; each gateway is started once, for all of its tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateways.gateway import GATEWAYS, Gateway, Running, running_gateway
from tests.gateways.sidecar import Sidecar, running_sidecar
from tests.gateways.upstream import Upstream, running_upstream

FIRST_EVENT_MS = pytest.StashKey[dict[str, float]]()


@pytest.fixture(scope="session")
def first_event_ms(request: pytest.FixtureRequest) -> dict[str, float]:
    """How long the first event of a stream took through each gateway, told at the end; no test fails on it."""
    return request.config.stash.setdefault(FIRST_EVENT_MS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tells what was measured."""
    found = config.stash.get(FIRST_EVENT_MS, {})
    if found:
        terminalreporter.section("first event of a stream through each gateway (should be below 100 ms)")
        for name, milliseconds in found.items():
            terminalreporter.line(f"{name:16} {milliseconds:6.1f} ms")


@pytest.fixture(scope="session")
def gateway_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """The sidecar."""
    with running_sidecar(tmp_path_factory.mktemp("sidecar")) as sidecar:
        yield sidecar


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The API behind the gateways."""
    with running_upstream() as found:
        yield found


@pytest.fixture(scope="session", params=GATEWAYS, ids=str)
def started(
    request: pytest.FixtureRequest,
    gateway_sidecar: Sidecar,
    upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """Each gateway in turn."""
    gateway: Gateway = request.param
    folder = tmp_path_factory.mktemp(gateway.name)
    with running_gateway(gateway, folder, gateway_sidecar, upstream) as found:
        yield found


@pytest.fixture
def running(started: Running) -> Running:
    """The gateway, with nothing counted or remembered."""
    started.valve.reset()
    started.upstream.seen.clear()
    started.upstream.finish.clear()
    started.upstream.gone.clear()
    return started
