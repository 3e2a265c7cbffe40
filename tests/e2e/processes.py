"""Real processes of `meter`, their output, and whether they are gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from meter.dev.redis_server import start_time
from tests.api.sidecar import DEADLINE_SECONDS, wait_for

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """This process' environment without any METER_ setting but the given ones, by field name, and with any Redis."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("METER_")}
    ours["PYTHONPATH"] = str(ROOT)
    return ours | {f"METER_{name.upper()}": str(value) for name, value in {"redis_unsafe": 1, **settings}.items()}


def run_meter(*arguments: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A `meter` command that ends by itself."""
    command = [sys.executable, "-m", "meter", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, timeout=60, check=False)


class MeterProcess:
    """A `meter` command that goes on; leaving the block kills what is left of it."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str], name: str = "meter") -> None:
        self._log_path = cwd / f"{name}.log"
        self._seen: dict[int, str] = {}
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "meter", *arguments],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.see_children()
        if self.running:
            self.kill()
        for pid in self._left():
            os.kill(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What it wrote to standard output and standard error."""
        return self._log_path.read_text(errors="replace")

    def see_children(self) -> list[str]:
        """The command lines of the processes below it; remembers them, to be looked for later."""
        found = [self.pid] if self.running else []
        for parent in found:
            found += [pid for pid, its_parent in _parents().items() if its_parent == parent]
        lines = []
        for pid in found[1:]:
            started = start_time(pid)
            if started is not None:
                self._seen[pid] = started
                lines.append(_command_line(pid))
        return lines

    def wait_until_gone(self) -> None:
        """Returns when no process that was seen below it is left."""
        assert self._seen
        wait_for(lambda: not self._left(), f"the end of {[_command_line(pid) for pid in self._left()]}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and answers the exit code, which must come in time."""
        self.send(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """The exit code, which must come in time."""
        return self._process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """SIGKILL, and the process is gone."""
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)

    def _left(self) -> list[int]:
        return [pid for pid, started in self._seen.items() if start_time(pid) == started]


def _parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    return found


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return "gone"
