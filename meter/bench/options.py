"""What a benchmark is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CASE_NAMES = (
    "echo",
    "deduct",
    "pairs",
    "batch",
    "authorize",
    "logs",
    "explain",
    "evalsha",
    "original",
    "redis",
)
"""Cases in the order in which a round runs them; docs/ say what each is."""

GENERATORS = ("auto", "wrk", "own")


class OptionError(ValueError):
    """An option that means nothing; the message names it."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `meter bench`. Raises `OptionError`."""

    rounds: int = 5
    seconds: float = 3.0
    """Of load per case and round."""
    connections: int = 64
    cases: tuple[str, ...] = ()
    """Empty: all that can run here."""
    users: int = 1000
    generator: str = "auto"
    """auto: wrk when it is on PATH."""
    deep: bool = False
    """Flat-cost probes up to a million accounts, and memory per account and hold."""
    probes: bool = True
    half_rate: bool = True
    """Latency of deducts at half of their top rate."""
    out: Path = Path("bench-results")
    """Folder for the JSON file and the picture."""

    def __post_init__(self) -> None:
        for name in ("rounds", "seconds", "connections", "users"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name}={getattr(self, name)}: must be more than 0")
        unknown = [name for name in self.cases if name not in CASE_NAMES]
        if unknown:
            raise OptionError(f"--cases={unknown[0]}: there are {', '.join(CASE_NAMES)}")
        if self.generator not in GENERATORS:
            raise OptionError(f"--generator={self.generator}: there are {', '.join(GENERATORS)}")

    @classmethod
    def quick(cls, **changes: object) -> BenchOptions:
        """Two short rounds, and no probes."""
        return cls(**{"rounds": 2, "seconds": 1.0, "probes": False, "half_rate": False, **changes})  # type: ignore[arg-type]


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

    rounds: int = 5
    seconds: float = 3.0
    """Of streams per kind, way and round."""
    users: int = 1000
    out: Path = Path("bench-results")

    def __post_init__(self) -> None:
        for name in ("rounds", "seconds", "users"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{name}={getattr(self, name)}: must be more than 0")


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
