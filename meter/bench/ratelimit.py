"""envoyproxy/ratelimit as a peer: it counts requests in Redis and books nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from meter.bench.processes import ServerFailed, ServerProcess, free_port, running

BUILD = "go"
MODULE = "github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36"
BUILD_SECONDS_MAX = 1800.0

_CONFIG = """domain: bench
descriptors:
  - key: user
    rate_limit:
      unit: day
      requests_per_unit: 4000000000
"""


@contextmanager
def served(binary: str, redis_url: str, folder: Path) -> Iterator[ServerProcess]:
    """The server of a binary, or of one that is built (`go`). Raises `ServerFailed`."""
    path = _built(folder) if binary == BUILD else Path(binary)
    if not path.is_file():
        raise ServerFailed(f"--ratelimit={binary}: there is no such file")
    rules = folder / "runtime" / "ratelimit" / "config"
    rules.mkdir(parents=True, exist_ok=True)
    (rules / "bench.yaml").write_text(_CONFIG, encoding="utf-8")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOST": "127.0.0.1",
        "GRPC_PORT": str(free_port()),
        "DEBUG_PORT": str(free_port()),
        "USE_STATSD": "false",
        "LOG_LEVEL": "error",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": urlsplit(redis_url).netloc,
        "RUNTIME_ROOT": str(folder / "runtime"),
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
    }
    with running(
        lambda port: ["/usr/bin/env", f"PORT={port}", str(path)], environment, folder / "ratelimit.log"
    ) as server:
        yield server


def _built(folder: Path) -> Path:
    if shutil.which("go") is None:
        raise ServerFailed("--ratelimit=go: there is no go on PATH")
    done = subprocess.run(  # noqa: S603
        ["go", "install", "-buildvcs=false", MODULE],  # noqa: S607
        env={**os.environ, "GOBIN": str(folder)},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        raise ServerFailed(f"go install: {done.stderr[-1000:]}")
    return folder / "service_cmd"
