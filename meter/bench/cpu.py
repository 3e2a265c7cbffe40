"""CPU time of processes, by the scheduler's own account: exact to the nanosecond, where `ps` counts ticks of 10 ms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")


def can_read_cpu() -> bool:
    """Whether this system tells (Linux does)."""
    return (_PROC / "self" / "schedstat").is_file()


def cpu_ns(pid: int) -> int:
    """What all threads of a process have run so far; 0 where the system does not tell.

    A thread that ends takes its time out of the sum: the processes measured here keep theirs.
    """
    total = 0
    for stat in (_PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(stat.read_text(encoding="ascii").split(maxsplit=1)[0])
        except OSError:  # it ended meanwhile
            continue
    return total


def snapshot(pids: Mapping[str, int]) -> dict[str, int]:
    """The CPU time of each party by its name."""
    return {party: cpu_ns(pid) for party, pid in pids.items()}


def spent_us(before: Mapping[str, int], after: Mapping[str, int], count: float) -> dict[str, float]:
    """Microseconds for each of `count` things, by party; nothing when nothing was done or the system does not tell."""
    if not count or not any(after.values()):
        return {}
    return {party: (after[party] - before[party]) / 1000 / count for party in before}
