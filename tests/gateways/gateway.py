"""The gateways under test: how each is started with the files of `examples/gateways/`, and what it can do."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from tests.api.sidecar import wait_for
from tests.gateways.process import free_port, running
from tests.gateways.sidecar import Sidecar
from tests.gateways.upstream import Upstream
from tests.gateways.valve import Valve

EXAMPLES = Path(__file__).parents[2] / "examples" / "gateways"
UNAUTHORIZED = 401
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """One example. `command` may use {port}, {file} and {base_id}; `files` are copied from its folder with their ports
    replaced.
    """

    name: str
    binary: str
    command: tuple[str, ...]
    files: tuple[str, ...]
    reads_bodies: bool = False
    """Usage is found in JSON and event streams; otherwise in the header X-Credits-Actual only."""
    down: int = 503
    """What the client gets when the sidecar is not there."""
    stuck: int | None = 503
    """What the client gets when the sidecar accepts and never answers; None: this gateway waits."""
    slow: int = 503
    refusal_bodies: bool = True
    """The body of a refusal is the sidecar's own, not the gateway's copy of it."""
    aborted: str = "commit"
    """How the hold of a request ends whose client left: commit (all that is held), release, or open (by its end)."""
    shows_actual: bool = False
    """The client sees X-Credits-Actual too."""
    ships: str = ""
    """The source of its access log, which it writes to stdout for ship.py."""
    grpc: bool = False
    """It speaks ext_proc to the sidecar."""
    connections: int = 1
    """How many new connections to the sidecar requests one after the other take at most: one per worker that works, and
    where the gateway has them, those of commits and health checks.
    """
    more: Mapping[str, str] = field(default_factory=dict)
    """Further replacements in the files."""

    def __str__(self) -> str:
        return self.name

    def binary_path(self) -> str | None:
        """Where the binary is."""
        beside = BIN / self.binary
        if beside.exists():
            return str(beside)
        return shutil.which(self.binary, path="/usr/sbin:/usr/local/sbin:" + "/usr/bin:/usr/local/bin") or shutil.which(
            self.binary
        )


@dataclass
class Running:
    """A gateway that runs, and everything around it."""

    gateway: Gateway
    url: str
    sidecar: Sidecar
    upstream: Upstream
    http: httpx2.Client

    @property
    def valve(self) -> Valve:
        """What it reaches the sidecar through."""
        return self.sidecar.grpc_valve if self.gateway.grpc else self.sidecar.valve


NGINX_FILES = {
    "http {": "http {\n  client_body_temp_path tmp/b; proxy_temp_path tmp/p; fastcgi_temp_path tmp/f; "
    "uwsgi_temp_path tmp/u; scgi_temp_path tmp/s;"
}
"""Debian's nginx keeps temporary files where only root may write."""

GATEWAYS = (
    Gateway(
        name="nginx",
        binary="nginx",
        command=("-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"),
        files=("nginx.conf",),
        refusal_bodies=False,
        more=NGINX_FILES,
    ),
    Gateway(
        name="nginx-lua",
        binary="nginx",
        command=("-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"),
        files=("nginx.conf",),
        reads_bodies=True,
        connections=4,
        more=NGINX_FILES,
    ),
    Gateway(
        name="nginx-njs",
        binary="nginx",
        command=("-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"),
        files=("nginx.conf", "meter.js"),
        reads_bodies=True,
        refusal_bodies=False,
        more=NGINX_FILES,
    ),
    Gateway(
        name="haproxy",
        binary="haproxy",
        command=("-f", "haproxy.cfg"),
        files=("haproxy.cfg", "meter.lua"),
        reads_bodies=True,
        connections=4,
    ),
    Gateway(
        name="caddy",
        binary="caddy",
        command=("run", "--config", "Caddyfile", "--adapter", "caddyfile"),
        files=("Caddyfile",),
        aborted="open",
    ),
    Gateway(
        name="traefik",
        binary="traefik",
        command=("--configFile=traefik.yml",),
        files=("traefik.yml", "dynamic.yml"),
        ships="traefik",
        shows_actual=True,
        down=500,
        stuck=None,
    ),
    Gateway(
        name="envoy",
        binary="envoy",
        command=(
            "-c",
            "envoy.yaml",
            "--base-id",
            "{base_id}",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "50",
        ),
        files=("envoy.yaml",),
        ships="envoy",
        reads_bodies=True,
        connections=2,
    ),
    Gateway(
        name="envoy-ext-proc",
        binary="envoy",
        command=("-c", "envoy.yaml", "--base-id", "{base_id}", "--log-level", "warning"),
        files=("envoy.yaml",),
        reads_bodies=True,
        grpc=True,
        stuck=504,
        connections=2,
    ),
)


@contextmanager
def running_gateway(gateway: Gateway, folder: Path, sidecar: Sidecar, upstream: Upstream) -> Iterator[Running]:
    """The gateway, on free ports; skips when its binary is not installed."""
    binary = gateway.binary_path()
    if binary is None:
        pytest.skip(f"{gateway.binary} is not installed")
    if gateway.grpc and find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    port = free_port()
    replaced = {
        "127.0.0.1:8000": f"127.0.0.1:{sidecar.valve.port}",
        "127.0.0.1:9000": f"127.0.0.1:{upstream.port}",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "127.0.0.1:9514": f"127.0.0.1:{sidecar.syslog_port}",
        "http://:8080": f"http://:{port}",
        "port_value: 8000": f"port_value: {sidecar.valve.port}",
        "port_value: 9515": f"port_value: {sidecar.grpc_valve.port}",
        "port_value: 9000": f"port_value: {upstream.port}",
        "port_value: 8080": f"port_value: {port}",
        **gateway.more,
    }
    (folder / "tmp").mkdir()
    for name in gateway.files:
        text = (EXAMPLES / gateway.name / name).read_text()
        for old, new in replaced.items():
            text = text.replace(old, new)
        (folder / name).write_text(text)
    command = [binary, *(part.format(port=port, base_id=port % 30000) for part in gateway.command)]
    if gateway.ships:
        ship = [sys.executable, str(EXAMPLES / "ship.py"), "--source", gateway.ships, "--meter", sidecar.url]
        command = ["sh", "-c", f"{shlex.join(command)} | tee access.log | {shlex.join(ship)}"]
    with running(command, folder, port, name=gateway.name), httpx2.Client(timeout=20) as http:
        # Some listen before they know their routes.
        wait_for(lambda: http.get(f"http://127.0.0.1:{port}/").status_code == UNAUTHORIZED, f"{gateway} is configured")
        yield Running(gateway, f"http://127.0.0.1:{port}", sidecar, upstream, http)
