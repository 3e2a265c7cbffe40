"""The C floor: `floor.c` compiled and run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meter.bench.processes import ServerFailed, ServerProcess, running

SOURCE = Path(__file__).with_name("floor.c")


@contextmanager
def floor(folder: Path) -> Iterator[ServerProcess]:
    """A server that answers a constant. Raises `ServerFailed` when it does not compile."""
    binary = folder / "floor"
    done = subprocess.run(  # noqa: S603
        ["cc", "-O2", "-o", str(binary), str(SOURCE)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerFailed(f"cc: {done.stderr[-1000:]}")
    with running(lambda port: [str(binary), str(port)], {}, folder / "floor.log") as server:
        yield server
