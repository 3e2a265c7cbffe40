"""Envoy's rate limit service, as examples/gateways/envoy-rls has it: a real Envoy, a real sidecar, a real API."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from tests.api.sidecar import wait_for
from tests.gateways.gateway import EXAMPLES
from tests.gateways.process import free_port, running
from tests.gateways.sidecar import Sidecar
from tests.gateways.upstream import Upstream
from tests.gateways.valve import running_valve
from tests.servers import embedded_server

pytestmark = pytest.mark.gateways


@dataclass
class Limited:
    """Envoy in front of the API, and the sidecar that it asks."""

    sidecar: Sidecar
    http: httpx2.Client

    def get(self, path: str, user: str | None) -> httpx2.Response:
        return self.http.get(path, headers={} if user is None else {"X-User-Id": user})


@pytest.fixture(scope="module")
def limited(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    """The example on free ports."""
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if binary is None or find_spec("grpc") is None:
        pytest.skip("envoy or grpcio is not installed")
    folder = tmp_path_factory.mktemp("envoy-rls")
    port, rls_port, envoy_port = free_port(), free_port(), free_port()
    text = (EXAMPLES / "envoy-rls" / "envoy.yaml").read_text()
    for old, new in ((9516, rls_port), (9000, upstream.port), (8080, envoy_port)):
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    (folder / "envoy.yaml").write_text(text)
    with embedded_server(folder / "redis") as server, Redis.from_url(server.url) as redis:
        env = {
            "METER_REDIS_URL": server.url,
            "METER_REDIS_UNSAFE": "1",
            "METER_STORE_URL": "none",
            "METER_PORT": str(port),
            "METER_RLS": f"127.0.0.1:{rls_port}",
        }
        command = [binary, "-c", "envoy.yaml", "--base-id", str(envoy_port % 30000), "--log-level", "warning"]
        with (
            running([sys.executable, "-m", "meter", "serve"], folder, port, env, "sidecar"),
            running(command, folder, envoy_port, name="envoy"),
            running_valve(port) as valve,
            httpx2.Client(base_url=f"http://127.0.0.1:{envoy_port}", timeout=20) as http,
        ):
            sidecar = Sidecar(f"http://127.0.0.1:{port}", redis, valve, valve, 0)
            wait_for(lambda: sidecar.http.get("/readyz").status_code == 200, "the sidecar is ready")
            wait_for(lambda: http.get("/").status_code == 401, "envoy is configured")
            yield Limited(sidecar, http)
            sidecar.http.close()


def test_what_was_used_is_charged_behind_the_response(limited: Limited) -> None:
    user = limited.sidecar.user()
    assert limited.get("/header?usage=30", user).status_code == 200
    limited.sidecar.wait_for_balance(user, 970)


def test_who_may_spend_nothing_is_refused_before_the_api_is_asked(limited: Limited, upstream: Upstream) -> None:
    seen = len(upstream.seen)
    refused = limited.get("/header?usage=30", limited.sidecar.user(0))
    assert (refused.status_code, refused.json()["type"]) == (402, "/problems/insufficient-credits")
    assert refused.headers["content-type"] == "application/problem+json"
    assert len(upstream.seen) == seen


def test_what_costs_more_than_there_is_takes_what_is_there(limited: Limited) -> None:
    user = limited.sidecar.user(20)
    assert limited.get("/header?usage=30", user).status_code == 200
    limited.sidecar.wait_for_balance(user, 0)
    assert limited.get("/header?usage=30", user).status_code == 402


def test_a_request_without_a_user_does_not_come_through(limited: Limited, upstream: Upstream) -> None:
    """Envoy leaves out a descriptor whose header is missing, and would ask nobody."""
    seen = len(upstream.seen)
    assert limited.get("/header?usage=30", None).status_code == 401
    assert len(upstream.seen) == seen
