"""Sends the load of a case: wrk as fast as answers come, our own generator at a fixed rate or where wrk is not."""

from __future__ import annotations

from pathlib import Path

from meter.bench.cases import Case
from meter.bench.generator import run_generator
from meter.bench.options import BenchOptions, OptionError
from meter.bench.samples import Sample
from meter.bench.traffic import Load
from meter.bench.wrk import run_wrk, wrk_path

NO_WRK = (
    "wrk is not on PATH (apt install wrk): our own generator sends the load. It costs 21-46 µs of CPU a request where "
    "wrk costs 7, on the same cores, so that rates come out lower; CPU times and M are less disturbed."
)


class Driver:
    """Of one run. Raises `OptionError` for `--generator=wrk` without it."""

    def __init__(self, options: BenchOptions, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._wrk = None if options.generator == "own" else wrk_path()
        if options.generator == "wrk" and self._wrk is None:
            raise OptionError("--generator=wrk: it is not on PATH")

    @property
    def generator(self) -> str:
        """Which one sends what is as fast as answers come."""
        return "own" if self._wrk is None else "wrk"

    def drive(self, case: Case, port: int, run: str, seconds: float) -> Sample:
        """One round. Raises `WrkFailed`, `subprocess.SubprocessError` and OSError."""
        load = self._load(case, port, run, seconds)
        return run_generator(load) if self._wrk is None else run_wrk(self._wrk, load, self._folder)

    def drive_at(self, rate: float, case: Case, port: int, run: str, seconds: float) -> Sample:
        """One round at a fixed rate. Raises `subprocess.SubprocessError` and OSError."""
        return run_generator(self._load(case, port, run, seconds, rate))

    def _load(self, case: Case, port: int, run: str, seconds: float, rate: float = 0.0) -> Load:
        options = self._options
        users = min(options.users, case.users_max or options.users)
        connections = case.connections or options.connections
        return Load(port, case.templates, connections, seconds, users, f"{case.name}-{run}", rate)
