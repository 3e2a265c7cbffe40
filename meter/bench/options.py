"""What a benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CASE_NAMES = (
    "floor",
    "echo",
    "deduct",
    "pairs",
    "batch",
    "authorize",
    "lone",
    "evalsha",
    "evalsha1",
    "ratelimit",
    "original",
    "upstream",
    "proxy",
)
"""Cases in the order in which a round runs them (`meter.bench.cases`)."""

PART_NAMES = ("worker", "latency", "script", "flat")
"""What is measured beside the rounds: a worker with little to do, latency at a fixed rate, the script, its flatness."""

GENERATORS = ("auto", "wrk", "own")


class OptionError(ValueError):
    """An option that means nothing; the message names it."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `meter bench`. Raises `OptionError`."""

    rounds: int = 10
    seconds: float = 1.0
    """Of load per case and round."""
    connections: int = 64
    cases: tuple[str, ...] = ()
    """Of `CASE_NAMES` and `PART_NAMES`. Empty: all that can run here."""
    users: int = 1000
    generator: str = "auto"
    """auto: wrk when it is on PATH."""
    idle_seconds: float = 60.0
    """How long the worker is watched while it has nothing to do: what it does each minute happens once."""
    ratelimit: str | None = None
    """Path of the binary of envoyproxy/ratelimit; `go`: build it."""
    deep: bool = False
    """Flat cost up to a million accounts, and memory per account and hold."""
    as_json: bool = False
    out: Path = Path("bench-results")
    """Folder for the JSON file."""

    def __post_init__(self) -> None:
        for name in ("rounds", "seconds", "connections", "users", "idle_seconds"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name.replace('_', '-')}={getattr(self, name)}: must be more than 0")
        known = (*CASE_NAMES, *PART_NAMES)
        unknown = [name for name in self.cases if name not in known]
        if unknown:
            raise OptionError(f"--cases={unknown[0]}: there are {', '.join(known)}")
        if self.generator not in GENERATORS:
            raise OptionError(f"--generator={self.generator}: there are {', '.join(GENERATORS)}")

    def wants(self, part: str) -> bool:
        """Whether one of `PART_NAMES` was asked for."""
        return not self.cases or part in self.cases


@dataclass(frozen=True, slots=True)
class FlushBenchOptions:
    """Options of `meter bench flush`. Raises `OptionError`."""

    store: str | None = None
    """URL of an empty database; None: SQLite in a temporary folder."""
    transactions: int = 50_000
    lag_rate: int = 5_000
    """Deducts a second while the lag is measured."""
    lag_seconds: float = 5.0
    """0: the lag is not measured."""
    rebuild_accounts: int = 50_000
    """0: the rebuild is not measured."""
    users: int = 1000
    out: Path = Path("bench-results")

    def __post_init__(self) -> None:
        for name in ("transactions", "users", "lag_rate"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name.replace('_', '-')}={getattr(self, name)}: must be more than 0")
        for name in ("lag_seconds", "rebuild_accounts"):
            if getattr(self, name) < 0:
                raise OptionError(f"--{name.replace('_', '-')}={getattr(self, name)}: must not be negative")


@dataclass(frozen=True, slots=True)
class ProxyBenchOptions:
    """Options of `meter bench proxy`. Raises `OptionError`."""

    rounds: int = 10
    seconds: float = 1.0
    """Of streams per kind, way and round."""
    users: int = 1000
    out: Path = Path("bench-results")

    def __post_init__(self) -> None:
        for name in ("rounds", "seconds", "users"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name}={getattr(self, name)}: must be more than 0")


@dataclass(frozen=True, slots=True)
class UsageBenchOptions:
    """Options of `meter bench usage`. Raises `OptionError`."""

    rounds: int = 10
    out: Path = Path("bench-results")

    def __post_init__(self) -> None:
        if self.rounds <= 0:
            raise OptionError(f"--rounds={self.rounds}: must be more than 0")


@dataclass(frozen=True, slots=True)
class JobsBenchOptions:
    """Options of `meter bench jobs`. Raises `OptionError`."""

    store: str | None = None
    """URL of an empty database; None: SQLite in a temporary folder."""
    subscriptions: int = 100_000
    """0: the allocation is not measured."""
    grants: int = 100_000
    """Grants that end at once, and then as many holds. 0: the sweep is not measured."""
    rate: int = 500
    """Deducts a second over HTTP meanwhile."""
    idle_seconds: float = 10.0
    """How long the same deducts are measured while no job runs."""
    users: int = 1000
    """Whose credits are deducted."""
    out: Path = Path("bench-results")

    def __post_init__(self) -> None:
        for name in ("rate", "idle_seconds", "users"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name.replace('_', '-')}={getattr(self, name)}: must be more than 0")
        for name in ("subscriptions", "grants"):
            if getattr(self, name) < 0:
                raise OptionError(f"--{name}={getattr(self, name)}: must not be negative")
