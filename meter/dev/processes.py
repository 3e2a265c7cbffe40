"""`meter dev`: the whole sidecar from nothing. A Redis-compatible server, the worker in a child process, the API here.

State lives below one folder and survives a restart and a kill. No process outlives this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from meter.config import STORE_VARIABLE, Settings, is_set, store_url_of_seed
from meter.dev.child import can_end_with_parent, ending_with_parent
from meter.dev.redis_server import EmbeddedServer, EmbeddedServerError
from meter.errors import ConfigError
from meter.log import logger

WORKER_RESTART_PAUSE_SECONDS = 1.0
WORKER_STOP_SECONDS = 10.0
REDIS_LOOK_SECONDS = 0.5

_log = logger("meter.dev.processes")


class WorkerProcess:
    """A `meter worker` in a child process, started again when it dies. Start it from the main thread."""

    def __init__(self, environment: dict[str, str], log_path: Path) -> None:
        self._environment = environment
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        # The kernel ties a child's end to the thread that started it, so the watching thread lives as long as we do.
        self._ends_with_parent = can_end_with_parent()
        self._parent = os.getpid()
        self._watcher = threading.Thread(target=self._watch, name="meter-worker-watch", daemon=True)

    def start(self) -> None:
        """Starts the worker and watches over it."""
        self._watcher.start()

    def stop(self) -> None:
        """Stops the worker: gently first."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        self._watcher.join(WORKER_STOP_SECONDS)
        if process is not None and process.poll() is None:
            process.kill()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._process = self._spawn()
            if self._stopping.is_set():  # stop() may have looked for a process too early to see this one
                self._process.terminate()
            code = self._process.wait()
            if not self._stopping.wait(WORKER_RESTART_PAUSE_SECONDS):
                _log.warning("the worker ended and is started again", code=code, log=str(self._log_path))

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Without the working folder in its path: that is somebody's project, which may have a `workers/` or `redis.py`.
        command = [sys.executable, "-P", "-m", "meter", "worker"]
        if self._ends_with_parent:
            command = ending_with_parent(command, self._parent)
        with self._log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is ours to pass on.
            return subprocess.Popen(  # noqa: S603
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class RedisKeeper:
    """Starts the embedded server again, on its port and with its data, when it dies under us. Start it from the main
    thread; leave the block in the reverse order.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "redis"
        self._server = embedded_server(data_dir)
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="meter-redis-watch", daemon=True)

    def __enter__(self) -> EmbeddedServer:
        self._server.start()
        self._port = int(self._server.url.rpartition(":")[2].partition("/")[0])
        self._watcher.start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._watcher.join(WORKER_STOP_SECONDS)
        self._server.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(REDIS_LOOK_SECONDS):
            if self._server.is_alive:
                continue
            _log.warning("the embedded Redis ended and is started again", log=str(self._folder / "redis.log"))
            try:
                self._server.stop()
                self._server = EmbeddedServer(data_dir=self._folder, port=self._port)
                self._server.start()
            except (EmbeddedServerError, OSError) as error:
                _log.error("the embedded Redis cannot be started", why=str(error))
            else:
                _log.info("the embedded Redis is back", redis=self._server.url)


def embedded_server(data_dir: Path) -> EmbeddedServer:
    """The server of a data folder, with its append-only file."""
    folder = data_dir / "redis"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--data-dir {data_dir}: {error.strerror}: {error.filename}") from error
    return EmbeddedServer(data_dir=folder)


def store_url_of(data_dir: Path) -> str | None:
    """SQLite in the data folder; None (leave it to the settings) when another store was asked for."""
    is_chosen = is_set(STORE_VARIABLE, os.environ) or store_url_of_seed(os.environ) is not None
    return None if is_chosen else f"sqlite:///{data_dir / 'meter.db'}"


def ledger_file_of(data_dir: Path) -> str | None:
    """The seed's credit_ledger.jsonl in the data folder, unless a file was asked for."""
    return None if "METER_LEDGER_FILE" in os.environ else str(data_dir / "credit_ledger.jsonl")


_TLS = ("METER_REDIS_CA", "METER_REDIS_CERT", "METER_REDIS_KEY")

NO_TLS = {"redis_ca_file": "", "redis_cert_file": "", "redis_key_file": ""}
"""Settings of a server that only this machine reaches."""


def worker_process(settings: Settings, data_dir: Path) -> WorkerProcess:
    """The worker that belongs to these settings."""
    not_ours = {f"{name}_FILE" for name in ("METER_REDIS_URL", "METER_STORE_URL", *_TLS)}
    environment = {
        **{name: value for name, value in os.environ.items() if name.upper() not in not_ours},
        "METER_REDIS_URL": settings.redis_url,
        "METER_STORE_URL": settings.store_url,
        "METER_LEDGER_FILE": settings.ledger_file,
    }
    return WorkerProcess(environment, data_dir / "worker.log")
